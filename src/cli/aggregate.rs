//! `kvprof aggregate`: result files to one table.

use std::path::PathBuf;
use std::process::ExitCode;

use super::inputs::{load, refuse_input};
use super::output;
use crate::report::export::TableFormat;
use crate::report::{aggregate, write_file};

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
/// An extension that tells no format, a missing path, no result file at all, and what the system says about the output.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let format = TableFormat::chosen(args.format, args.output.as_deref(), TableFormat::Csv)?;
    let (study, skipped) = load(&args.paths, "the given paths", "")?;
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
