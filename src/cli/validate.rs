//! `kvprof validate`.

use std::collections::BTreeMap;
use std::process::ExitCode;

use super::inputs::result_files;
use crate::schema::{read, validate::validate};

/// Arguments of `kvprof validate`.
#[derive(clap::Args)]
pub struct Args {
    /// Result files, folders of them, or globs.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
}

/// Prints one line for each finding; exit code 1 if there is any.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let files = result_files(&args.files)?;
    let mut findings = 0;
    let mut report = |line: String| {
        println!("{line}");
        findings += 1;
    };
    let mut by_hash: BTreeMap<String, String> = BTreeMap::new();
    for path in &files {
        match read::read(path) {
            Err(error) => report(error.to_string()),
            Ok(result) => {
                for finding in validate(&result) {
                    report(format!("{}: {finding}", path.display()));
                }
                if let Some(hash) = result.spec_hash
                    && let Some(other) = by_hash.insert(hash, path.display().to_string())
                {
                    report(format!("{}: the same experiment as {other}", path.display()));
                }
            }
        }
    }
    let count = files.len();
    eprintln!("{count} file{} checked, {findings} finding{}", plural(count), plural(findings));
    Ok(if findings == 0 { ExitCode::SUCCESS } else { ExitCode::from(super::SOME_FAILED) })
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}
