//! From a checkpoint's tensors to the decoder's parts: names resolved, shapes checked, matrices joined.

use candle_core::{DType, Device, Tensor};
use candle_nn::{LayerNorm, Linear, RmsNorm};

use super::arena::Arena;
use super::config::{DecoderConfig, Norm};
use super::families::{MlpNames, Names, QkvNames};
use super::norm::NormLayer;
use super::weights::Weights;
use crate::Result;

/// The most tensors that a layer keeps: four matrices with biases, four norms with biases.
const TENSORS_OF_A_LAYER: usize = 16;

/// Reads parts of one checkpoint.
pub struct Loader<'a> {
    config: &'a DecoderConfig,
    names: &'a Names,
    weights: &'a dyn Weights,
    dtype: DType,
    device: &'a Device,
    prefix: &'static str,
    parameters: u64,
    /// Where the weights of layers go; `None` on a CPU, where each has memory of its own.
    arena: Option<Arena>,
}

impl<'a> Loader<'a> {
    /// # Errors
    /// When the checkpoint has no token embedding under its family's name.
    pub fn new(
        config: &'a DecoderConfig,
        names: &'a Names,
        weights: &'a dyn Weights,
        dtype: DType,
        device: &'a Device,
    ) -> Result<Self> {
        let prefixed = format!("{}{}.weight", names.optional_prefix, names.embedding);
        let prefix = if weights.contains(&prefixed) { names.optional_prefix } else { "" };
        Ok(Loader { config, names, weights, dtype, device, prefix, parameters: 0, arena: None })
    }

    /// Makes room for the weights of all layers, as far as they have not been read yet.
    ///
    /// # Errors
    /// When the device has no room.
    pub fn reserve_layers(&mut self) -> Result<()> {
        if self.device.is_cuda() {
            let head = if self.config.tied_embeddings { 0 } else { self.config.vocab * self.config.hidden };
            let layers = self.config.parameters().saturating_sub(self.parameters + head as u64);
            let tensors = TENSORS_OF_A_LAYER * (self.config.layers + 1);
            self.arena = Some(Arena::new(layers as usize, tensors, self.dtype, self.device)?);
        }
        Ok(())
    }

    /// The configuration being built.
    pub fn config(&self) -> &'a DecoderConfig {
        self.config
    }

    /// The checkpoint's names.
    pub fn names(&self) -> &'a Names {
        self.names
    }

    /// Weights read so far.
    pub fn parameters(&self) -> u64 {
        self.parameters
    }

    /// Epsilon of the configuration's norm.
    pub fn norm_eps(&self) -> f64 {
        match self.config.norm {
            Norm::LayerNorm { eps } | Norm::RmsNorm { eps } => eps,
        }
    }

    /// `[V, hidden]`.
    pub fn embedding(&mut self) -> Result<Tensor> {
        let name = format!("{}{}.weight", self.prefix, self.names.embedding);
        self.read(&name, &[self.config.vocab, self.config.hidden])
    }

    /// Learned positions `[positions, hidden]`, if the family has them.
    pub fn positions(&mut self) -> Result<Option<Tensor>> {
        let Some(name) = self.names.positions else { return Ok(None) };
        let name = format!("{}{name}.weight", self.prefix);
        self.read(&name, &[self.config.max_positions, self.config.hidden]).map(Some)
    }

    /// Norm after the last layer.
    pub fn final_norm(&mut self) -> Result<NormLayer> {
        let name = format!("{}{}", self.prefix, self.names.final_norm);
        self.norm(&name)
    }

    /// Output layer: `embedding` if tied.
    pub fn head(&mut self, embedding: &Tensor) -> Result<Linear> {
        if self.config.tied_embeddings {
            return Ok(Linear::new(embedding.clone(), None));
        }
        let name = format!("{}.weight", self.names.head);
        Ok(Linear::new(self.read(&name, &[self.config.vocab, self.config.hidden])?, None))
    }

    /// Refuses a checkpoint with a layer that the configuration leaves out: what the rest of it computes was never trained.
    ///
    /// # Errors
    /// Names the first tensor of that layer.
    pub fn refuse_more_layers(&self) -> Result<()> {
        let layers = self.config.layers;
        let name = format!("{}.weight", self.layer_name(layers, self.names.attention_norm));
        if self.weights.contains(&name) {
            let message = format!("belongs to layer {layers}, and the configuration has {layers} layers from 0 on");
            return Err(self.weights.fault(&name, &message));
        }
        Ok(())
    }

    /// A norm of layer `index`.
    pub fn layer_norm(&mut self, index: usize, part: &str) -> Result<NormLayer> {
        let name = self.layer_name(index, part);
        self.norm(&name)
    }

    /// A norm weight of layer `index` with `length` elements.
    pub fn layer_vector(&mut self, index: usize, part: &str, length: usize) -> Result<Tensor> {
        let name = format!("{}.weight", self.layer_name(index, part));
        let vector = self.read(&name, &[length])?;
        self.kept(vec![vector])
    }

    /// Queries, keys and values as one map, hidden → (Hq + 2 Hkv)·D.
    pub fn qkv(&mut self, index: usize) -> Result<Linear> {
        let DecoderConfig { hidden, heads, kv_heads, head_dim, biases, .. } = *self.config;
        let (q_rows, kv_rows) = (heads * head_dim, kv_heads * head_dim);
        let parts: &[(&str, usize)] = match self.names.qkv {
            QkvNames::Fused(qkv) => &[(qkv, q_rows + 2 * kv_rows)],
            QkvNames::Separate(q, k, v) => &[(q, q_rows), (k, kv_rows), (v, kv_rows)],
        };
        self.joined(index, parts, hidden, biases.qkv)
    }

    /// Attention output, Hq·D → hidden.
    pub fn attention_output(&mut self, index: usize) -> Result<Linear> {
        let DecoderConfig { hidden, heads, head_dim, biases, .. } = *self.config;
        self.joined(index, &[(self.names.output, hidden)], heads * head_dim, biases.output)
    }

    /// The MLP's map in (gate and up as one) and its map out.
    pub fn mlp(&mut self, index: usize) -> Result<(Linear, Linear)> {
        let DecoderConfig { hidden, intermediate, biases, .. } = *self.config;
        let (into, down): (&[(&str, usize)], &str) = match self.names.mlp {
            MlpNames::Plain { up, down } => (&[(up, intermediate)], down),
            MlpNames::Gated { gate, up, down } => (&[(gate, intermediate), (up, intermediate)], down),
        };
        let into = self.joined(index, into, hidden, biases.mlp)?;
        Ok((into, self.joined(index, &[(down, hidden)], intermediate, biases.mlp)?))
    }

    fn layer_name(&self, index: usize, part: &str) -> String {
        format!("{}{}.{index}.{part}", self.prefix, self.names.layer)
    }

    fn norm(&mut self, name: &str) -> Result<NormLayer> {
        let hidden = [self.config.hidden];
        let weight = self.read(&format!("{name}.weight"), &hidden)?;
        let weight = self.kept(vec![weight])?;
        Ok(match self.config.norm {
            Norm::RmsNorm { eps } => NormLayer::RmsNorm(RmsNorm::new(weight, eps)),
            Norm::LayerNorm { eps } => {
                let bias = self.read(&format!("{name}.bias"), &hidden)?;
                let bias = self.kept(vec![bias])?;
                NormLayer::LayerNorm(LayerNorm::new(weight, bias, eps))
            }
        })
    }

    /// Maps of the same `inputs`, one below the other: `parts` are names and rows.
    fn joined(&mut self, index: usize, parts: &[(&str, usize)], inputs: usize, bias: bool) -> Result<Linear> {
        let mut matrices = Vec::with_capacity(parts.len());
        let mut vectors = Vec::new();
        for &(part, rows) in parts {
            let name = self.layer_name(index, part);
            let weight_name = format!("{name}.weight");
            matrices.push(if self.names.transposed {
                self.read(&weight_name, &[inputs, rows])?.t()?.contiguous()?
            } else {
                self.read(&weight_name, &[rows, inputs])?
            });
            if bias {
                vectors.push(self.read(&format!("{name}.bias"), &[rows])?);
            }
        }
        let bias = if bias { Some(self.kept(vectors)?) } else { None };
        Ok(Linear::new(self.kept(matrices)?, bias))
    }

    /// Parts of one weight, one below the other, where the weight stays.
    fn kept(&mut self, parts: Vec<Tensor>) -> Result<Tensor> {
        match (&mut self.arena, parts.as_slice()) {
            (Some(arena), parts) => arena.join(parts),
            (None, [one]) => Ok(one.clone()),
            (None, several) => Ok(Tensor::cat(several, 0)?),
        }
    }

    fn read(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let stored = self.weights.load(name, shape, self.dtype, self.device)?;
        if stored.dims() != shape {
            return Err(self
                .weights
                .fault(name, &format!("has shape {:?} where the configuration asks for {shape:?}", stored.dims())));
        }
        let tensor = stored.to_dtype(self.dtype)?;
        if !all_finite(&tensor)? {
            let message = if all_finite(&stored)? {
                format!("has values too large for {}; use bf16 or f32", self.dtype.as_str())
            } else {
                "holds a value that is NaN or infinite; the checkpoint is damaged".to_owned()
            };
            return Err(self.weights.fault(name, &message));
        }
        self.parameters += tensor.elem_count() as u64;
        Ok(tensor)
    }
}

/// Whether every element of `x` is a finite number.
fn all_finite(x: &Tensor) -> Result<bool> {
    // 0·x is 0 for finite x and NaN otherwise, and a sum passes NaN on.
    let zero = (x * 0.0)?.sum_all()?.to_dtype(DType::F32)?.to_scalar::<f32>()?;
    Ok(zero == 0.0)
}
