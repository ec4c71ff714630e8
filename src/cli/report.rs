//! `kvprof report`: result files to tables, figures and one page.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use rayon::prelude::*;

use super::output::say;
use crate::Error;
use crate::report::advice::Bound;
use crate::report::draw::Drawn;
use crate::report::export::svg::Colours;
use crate::report::export::{TableFormat, pdf, png, svg};
use crate::report::group::Group;
use crate::report::html::{self, Page};
use crate::report::number::counted;
use crate::report::study::Study;
use crate::report::{aggregate, draw, figures, report_rejected, tables, write_file};

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
    /// How much a score (needle, MMLU, MATH) of a recommended cache may fall, percentage points.
    #[arg(long, value_name = "POINTS", default_value = "2", value_parser = percent, allow_hyphen_values = true)]
    max_score_fall: f64,
}

/// A percentage as a fraction: `1`, `1%` and `0.5 %` are understood.
fn percent(text: &str) -> Result<f64, String> {
    let number = text.trim().trim_end_matches('%').trim();
    match number.parse::<f64>() {
        Ok(value) if value.is_finite() && value >= 0.0 => Ok(value / 100.0),
        _ => Err("give a percentage that is not negative, such as 1 or 0.5%".into()),
    }
}

/// Writes `report.html`, `tables/` and `figures/`: exit code 1 when a file was skipped.
///
/// # Errors
/// A missing path, no result file at all, and what the system says about the output.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    let study = Study::load(&args.paths)?;
    let skipped = report_rejected(&study, "");
    if study.runs.is_empty() {
        return Err(Error::usage("no result file among the given paths; `kvprof run` makes them").into());
    }
    let read = Instant::now();
    let bound = Bound { ppl_rise: args.max_ppl_rise, score_fall: args.max_score_fall };
    let group = Group::of(&study);
    let tables = tables::all(&study, &group);
    let charts = figures::all(&group, &bound);
    let drawn: Vec<Drawn<'_>> = charts.par_iter().map(Drawn::new).collect();
    let composed = Instant::now();

    let folder = args.output.join("tables");
    for table in &tables {
        write_file(&folder.join(format!("{}.tex", table.id)), &TableFormat::Latex.render(table)?)?;
        write_file(&folder.join(format!("{}.csv", table.id)), &TableFormat::Csv.render(table)?)?;
    }
    write_file(&folder.join("aggregate.csv"), &TableFormat::Csv.render(&aggregate::table(&study))?)?;
    let folder = args.output.join("figures");
    drawn.par_iter().try_for_each(|figure| write_figure(&folder, figure))?;
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
    Ok(skipped)
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
