//! New keys and values into the ring of recent tokens.

use std::ops::Range;

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, InplaceOp3, Layout, Result, Tensor, bail};

use super::{WindowDims, check_whole};
#[cfg(feature = "cuda")]
use crate::device::kernels::tensor_address;
use crate::device::ranges::{self, Part};
use crate::quant::Real;
use crate::quant::real::with_real;

/// Where and what is appended.
#[derive(Debug, Clone)]
pub struct Append<'a> {
    /// The layer, for the flag.
    pub layer: usize,
    /// Position of the first token.
    pub position: usize,
    /// One i64 on the device of the window, 0 until a number that is not finite is appended there; then position·2³² + layer + 1
    /// of the earliest. The host form leaves it alone: [`check_finite`](super::check_finite) comes before it.
    pub not_finite: &'a Tensor,
}

/// Writes k and v `[B, Hkv, T, D]` (any strides, D innermost) into slots (position + t) mod W of `window`
/// `[2, B, Hkv, W, D]`.
///
/// # Errors
/// When shapes or dtypes disagree, or T exceeds W.
pub fn append_window(window: &Tensor, k: &Tensor, v: &Tensor, append: &Append<'_>) -> Result<()> {
    let _range = ranges::enter(Part::Cache);
    check_whole(window, "window")?;
    let dims = WindowDims::of(window.shape())?;
    let (batch, kv_heads, tokens, head_dim) = k.dims4()?;
    if (batch, kv_heads, head_dim) != (dims.batch, dims.kv_heads, dims.head_dim) || k.dims() != v.dims() {
        bail!("keys {:?} and values {:?} do not fit a window {:?}", k.shape(), v.shape(), window.shape());
    }
    if tokens > dims.slots {
        bail!("{tokens} new tokens do not fit a window of {} slots", dims.slots);
    }
    let innermost = |x: &Tensor| if x.stride()[3] == 1 || head_dim == 1 { Ok(x.clone()) } else { x.contiguous() };
    window.inplace_op3(&innermost(k)?, &innermost(v)?, append)
}

/// Copies `positions` from ring to ring `[2, B, Hkv, W, D]`, each with its own W, through the same operation as new tokens.
///
/// # Errors
/// When shapes or dtypes disagree, or a ring is too small to hold all of `positions`.
pub fn copy_positions(to: &Tensor, from: &Tensor, positions: Range<usize>, append: &Append<'_>) -> Result<()> {
    let _range = ranges::enter(Part::Cache);
    let slots = WindowDims::of(from.shape())?.slots;
    if positions.len() > slots {
        bail!("{} positions asked of a ring of {slots} slots", positions.len());
    }
    let [k, v] = [from.get(0)?, from.get(1)?];
    let mut start = positions.start;
    while start < positions.end {
        let slot = start % slots;
        let count = (slots - slot).min(positions.end - start);
        let append = Append { position: start, ..append.clone() };
        append_window(to, &k.narrow(2, slot, count)?, &v.narrow(2, slot, count)?, &append)?;
        start += count;
    }
    Ok(())
}

impl Append<'_> {
    fn host<P: Real>(&self, window: &mut [P], dims: WindowDims, side: usize, new: &[P], layout: &Layout) -> Result<()> {
        let (_, _, tokens, head_dim) = layout.shape().dims4()?;
        let strides = layout.stride();
        for batch in 0..dims.batch {
            for head in 0..dims.kv_heads {
                for token in 0..tokens {
                    let from = layout.start_offset() + batch * strides[0] + head * strides[1] + token * strides[2];
                    let slot = (self.position + token) % dims.slots;
                    let to = dims.offset(side, batch * dims.kv_heads + head, slot);
                    window[to..to + head_dim].copy_from_slice(&new[from..from + head_dim]);
                }
            }
        }
        Ok(())
    }
}

impl InplaceOp3 for Append<'_> {
    fn name(&self) -> &'static str {
        "append-window"
    }

    fn cpu_fwd(
        &self,
        window: &mut CpuStorage,
        window_layout: &Layout,
        k: &CpuStorage,
        k_layout: &Layout,
        v: &CpuStorage,
        v_layout: &Layout,
    ) -> Result<()> {
        let dims = WindowDims::of(window_layout.shape())?;
        with_real!(candle_core::backend::BackendStorage::dtype(window), P => {
            let window = P::slice_mut(window)?;
            self.host(window, dims, 0, P::slice(k)?, k_layout)?;
            self.host(window, dims, 1, P::slice(v)?, v_layout)
        })
    }
    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        window: &mut CudaStorage,
        window_layout: &Layout,
        k: &CudaStorage,
        k_layout: &Layout,
        v: &CudaStorage,
        v_layout: &Layout,
    ) -> Result<()> {
        let flag = tensor_address(self.not_finite)?;
        let new = [(k, k_layout), (v, v_layout)];
        super::cuda::append((window, window_layout), new, flag, self.layer, self.position)
    }
}
