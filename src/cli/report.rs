//! `kvprof report`: result files to tables, figures and one page.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use rayon::prelude::*;

use super::inputs::load;
use super::output::say;
use super::shown::{Form, show_advice};
use crate::Error;
use crate::base::message::tell;
use crate::report::advice::Bound;
use crate::report::draw::Drawn;
use crate::report::export::svg::Colours;
use crate::report::export::{TableFormat, pdf, png, svg};
use crate::report::group::Group;
use crate::report::html::{self, Page};
use crate::report::number::counted;
use crate::report::{aggregate, draw, figures, tables, write_file};

/// The files of a table, by their extensions.
const TABLE_FILES: [(&str, TableFormat); 3] =
    [("tex", TableFormat::Latex), ("csv", TableFormat::Csv), ("md", TableFormat::Md)];

/// Arguments of `kvprof report`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Result files, or folders that hold them (searched below for *.json).
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Folder to write to.
    #[arg(short, long, value_name = "FOLDER", default_value = "report")]
    output: PathBuf,
    /// How much the perplexity of a recommended cache may rise, per cent.
    #[arg(long, value_name = "PERCENT", default_value = "1", value_parser = percent, allow_hyphen_values = true)]
    max_ppl_rise: f64,
    /// How much a score (needle, MMLU, MATH) of a recommended cache may fall, percentage points; a fall that is not told from chance (its
    /// paired 95 % interval includes 0) rules no cache out, and is said.
    #[arg(long, value_name = "POINTS", default_value = "2", value_parser = percent, allow_hyphen_values = true)]
    max_score_fall: f64,
    /// How much slower than the unquantized cache a recommended one may decode (tokens/s), per cent [default: any].
    #[arg(long, value_name = "PERCENT", value_parser = percent, allow_hyphen_values = true)]
    max_slowdown: Option<f64>,
}

/// A percentage as a fraction: `1`, `1%` and `0.5 %` are understood.
fn percent(text: &str) -> Result<f64, String> {
    let number = text.trim().trim_end_matches('%').trim();
    match number.parse::<f64>() {
        Ok(value) if value.is_finite() && value >= 0.0 => Ok(value / 100.0),
        _ => Err("give a percentage that is not negative, such as 1 or 0.5%".into()),
    }
}

/// Writes `report.html`, `tables/` and `figures/`, and says which cache to use: exit code 1 when a file was skipped.
///
/// # Errors
/// A missing path, no result file at all, and what the system says about the output.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    let (study, skipped) = load(&args.paths, "the given paths", "")?;
    let read = Instant::now();
    let bound = Bound { ppl_rise: args.max_ppl_rise, score_fall: args.max_score_fall, slowdown: args.max_slowdown };
    let group = Group::of(&study);
    let tables = tables::all(&study, &group);
    let charts = figures::all(&group, &bound);
    let drawn: Vec<Drawn<'_>> = charts.par_iter().map(Drawn::new).collect();
    let composed = Instant::now();

    let tables_folder = args.output.join("tables");
    for table in &tables {
        for (extension, format) in TABLE_FILES {
            write_file(&tables_folder.join(format!("{}.{extension}", table.id)), &format.render(table)?)?;
        }
    }
    write_file(&tables_folder.join("aggregate.csv"), &TableFormat::Csv.render(&aggregate::table(&study))?)?;
    let figures_folder = args.output.join("figures");
    drawn.par_iter().try_for_each(|figure| write_figure(&figures_folder, figure))?;
    let no_table = |id: &str| tables::IDS.contains(&id) && tables.iter().all(|table| table.id != id);
    let no_figure = |id: &str| figures::can_be_called(id) && charts.iter().all(|chart| chart.id != id);
    let removed = remove_earlier(&tables_folder, &TABLE_FILES.map(|(extension, _)| extension), no_table)?
        + remove_earlier(&figures_folder, &["svg", "pdf", "png"], no_figure)?;
    if removed > 0 {
        let are = if removed == 1 { "is" } else { "are" };
        tell!("{} of an earlier report {are} removed: this one has no such table or figure", counted(removed, "file"));
    }
    let written = Instant::now();
    std::fs::create_dir_all(&args.output).map_err(|e| Error::io(&args.output, e))?;
    let page =
        Page { study: &study, group: &group, bound: &bound, tables: &tables, charts: &drawn, folder: &args.output };
    let path = args.output.join("report.html");
    write_file(&path, html::render(&page)?.as_bytes())?;
    tracing::debug!(
        "read in {:.2?}, composed in {:.2?}, tables and figures in {:.2?}, page in {:.2?}",
        read - started,
        composed - read,
        written - composed,
        written.elapsed()
    );
    say!(
        "{}: {}, {} from {}",
        path.display(),
        counted(tables.len(), "table"),
        counted(drawn.len(), "figure"),
        counted(study.files(), "file")
    );
    show_advice(&group, &bound, Form::Tables)?;
    Ok(skipped)
}

/// Removes the files of `folder` with one of `extensions` whose name without it is `obsolete`; how many there were. Beside tables and figures of
/// these results those of others would be taken for theirs.
fn remove_earlier(folder: &Path, extensions: &[&str], obsolete: impl Fn(&str) -> bool) -> crate::Result<usize> {
    if !folder.is_dir() {
        return Ok(0);
    }
    let mut removed = 0;
    for entry in std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
        let path = entry.map_err(|e| Error::io(folder, e))?.path();
        let part = |part: Option<&std::ffi::OsStr>| part.and_then(|p| p.to_str()).map(str::to_string);
        let (Some(name), Some(extension)) = (part(path.file_stem()), part(path.extension())) else { continue };
        if extensions.contains(&extension.as_str()) && obsolete(&name) && path.is_file() {
            std::fs::remove_file(&path).map_err(|e| Error::io(&path, e))?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Writes one figure in each format, side by side.
fn write_figure(folder: &Path, drawn: &Drawn<'_>) -> crate::Result<()> {
    let scene = draw::figure(drawn);
    let path = |extension: &str| folder.join(format!("{}.{extension}", drawn.chart.id));
    let vectors = || {
        write_file(&path("svg"), svg::render(&scene, Colours::Literal).as_bytes())?;
        write_file(&path("pdf"), &pdf::render(&scene))
    };
    let (vectors, pixels) = rayon::join(vectors, || write_file(&path("png"), &png::render(&scene)?));
    vectors.and(pixels)
}
