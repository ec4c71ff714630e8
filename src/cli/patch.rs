//! `kvprof patch`.

use std::process::ExitCode;

use super::inputs::result_files;
use super::outcome;
use super::output::say;
use super::settings::SettingsArgs;
use crate::report::warnings;
use crate::session::progress::Terminal;
use crate::session::{interrupt, patch};

/// Arguments of `kvprof patch`.
#[derive(clap::Args)]
pub struct Args {
    /// Result files, folders of them, or globs; files of several models may be mixed.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
    /// Blocks to measure again: profile, or benchmark names.
    #[arg(long, num_args = 1.., required = true, value_name = "NAME")]
    benchmarks: Vec<String>,
    /// Do not keep the old file as FILE.bak.
    #[arg(long)]
    no_backup: bool,
    /// Take the model from here instead of where each file says.
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// auto, cpu, cuda or cuda:N, instead of the recorded device.
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    #[command(flatten)]
    settings: SettingsArgs,
    /// No progress bars.
    #[arg(long)]
    quiet: bool,
}

/// Measures the blocks again; every other field of the files stays as it is.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    interrupt::listen();
    args.settings.require_one_run()?;
    let files = result_files(&args.files)?;
    let request = patch::Request { blocks: args.benchmarks.clone(), backup: !args.no_backup };
    let progress = Terminal::new(args.quiet);
    let adjust = |spec: &mut crate::session::plan::RunSpec| {
        if let Some(model) = &args.model {
            spec.model.model = model.clone();
        }
        if let Some(device) = &args.device {
            spec.model.device = device.clone();
        }
        spec.settings = args.settings.apply(spec.settings.clone());
    };
    let outcomes = patch::run(&files, &request, &adjust, &progress, !args.quiet);
    if !args.quiet {
        let results: Vec<_> = outcomes.iter().filter_map(|o| o.stored.as_ref()).map(|s| &s.result).collect();
        warnings::tell(&results);
    }
    for stored in outcomes.iter().filter(|o| o.error.is_none()).filter_map(|o| o.stored.as_ref()) {
        say!("{}", stored.path.display());
    }
    Ok(outcome::exit_code(&outcomes, files.len()))
}
