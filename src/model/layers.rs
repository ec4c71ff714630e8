//! A decoder layer and its parts. Matrices that read the same input are one matrix, multiplied once.

use candle_core::Tensor;
use candle_nn::Linear;

use super::attention::Attention;
use super::config::{DecoderConfig, Mlp};
use super::loader::Loader;
use super::norm::{NormLayer, QkNorm};
use super::rope::RopeTable;
use super::{elementwise, hadamard};
use crate::Result;
use crate::cache::KvCache;
use crate::device::ranges::{self, Part};

/// Attention, then MLP, each on a normalized input and added to the residual stream.
#[derive(Debug)]
pub struct Layer {
    pub(super) attention_norm: NormLayer,
    /// hidden → (Hq + 2 Hkv)·D: queries, keys, values.
    pub(super) qkv: Linear,
    pub(super) qk_norm: Option<QkNorm>,
    pub(super) output: Linear,
    pub(super) mlp_norm: NormLayer,
    /// hidden → intermediate, or twice that: gate, then up.
    pub(super) up: Linear,
    pub(super) down: Linear,
    shape: AttentionShape,
    mlp: Mlp,
}

/// What attention needs to know of the configuration.
#[derive(Debug, Clone, Copy)]
struct AttentionShape {
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    scale: f64,
}

impl AttentionShape {
    fn of(config: &DecoderConfig) -> Self {
        AttentionShape {
            heads: config.heads,
            kv_heads: config.kv_heads,
            head_dim: config.head_dim,
            scale: config.attention_scale(),
        }
    }
}

impl Layer {
    /// Reads layer `index`.
    pub fn load(loader: &mut Loader, index: usize) -> Result<Self> {
        let (config, names) = (loader.config(), loader.names());
        let qk_norm = match names.qk_norms {
            Some((q, k)) if config.qk_norm => {
                let q = loader.layer_vector(index, q, config.head_dim)?;
                let k = loader.layer_vector(index, k, config.head_dim)?;
                Some(QkNorm::new((&q, config.heads), (&k, config.kv_heads), loader.norm_eps())?)
            }
            _ => None,
        };
        let (up, down) = loader.mlp(index)?;
        Ok(Layer {
            attention_norm: loader.layer_norm(index, names.attention_norm)?,
            qkv: loader.qkv(index)?,
            qk_norm,
            output: loader.attention_output(index)?,
            mlp_norm: loader.layer_norm(index, names.mlp_norm)?,
            up,
            down,
            shape: AttentionShape::of(config),
            mlp: config.mlp,
        })
    }

    /// `x` `[B, T, hidden]` → the same shape.
    pub fn forward(
        &self,
        x: &Tensor,
        index: usize,
        rope: Option<&RopeTable>,
        cache: &mut dyn KvCache,
        attention: &dyn Attention,
    ) -> Result<Tensor> {
        let attended = self.attend(&self.attention_norm.forward(x)?, index, rope, cache, attention)?;
        let x = add(x, &attended)?;
        let mlp = self.feed_forward(&self.mlp_norm.forward(&x)?)?;
        add(&x, &mlp)
    }

    fn attend(
        &self,
        x: &Tensor,
        index: usize,
        rope: Option<&RopeTable>,
        cache: &mut dyn KvCache,
        attention: &dyn Attention,
    ) -> Result<Tensor> {
        let _range = ranges::enter(Part::Attention);
        let (batch, tokens, _) = x.dims3()?;
        let AttentionShape { heads, kv_heads, head_dim, scale } = self.shape;
        let rotated = heads + kv_heads;
        // [B, T, (Hq+2Hkv)·D] → [B, Hq+2Hkv, T, D]
        let qkv = elementwise::linear(&self.qkv, x)?
            .reshape((batch, tokens, rotated + kv_heads, head_dim))?
            .transpose(1, 2)?;
        let mut qk = qkv.narrow(1, 0, rotated)?;
        if let Some(rope) = rope {
            let _range = ranges::enter(Part::Elementwise);
            qk = rope.rotate(&qk, cache.len(), self.qk_norm.as_ref())?;
        }
        let kept = cache.hadamard(index);
        if kept.keys {
            qk = hadamard::rows(&qk)?;
        }
        let q = qk.narrow(1, 0, heads)?.contiguous()?;
        // The cache copies them, so strides cost nothing.
        let k = qk.narrow(1, heads, kv_heads)?;
        let mut v = qkv.narrow(1, rotated, kv_heads)?;
        if kept.values {
            v = hadamard::rows(&v)?;
        }
        cache.append(index, &k, &v)?;
        let attended = attention.attend(&q, &cache.view(index), scale)?;
        cache.settle(index)?;
        let mut attended = attended.transpose(1, 2)?;
        if kept.values {
            attended = hadamard::rows(&attended)?;
        }
        let joined = attended.reshape((batch, tokens, heads * head_dim))?;
        elementwise::linear(&self.output, &joined)
    }

    fn feed_forward(&self, x: &Tensor) -> Result<Tensor> {
        let _range = ranges::enter(Part::Ffn);
        let up = elementwise::linear(&self.up, x)?;
        let active = self.activate(&up)?;
        elementwise::linear(&self.down, &active)
    }

    fn activate(&self, up: &Tensor) -> Result<Tensor> {
        let _range = ranges::enter(Part::Elementwise);
        Ok(match self.mlp {
            Mlp::GeluTanh => up.gelu()?,
            Mlp::GeluErf => up.gelu_erf()?,
            Mlp::SwiGlu => elementwise::swiglu(up)?,
        })
    }
}

/// Both on the residual stream.
fn add(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    let _range = ranges::enter(Part::Elementwise);
    elementwise::add(x, y)
}
