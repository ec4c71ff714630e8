//! What a decoder looks like, independent of the family that named it.

use candle_core::DType;
use serde::Serialize;

use crate::cache::{CacheShape, GPU_HEAD_DIMS, shared_window};
use crate::{Error, Result};

/// Normalization before attention, before the MLP and after the last layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Norm {
    /// Mean and variance removed, then scaled and shifted.
    LayerNorm {
        /// Added to the variance.
        eps: f64,
    },
    /// Divided by the root mean square, then scaled.
    RmsNorm {
        /// Added to the mean square.
        eps: f64,
    },
}

/// How a token's place reaches the model.
#[derive(Debug, Clone, PartialEq)]
pub enum Position {
    /// A learned vector per position is added to the token's embedding.
    Learned,
    /// Queries and keys are rotated (RoPE, halves convention).
    Rope(Rope),
}

/// Rotary embedding: channel pair i turns by `position · base^(−2i/D)`, changed by `scaling`. Result files hold it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rope {
    /// `rope_theta` of config.json.
    pub base: f64,
    /// How the frequencies were stretched for longer contexts.
    pub scaling: RopeScaling,
}

/// Stretching of RoPE frequencies, as transformers' `modeling_rope_utils.py` defines it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RopeScaling {
    /// As trained.
    None,
    /// All frequencies divided by one factor.
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// Llama 3.1: long wavelengths divided by `factor`, short ones kept, a ramp between.
    Llama3 {
        /// The divisor of long wavelengths.
        factor: f64,
        /// Wavelengths above `original_positions / low` are divided in full.
        low: f64,
        /// Wavelengths below `original_positions / high` are kept.
        high: f64,
        /// Context length of the first training.
        original_positions: f64,
    },
    /// YaRN (Peng et al. 2023): a ramp over channels, and cos and sin multiplied by `attention_factor`.
    Yarn {
        /// The divisor of slow channels.
        factor: f64,
        /// Turns over the original context above which a channel is kept.
        beta_fast: f64,
        /// Turns over the original context below which a channel is divided in full.
        beta_slow: f64,
        /// Context length of the first training.
        original_positions: f64,
        /// Multiplies cos and sin.
        attention_factor: f64,
        /// Whether the ramp's ends are rounded to whole channels.
        truncate: bool,
    },
    /// NTK-aware scaling that sets in past the published context, where it is not implemented: none up to there.
    Dynamic,
    /// One divisor for each of the D/2 frequencies, as GGUF files store Llama 3's scaling.
    Divisors(Vec<f32>),
}

impl RopeScaling {
    /// Longest sequence, in tokens, of a model whose configuration says `published` (`max_position_embeddings`). Llama 3's scaling is of models that
    /// publish the longer context. Linear scaling and YaRN are also switched on by a user for a model that keeps its own number (Qwen2.5 does so for
    /// 131072 tokens), and then open `factor` times as many: of `published` with linear scaling, which knows no other number, and of
    /// `original_positions` with YaRN. vLLM counts so too; transformers sets no limit.
    pub fn longest_context(&self, published: usize) -> usize {
        let scaled = match self {
            RopeScaling::Linear { factor } => factor * published as f64,
            RopeScaling::Yarn { factor, original_positions, .. } => factor * original_positions,
            RopeScaling::None | RopeScaling::Llama3 { .. } | RopeScaling::Dynamic | RopeScaling::Divisors(_) => 0.0,
        };
        published.max(scaled as usize)
    }
}

/// The feed-forward half of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mlp {
    /// `down(gelu(up(x)))` with the tanh approximation (`gelu_new`).
    GeluTanh,
    /// `down(gelu(up(x)))` with the error function.
    GeluErf,
    /// `down(silu(gate(x)) · up(x))`.
    SwiGlu,
}

/// Which linear maps add a bias.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Biases {
    /// Of queries, keys and values.
    pub qkv: bool,
    /// Of the attention output.
    pub output: bool,
    /// Of the MLP.
    pub mlp: bool,
}

/// More layers than any model has: a damaged file must not make us allocate by what it says.
const MAX_LAYERS: usize = 1 << 16;

/// The same sliding window, or none, in each of `layers` layers.
///
/// # Errors
/// [`Error::Usage`] when no model has so many.
pub fn same_window(layers: usize, window: Option<usize>) -> Result<Vec<Option<usize>>> {
    match layers {
        0..=MAX_LAYERS => Ok(vec![window; layers]),
        _ => Err(Error::usage(format!("the model's configuration has {layers} as its layers"))),
    }
}

/// One decoder, described completely: what `families/` makes of a config.json and what
/// [`Decoder`](super::decoder::Decoder) builds.
#[derive(Debug, Clone, PartialEq)]
pub struct DecoderConfig {
    /// `model_type` of config.json.
    pub family: String,
    /// L.
    pub layers: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width inside the MLP.
    pub intermediate: usize,
    /// Hq.
    pub heads: usize,
    /// Hkv.
    pub kv_heads: usize,
    /// D.
    pub head_dim: usize,
    /// V.
    pub vocab: usize,
    /// Longest sequence the model was made for, in tokens: see [`RopeScaling::longest_context`].
    pub max_positions: usize,
    /// Normalization, the same everywhere.
    pub norm: Norm,
    /// Position encoding.
    pub position: Position,
    /// Feed-forward form.
    pub mlp: Mlp,
    /// Which linear maps add a bias.
    pub biases: Biases,
    /// Whether each head's query and key is RMS-normalized before RoPE (Qwen3).
    pub qk_norm: bool,
    /// For each layer, the number of latest tokens (itself included) a token attends to; `None` attends to all.
    pub windows: Vec<Option<usize>>,
    /// Whether the output layer is the embedding, transposed.
    pub tied_embeddings: bool,
    /// Token that begins a text, if the model wants one.
    pub bos: Option<u32>,
    /// Tokens that end a text.
    pub eos: Vec<u32>,
    /// Dtype the weights were published in (`torch_dtype`).
    pub stored_dtype: Option<DType>,
}

/// Tokens that a rotary model may write after a prompt as long as its context.
const DECODE_ROOM: usize = 4096;

impl DecoderConfig {
    /// The sliding window that all layers share, if they do: a cache may drop what is older.
    pub fn shared_window(&self) -> Option<usize> {
        shared_window(&self.windows)
    }

    /// Attends to everything, as a model with a sliding window was run by the thesis (`--sliding-window off`).
    pub fn without_sliding_window(mut self) -> Self {
        self.windows.fill(None);
        self
    }

    /// Positions that a pass may use. Rotary models can be run past the context they were made for, as a decode from a full
    /// context does (the thesis measured its longest context so); learned positions end where their table does, and dynamic scaling begins there.
    pub fn usable_positions(&self) -> usize {
        match self.position {
            Position::Learned | Position::Rope(Rope { scaling: RopeScaling::Dynamic, .. }) => self.max_positions,
            Position::Rope(_) => self.max_positions + DECODE_ROOM,
        }
    }

    /// Positions of the rotary tables with which a cache of `capacity` tokens is read and written: a power of two, so that caches of which
    /// each is a little longer than the last seldom need new ones, and no more than are usable. 0 where positions are learned.
    pub fn rotary_positions(&self, capacity: usize) -> usize {
        match self.position {
            Position::Learned => 0,
            Position::Rope(_) => {
                let most = self.usable_positions();
                capacity.min(most).next_power_of_two().min(most)
            }
        }
    }

    /// Bytes of those tables: cos and sin of each position and channel pair in f32.
    pub fn rotary_bytes(&self, capacity: usize) -> u64 {
        self.rotary_positions(capacity) as u64 * self.head_dim as u64 * size_of::<f32>() as u64
    }

    /// How queries and keys are rotated; `None` where positions are learned.
    pub fn rope(&self) -> Option<&Rope> {
        match &self.position {
            Position::Learned => None,
            Position::Rope(rope) => Some(rope),
        }
    }

    /// Why a GPU does not serve this model; `None` where it does.
    pub fn unserved_on_gpu(&self) -> Option<String> {
        let served = GPU_HEAD_DIMS.contains(&self.head_dim);
        let [few, many] = GPU_HEAD_DIMS;
        (!served).then(|| {
            let heads = self.head_dim;
            format!("its heads have {heads} channels, and the CUDA kernels serve {few} and {many}; use --device cpu")
        })
    }

    /// Multiplies q·k: 1/√D.
    pub fn attention_scale(&self) -> f64 {
        1.0 / (self.head_dim as f64).sqrt()
    }

    /// The cache this model needs for `batch` sequences of up to `capacity` tokens, fed at most `max_chunk` at a time.
    pub fn cache_shape(
        &self,
        batch: usize,
        capacity: usize,
        max_chunk: usize,
        dtype: DType,
        device: &candle_core::Device,
    ) -> CacheShape {
        CacheShape {
            windows: self.windows.clone(),
            batch,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            capacity,
            max_chunk,
            dtype,
            device: device.clone(),
        }
    }

    /// Parameters of a model of this shape, a tied output layer counted once; `u64::MAX` where there would be more than that.
    pub fn parameters(&self) -> u64 {
        // Each size is below 2^31, and no product has more than three of them.
        let [hidden, inner, vocab] = [self.hidden, self.intermediate, self.vocab].map(|n| n as u128);
        let [queries, keys] = [self.heads, self.kv_heads].map(|heads| heads as u128 * self.head_dim as u128);
        let bias = |present: bool, count: u128| if present { count } else { 0 };
        let norm = match self.norm {
            Norm::LayerNorm { .. } => 2 * hidden,
            Norm::RmsNorm { .. } => hidden,
        };
        let matrices = if self.mlp == Mlp::SwiGlu { 3 } else { 2 };
        let inner_biases = (matrices - 1) * inner + hidden;
        let layer = 2 * norm
            + hidden * (2 * queries + 2 * keys)
            + bias(self.biases.qkv, queries + 2 * keys)
            + bias(self.biases.output, hidden)
            + matrices * hidden * inner
            + bias(self.biases.mlp, inner_biases)
            + bias(self.qk_norm, 2 * self.head_dim as u128);
        let embeddings = vocab * hidden * if self.tied_embeddings { 1 } else { 2 };
        let positions = bias(self.position == Position::Learned, self.max_positions as u128 * hidden);
        u64::try_from(embeddings + positions + self.layers as u128 * layer + norm).unwrap_or(u64::MAX)
    }

    /// Checks the sizes against each other.
    ///
    /// # Errors
    /// [`Error::Usage`] naming the field that cannot be.
    pub fn validate(self) -> Result<Self> {
        let positive = [
            ("layers", self.layers),
            ("hidden size", self.hidden),
            ("intermediate size", self.intermediate),
            ("attention heads", self.heads),
            ("key/value heads", self.kv_heads),
            ("head dim", self.head_dim),
            ("vocabulary", self.vocab),
            ("positions", self.max_positions),
        ];
        for (what, value) in positive {
            if value == 0 || value > 1 << 30 {
                return Err(Error::usage(format!("the model's configuration has {value} as its {what}")));
            }
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            return Err(Error::usage(format!(
                "{} attention heads do not divide among {} key/value heads",
                self.heads, self.kv_heads
            )));
        }
        if let Position::Rope(rope) = &self.position {
            if !self.head_dim.is_multiple_of(2) {
                return Err(Error::usage(format!("RoPE needs an even head dim, not {}", self.head_dim)));
            }
            if !(rope.base.is_finite() && rope.base > 0.0) {
                return Err(Error::usage(format!("RoPE base {} is not a positive number", rope.base)));
            }
        }
        if self.windows.len() != self.layers || self.windows.contains(&Some(0)) {
            return Err(Error::usage("each layer needs a sliding window of at least one token, or none"));
        }
        Ok(self)
    }
}
