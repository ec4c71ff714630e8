//! The decoder's weights as the step kernels want them: the same tensors, shared, not copied.

use candle_core::{DType, Tensor};

use super::gemv::MAX_BATCH;
use super::params::MAX_HIDDEN;
use crate::cache::GPU_HEAD_DIMS;
use crate::model::config::{Mlp, Norm};
use crate::model::decoder::Decoder;
use crate::model::layers::Layer;
use crate::model::norm::NormLayer;
use crate::model::rope::RopeTable;

/// One layer's weights.
pub(super) struct LayerWeights {
    /// `[hidden]`.
    pub attention_norm: Tensor,
    /// `[(Hq + 2 Hkv)·D, hidden]`.
    pub qkv: Tensor,
    /// `[(Hq + 2 Hkv)·D]`.
    pub qkv_bias: Option<Tensor>,
    /// `[Hq + Hkv, D]`: of normalized queries and keys.
    pub head_gain: Option<Tensor>,
    /// `[hidden, Hq·D]`.
    pub output: Tensor,
    /// `[hidden]`.
    pub mlp_norm: Tensor,
    /// `[2·intermediate, hidden]`: gate, then up.
    pub gate_up: Tensor,
    /// `[hidden, intermediate]`.
    pub down: Tensor,
}

/// All of them, and the sizes they follow.
pub(super) struct StepWeights {
    /// `[V, hidden]`.
    pub embedding: Tensor,
    /// `[V, hidden]`.
    pub head: Tensor,
    /// `[hidden]`.
    pub final_norm: Tensor,
    /// `[positions, D/2]` f32.
    pub cosine: Tensor,
    /// `[positions, D/2]` f32.
    pub sine: Tensor,
    pub layers: Vec<LayerWeights>,
    pub hidden: usize,
    pub intermediate: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub vocab: usize,
    pub epsilon: f32,
}

/// Why a decoder is not one the step kernels serve, for `batch` sequences; `None` if it is.
pub(super) fn unserved(decoder: &Decoder, batch: usize) -> Option<String> {
    let config = decoder.config();
    let no = |what: String| Some(format!("the step kernels do not serve {what}"));
    if !decoder.device().is_cuda() {
        return no("the CPU".into());
    }
    if !matches!(decoder.dtype(), DType::F16 | DType::BF16) {
        return no(format!("{:?} weights", decoder.dtype()));
    }
    if batch > MAX_BATCH {
        return no(format!("more than {MAX_BATCH} sequences side by side"));
    }
    if !matches!(config.norm, Norm::RmsNorm { .. }) {
        return no("LayerNorm".into());
    }
    if config.mlp != Mlp::SwiGlu || config.biases.mlp || config.biases.output {
        return no("an MLP or attention output other than plain SwiGLU without biases".into());
    }
    if config.rope().is_none() {
        return no("learned positions".into());
    }
    if !GPU_HEAD_DIMS.contains(&config.head_dim) {
        return no(format!("heads of {} channels", config.head_dim));
    }
    if !config.hidden.is_multiple_of(8) || !config.intermediate.is_multiple_of(8) || config.hidden > MAX_HIDDEN {
        return no(format!("widths {} and {}", config.hidden, config.intermediate));
    }
    None
}

impl StepWeights {
    /// Shares the weights of a decoder that [`unserved`] found nothing against, and its rotary table; says what is missing otherwise.
    pub fn of(decoder: &Decoder, rope: &RopeTable) -> Result<Self, String> {
        let config = decoder.config();
        let Norm::RmsNorm { eps } = config.norm else { return Err("LayerNorm has no step kernel".into()) };
        Ok(StepWeights {
            embedding: decoder.embedding.clone(),
            head: decoder.head.weight().clone(),
            final_norm: gain(&decoder.final_norm)?,
            cosine: rope.cos().clone(),
            sine: rope.sin().clone(),
            layers: decoder.layers.iter().map(LayerWeights::of).collect::<Result<_, _>>()?,
            hidden: config.hidden,
            intermediate: config.intermediate,
            heads: config.heads,
            kv_heads: config.kv_heads,
            head_dim: config.head_dim,
            vocab: config.vocab,
            epsilon: eps as f32,
        })
    }
}

impl LayerWeights {
    fn of(layer: &Layer) -> Result<Self, String> {
        Ok(LayerWeights {
            attention_norm: gain(&layer.attention_norm)?,
            qkv: layer.qkv.weight().clone(),
            qkv_bias: layer.qkv.bias().cloned(),
            head_gain: layer.qk_norm.as_ref().map(|norm| norm.weights.clone()),
            output: layer.output.weight().clone(),
            mlp_norm: gain(&layer.mlp_norm)?,
            gate_up: layer.up.weight().clone(),
            down: layer.down.weight().clone(),
        })
    }
}

/// Weights of an RMS norm.
fn gain(norm: &NormLayer) -> Result<Tensor, String> {
    match norm {
        NormLayer::RmsNorm(norm) => Ok(norm.clone().into_inner().weight().clone()),
        NormLayer::LayerNorm(_) => Err("LayerNorm has no step kernel".into()),
    }
}
