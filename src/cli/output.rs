//! Standard output. `println!` panics where it cannot write (a full disk behind it, say); this is an error like any other.

use std::io::Write;

use anyhow::Context;

use crate::device::signals::end_by_closed_pipe;

/// Writes to standard output.
///
/// # Errors
/// When it cannot be written to.
pub(super) fn write(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    told(out.write_all(bytes).and_then(|()| out.flush()))
}

/// What came of writing to standard output. A failure is none of the request, as one of a file that was named may be. Where nobody reads
/// any more, the process ends.
///
/// # Errors
/// Where it failed.
pub(super) fn told(written: std::io::Result<()>) -> anyhow::Result<()> {
    if written.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe) {
        end_by_closed_pipe();
    }
    written.context("standard output")
}

/// Writes a line, and returns the error if it cannot be written.
macro_rules! say {
    () => {
        $crate::cli::output::write(b"\n")?
    };
    ($($argument:tt)*) => {
        $crate::cli::output::write(format!("{}\n", format_args!($($argument)*)).as_bytes())?
    };
}
pub(super) use say;
