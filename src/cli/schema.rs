//! `kvprof schema`.

use std::path::PathBuf;
use std::process::ExitCode;

use super::output;
use crate::base::atomic;
use crate::schema::json_schema;

/// Arguments of `kvprof schema`.
#[derive(clap::Args)]
pub struct Args {
    /// File to write; standard output without it.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Prints the JSON Schema of a result file.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match &args.output {
        Some(path) => atomic::write(path, json_schema::text().as_bytes())?,
        None => output::write(json_schema::text().as_bytes())?,
    }
    Ok(ExitCode::SUCCESS)
}
