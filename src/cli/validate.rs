//! `kvprof validate`.

use std::collections::BTreeMap;
use std::process::ExitCode;

use super::inputs::result_files;
use super::output::say;
use crate::bench;
use crate::schema::RunResult;
use crate::schema::read;
use crate::schema::validate::{validate, versions};

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
    let mut findings = Vec::new();
    let mut report = |line: String| findings.push(line);
    let mut by_hash: BTreeMap<String, String> = BTreeMap::new();
    for path in &files {
        match read::read(path) {
            Err(error) => report(error.to_string()),
            Ok(result) => {
                for finding in validate(&result).into_iter().chain(outdated(&result)) {
                    report(format!("{}: {finding}", path.display()));
                }
                // Files of 2.0 have no hash, and a name that no two experiments share.
                let key = result.spec_hash.unwrap_or(result.experiment_id);
                if let Some(other) = by_hash.insert(key, path.display().to_string()) {
                    report(format!("{}: the same experiment as {other}", path.display()));
                }
            }
        }
    }
    for line in &findings {
        say!("{line}");
    }
    let (count, found) = (files.len(), findings.len());
    eprintln!("{count} file{} checked, {found} finding{}", plural(count), plural(found));
    Ok(if found == 0 { ExitCode::SUCCESS } else { ExitCode::from(super::SOME_FAILED) })
}

/// Blocks whose numbers this kvprof would measure differently.
fn outdated(result: &RunResult) -> Vec<String> {
    let current = bench::all();
    let different = |(name, version): (&'static str, u32)| {
        let now = current.iter().find(|b| b.name() == name)?.version();
        (now != version).then(|| {
            format!(
                "{name} is of version {version}, and this kvprof measures version {now}; `kvprof patch --benchmarks {name}` renews it"
            )
        })
    };
    versions(result).into_iter().filter_map(different).collect()
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}
