//! Standard error. `eprintln!` panics where it cannot write (a log on a full disk, a terminal that is gone); a message that is lost must
//! not end the work that it is about.

use std::io::Write;

/// Writes to standard error, or nothing where it cannot be written to.
pub fn write(text: &str) {
    // There is no other place to say that it failed.
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// Writes a line to standard error, as [`write`] does.
macro_rules! tell {
    ($($argument:tt)*) => {
        $crate::base::message::write(&format!("{}\n", format_args!($($argument)*)))
    };
}
pub(crate) use tell;
