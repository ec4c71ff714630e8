//! Working memory of decode attention launches.

use std::sync::{Mutex, PoisonError};

use candle_core::{DType, Device, Result, Tensor};

use super::choice::{DecodeKernel, DecodeShape};

/// Working memory of a launch. One serves all layers of a step, since their launches follow each other.
#[derive(Debug, Clone)]
pub struct Scratch {
    pub(super) out: Tensor,
    pub(super) sums: Tensor,
    pub(super) arrivals: Tensor,
}

impl Scratch {
    /// Scratch for launches of `kernel`.
    ///
    /// # Errors
    /// Out of memory.
    pub fn new(kernel: &DecodeKernel, shape: &DecodeShape, device: &Device) -> Result<Self> {
        let parts = if kernel.splits() > 1 { kernel.splits() * shape.batch * shape.kv_heads * shape.rows() } else { 0 };
        Self::with_sizes(parts * shape.head_dim, parts, kernel.grid[1] * kernel.grid[2], device)
    }

    fn with_sizes(out: usize, parts: usize, arrivals: usize, device: &Device) -> Result<Self> {
        Ok(Scratch {
            out: Tensor::zeros(out.max(4), DType::F32, device)?,
            sums: Tensor::zeros((2 * parts).max(4), DType::F32, device)?,
            arrivals: Tensor::zeros(arrivals.max(1), DType::U32, device)?,
        })
    }

    fn holds(&self, other: [usize; 3]) -> bool {
        [&self.out, &self.sums, &self.arrivals].iter().zip(other).all(|(mine, count)| mine.elem_count() >= count)
    }

    /// Scratch that is kept from launch to launch, so that a step does not clear counters before each.
    pub(super) fn shared(kernel: &DecodeKernel, shape: &DecodeShape, device: &Device) -> Result<Self> {
        static KEPT: Mutex<Vec<Scratch>> = Mutex::new(Vec::new());
        let parts = if kernel.splits() > 1 { kernel.splits() * shape.batch * shape.kv_heads * shape.rows() } else { 0 };
        let sizes = [parts * shape.head_dim, 2 * parts, kernel.grid[1] * kernel.grid[2]];
        let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(scratch) = kept.iter().find(|s| s.out.device().same_device(device) && s.holds(sizes)) {
            return Ok(scratch.clone());
        }
        let scratch = Self::with_sizes(sizes[0], parts, sizes[2], device)?;
        // Larger now, or another device's. What still runs with the old one ends first: memory is freed in the stream's order.
        kept.clear();
        kept.push(scratch.clone());
        Ok(scratch)
    }
}
