//! `kvprof aggregate`: result files to one table.

use std::path::PathBuf;
use std::process::ExitCode;

use super::inputs::refuse_input;
use super::output;
use crate::Error;
use crate::report::export::TableFormat;
use crate::report::study::Study;
use crate::report::{aggregate, report_rejected, write_file};

/// Arguments of `kvprof aggregate`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Result files, or folders that hold them (searched below for *.json).
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// File to write; standard output without it.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Format; without it the one of the output's extension, else CSV.
    #[arg(short, long, value_enum)]
    format: Option<TableFormat>,
}

/// Writes the table: exit code 1 when a file was skipped.
///
/// # Errors
/// A missing path, no result file at all, and what the system says about the output.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let extension = args.output.as_ref().and_then(|o| o.extension()).and_then(|e| e.to_str());
    let format = match (args.format, extension) {
        (Some(format), _) => format,
        (None, Some(extension)) => TableFormat::of_extension(extension).ok_or_else(|| {
            Error::usage(format!(
                "cannot tell the format from .{extension}; add --format csv, md, latex, json or parquet"
            ))
        })?,
        (None, None) => TableFormat::Csv,
    };
    if args.output.is_none() && !format.is_text() {
        return Err(Error::usage("Parquet is not text: name a file with --output").into());
    }
    let study = Study::load(&args.paths)?;
    let skipped = report_rejected(&study, "");
    if study.runs.is_empty() {
        return Err(Error::usage("no result file among the given paths; `kvprof run` makes them").into());
    }
    if let Some(path) = &args.output {
        refuse_input(path, args.paths.iter().chain(study.result_files()))?;
    }
    let bytes = format.render(&aggregate::table(&study))?;
    match &args.output {
        Some(path) => write_file(path, &bytes)?,
        None => output::write(&bytes)?,
    }
    Ok(skipped)
}
