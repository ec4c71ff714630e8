//! Attention backends: the `--attn-backend` of the command line.

mod causal_softmax;
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

use candle_core::Tensor;

use crate::cache::{KvCache, LayerView};
use crate::{Error, Result};

pub use eager::{Eager, MOST_SCORES};
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
        "eager" => Ok(Box::new(Eager::default())),
        _ => Err(Error::usage(format!("unknown attention backend '{name}'; there are {}", NAMES.join(", ")))),
    }
}

/// What attends to T `tokens` of Hq `heads` over `cache`, in order of the layers: those that keep full precision have another kernel.
pub fn kernels_of(attention: &dyn Attention, heads: usize, tokens: usize, cache: &dyn KvCache) -> String {
    let mut kernels: Vec<String> = Vec::new();
    for layer in 0..cache.shape().layers() {
        let kernel = attention.kernel(heads, tokens, &cache.view(layer));
        if !kernels.contains(&kernel) {
            kernels.push(kernel);
        }
    }
    kernels.join(", ")
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

    /// Why this backend takes another's path there, where it does.
    fn fallback(&self, heads: usize, tokens: usize, view: &LayerView<'_>) -> Option<String> {
        let _ = (heads, tokens, view);
        None
    }
}
