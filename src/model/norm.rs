//! Normalization of the residual stream, and of heads.

use candle_core::Tensor;
use candle_nn::{LayerNorm, Module, RmsNorm};

use crate::Result;
use crate::device::ranges::{self, Part};

/// Either normalization; both compute their statistics in f32.
#[derive(Debug, Clone)]
pub enum NormLayer {
    /// Mean and variance.
    LayerNorm(LayerNorm),
    /// Mean square.
    RmsNorm(RmsNorm),
}

impl NormLayer {
    /// Normalizes the last dimension of `x`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let _range = ranges::enter(Part::Norm);
        Ok(match self {
            NormLayer::LayerNorm(norm) => norm.forward(x)?,
            NormLayer::RmsNorm(norm) => rms_norm(norm, x)?,
        })
    }
}

/// On a GPU by the kernel of the decode step, where it serves `x`.
fn rms_norm(norm: &RmsNorm, x: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if super::step::rms_norm::serves(x, norm.weight()) {
        return super::step::rms_norm::forward(x, norm.weight(), norm.eps());
    }
    Ok(norm.forward(x)?)
}

/// RMS norm of each head's query and key with weights of their own (Qwen3).
#[derive(Debug)]
pub(super) struct QkNorm {
    /// Divides by the root mean square; its weights are ones.
    unit: RmsNorm,
    /// `[Hq + Hkv, 1, D]`.
    pub(super) weights: Tensor,
}

impl QkNorm {
    /// From the weights `[D]` of queries and of keys, each with its number of heads.
    ///
    /// # Errors
    /// When the device fails.
    pub(super) fn new((q, heads): (&Tensor, usize), (k, kv_heads): (&Tensor, usize), eps: f64) -> Result<Self> {
        let head_dim = q.elem_count();
        let repeated = [q.expand((heads, 1, head_dim))?, k.expand((kv_heads, 1, head_dim))?];
        let ones = Tensor::ones(head_dim, q.dtype(), q.device())?;
        Ok(QkNorm { unit: RmsNorm::new(ones, eps), weights: Tensor::cat(&repeated, 0)? })
    }

    /// Added to the mean square.
    #[cfg(feature = "cuda")]
    pub(super) fn eps(&self) -> f64 {
        self.unit.eps()
    }

    /// `qk` `[B, Hq + Hkv, T, D]` → the same shape.
    pub(super) fn forward(&self, qk: &Tensor) -> Result<Tensor> {
        let _range = ranges::enter(Part::Norm);
        Ok(self.unit.forward(&qk.contiguous()?)?.broadcast_mul(&self.weights)?)
    }
}
