//! The operations on a layer's buffers, each one file with its host and its CUDA form side by side.
//!
//! None of them waits for the device, and none allocates except [`dense`], whose result is new.

mod append;
#[cfg(feature = "cuda")]
mod cuda;
mod dense;
mod finite;
mod quantize;

pub use append::{Append, append_window, copy_positions};
pub use dense::dense;
pub use finite::{check_finite, not_finite};
pub use quantize::quantize_blocks;

use candle_core::{Result, Shape, Tensor, bail};

/// Axes of a window `[2, B, Hkv, W, D]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowDims {
    /// B.
    pub batch: usize,
    /// Hkv.
    pub kv_heads: usize,
    /// W.
    pub slots: usize,
    /// D.
    pub head_dim: usize,
}

impl WindowDims {
    /// Reads them off a shape.
    ///
    /// # Errors
    /// When the shape is not `[2, B, Hkv, W, D]`.
    pub fn of(shape: &Shape) -> Result<Self> {
        match *shape.dims() {
            [2, batch, kv_heads, slots, head_dim] => Ok(WindowDims { batch, kv_heads, slots, head_dim }),
            _ => bail!("a window has the shape [2, B, Hkv, W, D], not {shape:?}"),
        }
    }

    /// Where (K = 0 or V = 1, batch entry × KV head, slot) starts in the buffer, in elements.
    #[inline]
    pub fn offset(&self, side: usize, head: usize, slot: usize) -> usize {
        ((side * self.batch * self.kv_heads + head) * self.slots + slot) * self.head_dim
    }
}

/// Fails unless the buffer is contiguous from its start: the cache's own buffers always are.
fn check_whole(tensor: &Tensor, what: &str) -> Result<()> {
    if !tensor.is_contiguous() || tensor.layout().start_offset() != 0 {
        bail!("the {what} must be a whole, contiguous buffer");
    }
    Ok(())
}
