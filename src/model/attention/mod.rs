//! Attention backends: the `--attn-backend` of the command line.

use candle_core::Tensor;

use crate::Result;
use crate::cache::LayerView;

/// One way to attend to what a cache holds.
pub trait Attention {
    /// `eager`, `sdpa` or `fused`.
    fn name(&self) -> &'static str;

    /// Softmax(q·kᵀ·scale)·v over everything `view` holds, causal and within the sliding window.
    ///
    /// `q` is `[B, Hq, T, D]`, its T tokens at the last T positions of the view's window; the result is `[B, Hq, T, D]` in the
    /// dtype of `q`. Query head h reads KV head h / (Hq/Hkv).
    fn attend(&self, q: &Tensor, view: &LayerView<'_>, scale: f64) -> Result<Tensor>;

    /// Name of the kernel that serves this shape, or the path taken instead and why: what ran is recorded.
    fn kernel(&self, tokens: usize, view: &LayerView<'_>) -> String;
}
