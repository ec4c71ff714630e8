//! Times `aggregate` and `report` on 1,000 made-up result files: `cargo bench --bench report`. The aim is under 5 s for both on
//! two cores.

#![allow(clippy::unwrap_used)]

use std::process::Command;
use std::time::{Duration, Instant};

#[path = "../tests/support/results.rs"]
#[allow(clippy::unwrap_used, dead_code, reason = "shared with the tests, which use all of it")]
mod results;

const MODELS: usize = 20;
const CACHES: usize = 50;

fn main() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let raw = folder.path().join("raw");
    std::fs::create_dir(&raw)?;
    // Ten groupings, each with five windows: what differs in the window only is drawn once, and swept.
    let groups = ["", ",group=16", ",group=32", ",group=128", ",v-group=16"];
    let schemes =
        || ["int4-hqq", "int2-hqq"].into_iter().flat_map(move |name| groups.map(|group| format!("{name}{group}")));
    let names: Vec<(String, usize)> = schemes()
        .flat_map(|name| (1..=5).map(move |i| (format!("{name},residual={}", 32 * i), 32 * i)))
        .take(CACHES - 1)
        .collect();
    for model in 0..MODELS {
        let model = format!("org/Model-{model}B");
        results::write(&raw, &results::run(&model, &results::Cache::new("none", 16, 0.0)));
        for (i, (name, residual)) in names.iter().enumerate() {
            // The name outlives the program's only use of it.
            let cache = results::Cache {
                residual: *residual,
                ..results::Cache::new(name.clone().leak(), 4, 0.1 / (i + 1) as f64)
            };
            results::write(&raw, &results::run(&model, &cache));
        }
    }
    let files = std::fs::read_dir(&raw)?.count();
    let aggregate = time(&["aggregate", "-o"], &folder.path().join("summary.csv"), &raw)?;
    let report = time(&["report", "-o"], &folder.path().join("out"), &raw)?;
    println!("{files} files: aggregate {:.2} s, report {:.2} s", aggregate.as_secs_f64(), report.as_secs_f64());
    Ok(())
}

fn time(arguments: &[&str], output: &std::path::Path, raw: &std::path::Path) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let status = Command::new(env!("CARGO_BIN_EXE_kvprof"))
        .args(arguments)
        .arg(output)
        .arg(raw)
        .stdout(std::process::Stdio::null())
        .status()?;
    anyhow::ensure!(status.success(), "{arguments:?}: {status}");
    Ok(start.elapsed())
}
