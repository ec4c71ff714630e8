//! The small model inside the program.

use candle_core::Device;

use super::subject::{LoadOptions, Subject};
use crate::{Error, Result};

/// Loads it.
///
/// # Errors
/// [`Error::Usage`] while this build carries none.
pub(super) fn load(_options: &LoadOptions, _device: Device) -> Result<Subject> {
    Err(Error::usage("this build carries no built-in model; give a hub id, a folder or a .gguf file"))
}
