//! Standard output. `println!` panics where it cannot write (a full disk behind it, say); this is an error like any other.

use std::io::Write;
use std::path::Path;

use crate::Error;

/// Writes to standard output.
///
/// # Errors
/// When it cannot be written to.
pub(super) fn write(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(bytes).and_then(|()| out.flush());
    Ok(written.map_err(|e| Error::io(Path::new("standard output"), e))?)
}

/// Writes a line, and returns the error if it cannot be written.
macro_rules! say {
    ($($argument:tt)*) => {
        $crate::cli::output::write(format!("{}\n", format_args!($($argument)*)).as_bytes())?
    };
}
pub(super) use say;
