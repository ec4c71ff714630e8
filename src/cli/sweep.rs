//! `kvprof sweep`.

use std::path::PathBuf;
use std::process::ExitCode;

use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;

use super::outcome;
use crate::report::summary;
use crate::session::estimate::{Estimator, available_bytes};
use crate::session::plan::{self, RunSpec};
use crate::session::progress::Terminal;
use crate::session::runner::{self, Existing, Output};
use crate::session::sweep::Sweep;
use crate::session::{interrupt, store};
use crate::{Error, Result};

const GIB: f64 = (1u64 << 30) as f64;

/// Arguments of `kvprof sweep`.
#[derive(clap::Args)]
pub struct Args {
    /// The sweep file (TOML); examples are in configs/.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Print the plan with the memory each run needs, and stop.
    #[arg(long)]
    dry_run: bool,
    /// Measure again what is there already.
    #[arg(long)]
    force: bool,
    /// Run only part I of N of the plan, for schedulers that fan out.
    #[arg(long, value_name = "I/N", value_parser = parse_shard)]
    shard: Option<(usize, usize)>,
    /// Folder for the result files.
    #[arg(long, value_name = "DIR", default_value = "results/raw")]
    output_dir: PathBuf,
    /// No progress bars and no table.
    #[arg(long)]
    quiet: bool,
}

fn parse_shard(text: &str) -> Result<(usize, usize), String> {
    let parsed = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
    match parsed {
        Some((index, of)) if (1..=of).contains(&index) => Ok((index, of)),
        _ => Err("give I/N with 1 ≤ I ≤ N, such as 2/4".into()),
    }
}

/// Runs what is missing of the sweep; a run that was finished earlier is left alone.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    interrupt::listen();
    let sweep = Sweep::read(&args.file)?;
    let planned = sweep.plan().map_err(|e| Error::file(&args.file, e.to_string()))?;
    let (named, mut runs) = (planned.named, planned.runs);
    let distinct = runs.len();
    if let Some((index, of)) = args.shard {
        runs = plan::shard(runs, index, of);
    }
    if args.dry_run {
        println!("{}", plan_table(&runs)?);
        println!("{distinct} runs ({named} named in the file), {} in this plan", runs.len());
        return Ok(ExitCode::SUCCESS);
    }
    store::prepare_folder(&args.output_dir)?;
    let progress = Terminal::new(args.quiet);
    let output = Output {
        folder: args.output_dir.clone(),
        existing: if args.force { Existing::Keep } else { Existing::Resume },
        progress: &progress,
        show_loading: !args.quiet,
    };
    let outcomes = runner::run(&runs, &output)?;
    if !args.quiet {
        let results: Vec<_> = outcomes.iter().filter_map(|o| o.stored.as_ref()).map(|s| &s.result).collect();
        println!("{}", summary::table(&results));
    }
    Ok(outcome::exit_code(&outcomes, runs.len()))
}

/// The plan with what each run needs.
fn plan_table(runs: &[RunSpec]) -> Result<Table> {
    let available = available_bytes();
    let mut estimator = Estimator::default();
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header([
        "#",
        "model",
        "backend",
        "KV cache",
        "contexts",
        "output",
        "benchmarks",
        "weights GiB",
        "cache GiB",
        "fits",
    ]);
    for (at, run) in runs.iter().enumerate() {
        let estimate = estimator.estimate(run)?;
        let gib = |bytes: Option<u64>| bytes.map_or("unknown".into(), |b| format!("{:.2}", b as f64 / GIB));
        let fits = match (estimate, available) {
            (Some(need), Some(free)) if need.total_bytes() > free => "no",
            (Some(_), Some(_)) => "yes",
            _ => "unknown",
        };
        let contexts: Vec<String> = run.settings.context_lengths.iter().map(usize::to_string).collect();
        table.add_row([
            (at + 1).to_string(),
            run.model.model.clone(),
            run.attn_backend.clone(),
            run.kv_quant.name.clone(),
            if contexts.is_empty() { "default".into() } else { contexts.join(" ") },
            run.settings.decode_tokens.to_string(),
            run.benchmarks.join(" "),
            gib(estimate.map(|e| e.weights_bytes)),
            gib(estimate.map(|e| e.cache_bytes)),
            fits.to_string(),
        ]);
    }
    Ok(table)
}
