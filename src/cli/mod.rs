//! Layer 7: one file for each command.

pub mod aggregate;
pub mod compare;
pub mod completions;
mod dry_run;
pub mod env;
mod inputs;
pub mod models;
mod outcome;
mod output;
pub mod patch;
pub mod report;
pub mod run;
pub mod schema;
mod settings;
mod shown;
mod size;
pub mod sweep;
pub mod validate;

use std::ffi::OsStr;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::Error;
use crate::base::message::tell;
use crate::device::signals;
use crate::session::interrupt;

/// Exit code when some runs failed, or nothing could be measured.
pub const SOME_FAILED: u8 = 1;
/// Exit code of a wrong request or configuration.
pub const USAGE: u8 = 2;

const EXIT_CODES: &str = "Exit codes: 0 where all was done, 1 where something failed or was found wrong, or every row was skipped, 2 for \
                          a wrong request or input (nothing was measured), 130 after Ctrl-C.";

/// Measures what quantizing a language model's KV cache saves, what it costs, and what it breaks.
#[derive(Parser)]
#[command(name = "kvprof", version, about, max_term_width = 110, arg_required_else_help = true, after_help = EXIT_CODES)]
struct Cli {
    /// Messages on standard error: error, warn, info, debug or trace, or a filter such as `kvprof=debug`.
    // In the help of every command it stands after the command's own options.
    #[arg(long, global = true, display_order = 1000, default_value = "warn", value_name = "LEVEL")]
    log_level: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Profile a model with one or more KV-cache quantizations: one result file each.
    Run(Box<run::Args>),
    /// Run a matrix of models and quantizations from a file; what is there already is not run again.
    Sweep(sweep::Args),
    /// Measure blocks of existing result files again; everything else in them stays.
    Patch(Box<patch::Args>),
    /// Check result files: one line for each finding, exit code 1 if any.
    Validate(validate::Args),
    /// Print the JSON Schema of a result file.
    Schema(schema::Args),
    /// Put result files into one table.
    Aggregate(aggregate::Args),
    /// Compare new result files with old ones, and fail when a change is too large.
    Compare(compare::Args),
    /// Make tables, figures and one HTML page of result files.
    Report(report::Args),
    /// Say which models can be loaded, and what of one fits into memory.
    Models(models::Args),
    /// Say which build this is, what devices there are, and what is missing.
    Env(env::Args),
    /// Print a completion script for a shell.
    Completions(completions::Args),
}

/// Parses the arguments, runs the command, and turns its outcome into an exit code: 0 all done, 1 some runs failed or
/// nothing fitted, 2 usage or configuration, 130 interrupted.
pub fn main() -> ExitCode {
    signals::fail_where_a_file_grows_too_large();
    let cli = match grammar().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(answer) => return tell(&answer),
    };
    if let Err(error) = start_log(&cli.log_level) {
        return fail(&error);
    }
    let outcome = match &cli.command {
        Command::Run(args) => run::run(args),
        Command::Sweep(args) => sweep::run(args),
        Command::Patch(args) => patch::run(args),
        Command::Validate(args) => validate::run(args),
        Command::Schema(args) => schema::run(args),
        Command::Aggregate(args) => aggregate::run(args),
        Command::Compare(args) => compare::run(args),
        Command::Report(args) => report::run(args),
        Command::Models(args) => models::run(args),
        Command::Env(args) => env::run(args),
        Command::Completions(args) => completions::run(args),
    };
    outcome.unwrap_or_else(|error| fail(&error))
}

/// Prints what the parser has to say: help and version on standard output, which can fail as any other output can; what is wrong with
/// the request on standard error.
fn tell(answer: &clap::Error) -> ExitCode {
    let printed = answer.print().and_then(|()| std::io::stdout().flush());
    if answer.use_stderr() {
        return ExitCode::from(USAGE);
    }
    match output::told(printed) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// The command-line grammar. What begins like a negative number is the value of the option before it, which refuses it by its name,
/// not an option that there is none of.
fn grammar() -> clap::Command {
    fn take_negative_numbers(command: clap::Command) -> clap::Command {
        let take = |arg: clap::Arg| {
            let option = arg.get_action().takes_values() && !arg.is_positional();
            arg.allow_negative_numbers(option)
        };
        command.mut_args(take).mut_subcommands(take_negative_numbers)
    }
    take_negative_numbers(Cli::command().mut_subcommand("patch", patch::with_own_help))
}

fn start_log(level: &str) -> anyhow::Result<()> {
    let wrong =
        |why: String| Error::usage(format!("--log-level {level}: {why}; try error, warn, info, debug or trace"));
    // A word alone would be taken for the name of a module, and a misspelt level would silence everything.
    let word = level.parse::<tracing::level_filters::LevelFilter>().is_ok() || level.contains('=');
    if !word {
        return Err(wrong("no such level".into()).into());
    }
    let filter = tracing_subscriber::EnvFilter::try_new(level).map_err(|e| wrong(e.to_string()))?;
    let colours = in_colour(std::io::stderr().is_terminal(), std::env::var_os("NO_COLOR").as_deref());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // What cannot be written is lost, as any message is: told of by `eprintln!`, it would end the program.
        .log_internal_errors(false)
        .with_ansi(colours)
        .without_time()
        .init();
    Ok(())
}

/// Whether messages have colours: on a `terminal`, unless NO_COLOR is set to anything (<https://no-color.org>).
fn in_colour(terminal: bool, no_color: Option<&OsStr>) -> bool {
    terminal && no_color.is_none_or(OsStr::is_empty)
}

/// One line on standard error, and the exit code that belongs to it.
fn fail(error: &anyhow::Error) -> ExitCode {
    // An error of our own has its source in its words already.
    let own = error.downcast_ref::<Error>();
    match own {
        Some(own) => tell!("error: {own}"),
        None => tell!("error: {error:#}"),
    }
    match own {
        Some(Error::Interrupted) => ExitCode::from(interrupt::EXIT_CODE as u8),
        Some(error) if error.is_usage() => ExitCode::from(USAGE),
        _ => ExitCode::from(SOME_FAILED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_colours_on_a_terminal_unless_no_color_is_set() {
        assert!(in_colour(true, None));
        assert!(in_colour(true, Some(OsStr::new(""))));
        assert!(!in_colour(true, Some(OsStr::new("1"))));
        assert!(!in_colour(false, None));
    }
}
