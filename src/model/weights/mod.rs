//! Where weights come from.

pub mod dummy;
pub mod gguf;
pub mod safetensors;

use candle_core::{DType, Device, Tensor};

use crate::{Error, Result};

/// The tensors of one checkpoint, by name.
pub trait Weights {
    /// Whether tensor `name` is stored.
    fn contains(&self, name: &str) -> bool;

    /// Tensor `name` on `device`, in the dtype it is stored in. A source that makes weights instead of reading them
    /// makes them of `shape` and `dtype`; others may ignore both.
    ///
    /// # Errors
    /// [`Error::File`] naming file and tensor when it is missing or cannot be read.
    fn load(&self, name: &str, shape: &[usize], dtype: DType, device: &Device) -> Result<Tensor>;

    /// An error that says what is wrong with tensor `name`, and where it is.
    fn fault(&self, name: &str, message: &str) -> Error;
}
