//! `kvprof env`.

use std::process::ExitCode;

use crate::measure::process;

/// Arguments of `kvprof env`.
#[derive(clap::Args)]
pub struct Args {}

/// Prints which build this is, what devices there are, and what is missing.
pub fn run(_args: &Args) -> anyhow::Result<ExitCode> {
    println!(
        "kvprof    {} ({})",
        env!("CARGO_PKG_VERSION"),
        option_env!("KVPROF_GIT_REVISION").unwrap_or("no revision")
    );
    println!(
        "build     {}",
        if cfg!(feature = "cuda") { "CUDA and CPU" } else { "CPU only (build with --features cuda for a GPU)" }
    );
    println!("cpu       {}", process::cpu_description().unwrap_or_else(|| "unknown".into()));
    if let Some(bytes) = process::available_bytes() {
        println!("memory    {:.1} GiB available", bytes as f64 / (1u64 << 30) as f64);
    }
    Ok(ExitCode::SUCCESS)
}
