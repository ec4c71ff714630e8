//! Layer 6: from result files to tables and figures. Imports `schema` and `base` only.
//!
//! [`study`] reads files and sets them in order; [`aggregate`], [`compare`], [`tables`] and [`figures`] turn them into values
//! ([`table::Table`], [`chart::Chart`]); [`draw`] lays a chart out as a [`scene::Scene`] of shapes; [`export`] has one file for each
//! output format; [`html`] puts all of it on one page, under the sentences of [`advice`]. A run shows
//! [`terminal::TerminalTable`]s at its end, and that advice.

pub mod advice;
pub mod aggregate;
pub mod chart;
pub mod compare;
pub mod draw;
pub mod export;
pub mod figures;
pub mod font;
pub mod group;
pub mod html;
pub mod identity;
pub mod instrument_summary;
pub mod kernels;
pub mod label;
pub mod needle_grid;
pub mod number;
pub mod quality;
pub mod quality_summary;
pub mod quality_tables;
pub mod run;
pub mod scene;
pub mod scoring;
pub mod setting;
pub mod sharing;
pub mod study;
pub mod summary;
pub mod table;
pub mod tables;
pub mod terminal;
pub mod warnings;

use std::process::ExitCode;

use crate::base::message::tell;

/// Says on standard error which files `study` skipped or holds nothing of, and how much in it later measurements replace, each line
/// after `side`, which tells it from another study; exit code 1 when any was skipped.
pub fn report_rejected(study: &study::Study, side: &str) -> ExitCode {
    for error in &study.rejected {
        tell!("{side}skipped {error}");
    }
    for path in &study.empty {
        let path = path.display();
        tell!("{side}left out {path}: nothing in it was measured; the same run with --resume goes on in it");
    }
    for (count, what, why) in [
        (study.superseded, "measurement", "a later file has the same experiment"),
        (study.superseded_scores, "score", "the same cache was scored again later"),
    ] {
        if count > 0 {
            let are = if count == 1 { "is" } else { "are" };
            tell!("{side}{} {are} left out: {why}", number::counted(count, what));
        }
    }
    ExitCode::from(u8::from(!study.rejected.is_empty()))
}

/// Writes `bytes` to `path` whole or not at all, making its folder first.
///
/// # Errors
/// Names the folder or file that refused.
pub fn write_file(path: &std::path::Path, bytes: &[u8]) -> crate::base::error::Result<()> {
    if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(|e| crate::base::error::Error::io(folder, e))?;
    }
    crate::base::atomic::write(path, bytes)
}
