//! `kvprof sweep`.

use std::path::PathBuf;
use std::process::ExitCode;

use super::dry_run::{self, Machine};
use super::outcome;
use super::output::{self, say};
use super::shown::{Form, show};
use crate::Error;
use crate::base::number::real;
use crate::session::plan;
use crate::session::progress::Terminal;
use crate::session::runner::{self, Existing, Output};
use crate::session::sweep::Sweep;
use crate::session::{interrupt, store};

/// Arguments of `kvprof sweep`.
#[derive(clap::Args)]
pub struct Args {
    /// The sweep file (TOML); examples are in configs/.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Print the plan with an estimate of the memory and time that each run needs, but for those that are complete in the
    /// output folder, and stop.
    #[arg(long)]
    dry_run: bool,
    /// With --dry-run: estimate for a GPU with this much free memory, such as 80GiB, instead of for this machine.
    #[arg(long, value_name = "SIZE", value_parser = super::size::parse, allow_hyphen_values = true, requires = "dry_run")]
    memory: Option<u64>,
    /// With --dry-run: the bandwidth of its memory in GB/s; measured on this machine where not given.
    #[arg(long, value_name = "GB/s", requires = "dry_run", value_parser = real)]
    bandwidth: Option<f64>,
    /// With --dry-run: its matrix products in 10^12 operations a second; measured on this machine where not given.
    #[arg(long, value_name = "TFLOP/s", requires = "dry_run", value_parser = real)]
    tflops: Option<f64>,
    /// Measure again what is there already.
    #[arg(long)]
    force: bool,
    /// Run only part I of N of the plan, for schedulers that fan out.
    #[arg(long, value_name = "I/N", value_parser = parse_shard)]
    shard: Option<(usize, usize)>,
    /// Folder for the result files.
    #[arg(long, value_name = "DIR", default_value = "results/raw")]
    output_dir: PathBuf,
    /// No progress and no table; warnings and errors stay.
    #[arg(long)]
    quiet: bool,
    /// Print the tables as Markdown (GitHub's), without the names of the files.
    #[arg(long, conflicts_with_all = ["quiet", "dry_run"])]
    markdown: bool,
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
    runner::check(&runs)?;
    if args.dry_run {
        let machine = Machine { memory: args.memory, bandwidth: args.bandwidth, tflops: args.tflops };
        let plan = dry_run::describe(&runs, &machine, (!args.force).then_some(&*args.output_dir))?;
        output::write(plan.text.as_bytes())?;
        say!("{distinct} runs ({named} named in the file), {} in this plan", runs.len());
        return Ok(if plan.refused == 0 { ExitCode::SUCCESS } else { ExitCode::from(super::SOME_FAILED) });
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
    let results = show(&outcomes, Form::of(args.quiet, args.markdown))?;
    let resuming = "to go on with the rest, give the same command again";
    Ok(outcome::exit_code(&outcomes, &results, runs.len(), Some(resuming)))
}
