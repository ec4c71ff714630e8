//! `kvprof completions`.

use std::process::ExitCode;

/// Arguments of `kvprof completions`.
#[derive(clap::Args)]
pub struct Args {
    /// The shell to complete for.
    shell: clap_complete::Shell,
}

/// Prints the script to standard output.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    clap_complete::generate(args.shell, &mut super::grammar(), "kvprof", &mut std::io::stdout());
    Ok(ExitCode::SUCCESS)
}
