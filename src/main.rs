//! The `kvprof` command line: everything is in [`kvprof::cli`].

fn main() -> std::process::ExitCode {
    kvprof::cli::main()
}
