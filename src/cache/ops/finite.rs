//! NaN and infinities are stopped at the door: a quantizer must never meet one.

use candle_core::{Layout, Result as CandleResult, Storage, Tensor};

use crate::quant::Real;
use crate::quant::real::with_real;
use crate::{Error, Result};

/// Fails when k or v `[B, Hkv, T, D]`, the first token at `position`, holds a NaN or an infinity.
///
/// Only tensors in host memory are looked at: on a device that would mean waiting for it (there, the kernels that append
/// raise a flag instead).
///
/// # Errors
/// [`Error::NotFinite`] naming layer and position.
pub fn check_finite(layer: usize, position: usize, k: &Tensor, v: &Tensor) -> Result<()> {
    for (what, tensor) in [("key", k), ("value", v)] {
        if let Some(token) = first_bad_token(tensor)? {
            return Err(not_finite(layer, position + token, what));
        }
    }
    Ok(())
}

/// The error that tells where a number is not finite.
pub fn not_finite(layer: usize, position: usize, what: &str) -> Error {
    Error::NotFinite(format!(
        "layer {layer}, position {position}: a {what} is NaN or infinite (weights or activations out of range; try --dtype f32)"
    ))
}

/// The first token along T with a number that is not finite.
fn first_bad_token(tensor: &Tensor) -> CandleResult<Option<usize>> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(data) => with_real!(tensor.dtype(), P => scan(P::slice(data)?, layout)),
        Storage::Cuda(_) | Storage::Metal(_) => Ok(None),
    }
}

fn scan<P: Real>(data: &[P], layout: &Layout) -> CandleResult<Option<usize>> {
    let (batch, heads, tokens, head_dim) = layout.shape().dims4()?;
    let strides = layout.stride();
    for token in 0..tokens {
        for row in 0..batch * heads {
            let at = layout.start_offset() + row / heads * strides[0] + row % heads * strides[1] + token * strides[2];
            if (0..head_dim).any(|d| !data[at + d * strides[3]].widen().is_finite()) {
                return Ok(Some(token));
            }
        }
    }
    Ok(None)
}
