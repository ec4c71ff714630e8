//! `kvprof validate`.

use std::collections::BTreeMap;
use std::process::ExitCode;

use serde_json::Value;

use super::inputs::result_files;
use super::output::say;
use crate::base::message::tell;
use crate::bench;
use crate::report::number::counted;
use crate::schema::RunResult;
use crate::schema::read;
use crate::schema::validate::validate;
use crate::session::describe::{kv_quant, quant_of};

/// Arguments of `kvprof validate`.
#[derive(clap::Args)]
pub struct Args {
    /// Result files, folders that hold them (searched below for *.json), or globs.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
}

/// Prints one line for each finding; exit code 1 if there is any. A file of several machines is a note.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let files = result_files(&args.files)?;
    let mut findings = Vec::new();
    let mut report = |line: String| findings.push(line);
    let mut by_run: BTreeMap<(String, Option<String>), String> = BTreeMap::new();
    for path in &files {
        match read::read(path) {
            Err(error) => report(error.to_string()),
            Ok(result) => {
                for finding in validate(&result).into_iter().chain(outdated(&result)).chain(quantization(&result)) {
                    report(format!("{}: {finding}", path.display()));
                }
                // Resuming or patching elsewhere is no mistake, but a reader must know.
                if let Some(machines) = result.machines() {
                    tell!("note: {}: {machines}", path.display());
                }
                // Measuring the same again makes another run, whose id has another time. One id in two files is one run, copied: a
                // patch of one would leave the other behind. Runs of two machines may share a second, so the hash counts too.
                if let Some(other) = by_run.insert((result.experiment_id, result.spec_hash), path.display().to_string())
                {
                    report(format!("{}: the same run as {other}; keep one of the two", path.display()));
                }
            }
        }
    }
    for line in &findings {
        say!("{line}");
    }
    let (count, found) = (files.len(), findings.len());
    tell!("{} checked, {}", counted(count, "file"), counted(found, "finding"));
    Ok(if found == 0 { ExitCode::SUCCESS } else { ExitCode::from(super::SOME_FAILED) })
}

/// Blocks whose numbers this kvprof would measure differently.
fn outdated(result: &RunResult) -> Vec<String> {
    let told = |(name, version, now)| {
        format!(
            "{name} is of version {version}, and this kvprof measures version {now}; `kvprof patch --benchmarks {name}` renews it"
        )
    };
    bench::outdated(result).into_iter().map(told).collect()
}

/// Where the parts of the quantization are not those of the one that it is named after. Another version may know names that this one
/// does not.
fn quantization(result: &RunResult) -> Vec<String> {
    let recorded = &result.kv_quant;
    let Some(Ok(spec)) = recorded.name.as_ref().map(|_| quant_of(recorded)) else { return Vec::new() };
    let [recorded, named] = [recorded, &kv_quant(&spec)].map(|quant| serde_json::to_value(quant).unwrap_or_default());
    // A file need not tell every part; these two a name tells where there are any.
    let told = |part: &str| !named[part].is_null() || ["hadamard", "keep_layers"].contains(&part);
    let parts = recorded
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(part, value)| *part != "name" && !value.is_null() && told(part) && **value != named[*part]);
    let wrong = |(part, value): (&String, &Value)| {
        let expected = if named[part].is_null() { "none".into() } else { named[part].to_string() };
        format!("kv_quant.{part} is {value}, but {} has {expected}", spec.name)
    };
    parts.map(wrong).collect()
}
