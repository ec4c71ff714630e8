//! Normalization of the residual stream.

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
            NormLayer::RmsNorm(norm) => norm.forward(x)?,
        })
    }
}
