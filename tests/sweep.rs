//! Sweeps, planned and made.

#![allow(clippy::unwrap_used, reason = "a test that panics fails, as it should")]

#[path = "sweep/dry_run.rs"]
mod dry_run;
#[path = "sweep/execution.rs"]
mod execution;
#[path = "support/program.rs"]
mod program;

use std::path::{Path, PathBuf};

const SWEEP: &str = r#"
[settings]
context-lengths = [256]
warmup-runs = 0
measure-runs = 1
decode-tokens = 8
ppl-tokens = 64
needle-depths = [0.5]
[[matrix]]
models = ["builtin"]
kv-quants = ["none", "int8-hqq", "int4-hqq", "int2-hqq-kivi"]
benchmarks = ["ppl"]
"#;

fn sweep_file(folder: &Path) -> PathBuf {
    let path = folder.join("sweep.toml");
    std::fs::write(&path, SWEEP).unwrap();
    path
}
