//! `kvprof completions`.

use std::process::ExitCode;

use super::output;

/// Arguments of `kvprof completions`.
#[derive(clap::Args)]
pub struct Args {
    /// The shell to complete for.
    shell: clap_complete::Shell,
}

/// Prints the script to standard output.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::grammar(), "kvprof", &mut script);
    output::write(&script)?;
    Ok(ExitCode::SUCCESS)
}
