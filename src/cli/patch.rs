//! `kvprof patch`.

use std::process::ExitCode;

use clap::Command;

use super::inputs::{refuse_input, result_files};
use super::outcome;
use super::settings::SettingsArgs;
use super::shown::{Form, show_tables};
use crate::bench;
use crate::report::warnings;
use crate::schema::RunResult;
use crate::session::progress::Terminal;
use crate::session::store::Stored;
use crate::session::{interrupt, patch};

// --benchmarks takes all names that follow it, so that FILE must stand before it; the line that clap would write has it the other way
// round.
const USAGE: &str = "kvprof patch [OPTIONS] <FILE>... --benchmarks <NAME>...";

const HELP: &str = "A file's `config` records the settings of its run. What it does not record, as files of version 2.0 do not for most \
                    of them, is as for `kvprof run`. A block that is measured here carries the settings that it was measured with; measured here again, it has those \
                    of the run and of the flags given now, whatever an earlier patch measured it with.";

/// Arguments of `kvprof patch`.
#[derive(clap::Args)]
#[command(after_help = HELP, override_usage = USAGE)]
pub struct Args {
    /// Result files, folders that hold them (searched below for *.json), or globs; files of several models may be mixed.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
    /// Blocks to measure again: profile, benchmarks by name, or all (every benchmark, not the profile).
    #[arg(long, num_args = 1.., required = true, value_delimiter = ',', value_name = "NAME")]
    benchmarks: Vec<String>,
    /// Do not keep the old file as FILE.bak.
    #[arg(long)]
    no_backup: bool,
    /// Take the model from here instead of from where each file says; without this, a model of the hub is taken at the commit that the file
    /// records, wherever its branch is now.
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// auto, cpu, cuda or cuda:N, instead of the recorded device.
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// No progress and no table; warnings and errors stay.
    #[arg(long)]
    quiet: bool,
    /// Print the tables as Markdown (GitHub's), without the names of the files.
    #[arg(long, conflicts_with = "quiet")]
    markdown: bool,
    #[command(flatten, next_help_heading = "Settings (what is not given is as each file's run had it)")]
    settings: SettingsArgs,
}

/// The command with the help of its settings as they are here: `run`'s defaults, which it ends with, are not those of `patch`, and a
/// file is one run.
pub fn with_own_help(command: Command) -> Command {
    let command = command.mut_args(|arg| {
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        match help.split_once(" [default:") {
            Some((what, _)) => arg.help(what.to_string()),
            None => arg,
        }
    });
    command.mut_arg("output_tokens", |arg| arg.help("Tokens that a timed decode generates; one number"))
}

/// Measures the blocks again, and shows them; every other field of the files stays as it is.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    interrupt::listen();
    args.settings.require_one_run()?;
    let files = result_files(&args.files)?;
    let trace_out = args.settings.trace_out.as_deref();
    trace_out.map_or(Ok(()), |path| refuse_input(path, &files))?;
    let blocks = bench::expand(&args.benchmarks)?;
    let left_out = (!blocks.iter().any(|block| block == "profile")).then_some("--benchmarks without profile");
    args.settings.check_profile(left_out, &blocks)?;
    let request = patch::Request { blocks: args.benchmarks.clone(), backup: !args.no_backup };
    let progress = Terminal::new(args.quiet);
    let adjust = |spec: &mut crate::session::plan::RunSpec| {
        if let Some(model) = &args.model {
            spec.model.model = model.clone();
            // The recorded commit is of the place that the file names.
            spec.model.revision = None;
        }
        if let Some(device) = &args.device {
            spec.model.device = device.clone();
        }
        spec.settings = args.settings.apply(spec.settings.clone());
    };
    let outcomes = patch::run(&files, &request, &adjust, &progress, !args.quiet);
    let patched = || outcomes.iter().filter_map(|o| o.stored.as_ref()).filter(|stored| !stored.measured.is_empty());
    // A file's other blocks, and what is wrong with them, were told when they were measured.
    let measured = |stored: &Stored| {
        let mut result = stored.result.clone();
        result.retain(|block| stored.measured.iter().any(|name| name == block));
        result
    };
    let results: Vec<RunResult> = patched().map(measured).collect();
    let results: Vec<&RunResult> = results.iter().collect();
    warnings::tell(&results);
    if !args.quiet {
        let files = patched().map(|stored| stored.path.as_path());
        show_tables(&results, files, Form::of(args.quiet, args.markdown))?;
    }
    Ok(outcome::exit_code(&outcomes, &results, files.len(), None))
}
