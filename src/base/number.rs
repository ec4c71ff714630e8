//! Numbers as people write them, on the command line and in configuration files.

use std::num::{IntErrorKind, ParseIntError};
use std::str::FromStr;

/// Reads a number of tokens, runs or the like.
///
/// # Errors
/// What is expected, to be put behind the flag or key and its value.
pub fn whole<T: FromStr<Err = ParseIntError>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: ParseIntError| match error.kind() {
        IntErrorKind::PosOverflow => "the number is too large".into(),
        _ => "give a whole number, such as 4096".into(),
    })
}

/// Reads a number that need not be whole.
///
/// # Errors
/// As [`whole`].
pub fn real(text: &str) -> Result<f64, String> {
    text.parse().map_err(|_| "give a number, such as 0.5".into())
}
