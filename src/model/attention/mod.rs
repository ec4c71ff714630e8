//! Attention backends: the `--attn-backend` of the command line.

#[cfg(feature = "cuda")]
pub mod decode;
mod eager;
#[cfg(feature = "cuda")]
mod flash;
mod fused;
mod host;
mod online;
mod sdpa;
#[cfg(test)]
mod tests;

use std::ops::Range;

use candle_core::{Device, Tensor};

use crate::cache::LayerView;
use crate::{Error, Result};

pub use eager::Eager;
pub use fused::Fused;
pub use sdpa::Sdpa;

/// Names of all backends, the default first.
pub const NAMES: [&str; 3] = ["fused", "sdpa", "eager"];

/// The backend called `name`.
///
/// # Errors
/// A usage error that lists the names there are.
pub fn new(name: &str) -> Result<Box<dyn Attention>> {
    match name {
        "fused" => Ok(Box::new(Fused)),
        "sdpa" => Ok(Box::new(Sdpa)),
        "eager" => Ok(Box::new(Eager)),
        _ => Err(Error::usage(format!("unknown attention backend '{name}'; there are {}", NAMES.join(", ")))),
    }
}

/// One way to attend to what a cache holds.
pub trait Attention {
    /// `eager`, `sdpa` or `fused`.
    fn name(&self) -> &'static str;

    /// Softmax(q·kᵀ·scale)·v over everything `view` holds, causal and within the sliding window.
    ///
    /// `q` is `[B, Hq, T, D]`, its T tokens at the last T positions of the view's window; the result is `[B, Hq, T, D]` in the
    /// dtype of `q`. Query head h reads KV head h / (Hq/Hkv).
    fn attend(&self, q: &Tensor, view: &LayerView<'_>, scale: f64) -> Result<Tensor>;

    /// Names of the kernels that serve Hq `heads` and T `tokens`, or the path taken instead and why: what ran is recorded.
    fn kernel(&self, heads: usize, tokens: usize, view: &LayerView<'_>) -> String;
}

/// What to add to scores `[T, S]` so that the last T tokens see no later key and none outside the sliding window: 0 or
/// minus infinity in f32. `None` where every key is seen by every token.
fn causal_mask(
    tokens: usize,
    keys: Range<usize>,
    sliding_window: Option<usize>,
    device: &Device,
) -> Result<Option<Tensor>> {
    if tokens == 1 {
        return Ok(None);
    }
    let first_query = keys.end - tokens;
    let mask: Vec<f32> = (first_query..keys.end)
        .flat_map(|query| {
            let first = sliding_window.map_or(0, |window| (query + 1).saturating_sub(window));
            keys.clone().map(move |key| if key >= first && key <= query { 0.0 } else { f32::NEG_INFINITY })
        })
        .collect();
    Ok(Some(Tensor::from_vec(mask, (tokens, keys.len()), device)?))
}
