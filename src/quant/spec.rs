//! What a `--kv-quant` name means (docs/QUANTIZATION.md).

use serde::{Deserialize, Serialize};

/// Which elements share a scale and a minimum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// G consecutive tokens of one channel and head (`axis` 0 in result files).
    Channel,
    /// G consecutive channels of one token and head (`axis` 1 in result files).
    Token,
}

/// How a group's scale and minimum are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fit {
    /// From the extremes of the group.
    MinMax,
    /// Half-quadratic refinement of the zero point (mobiusml/hqq).
    Hqq,
}

/// How keys or values are grouped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Groups {
    /// Bits of a code: 2, 4 or 8.
    pub bits: u8,
    /// Elements that share one (scale, minimum) pair: 16, 32, 64 or 128.
    pub group: usize,
    /// Direction in which a group's elements lie.
    pub direction: Direction,
}

/// What is stored for each cached key and value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Scheme {
    /// The model's own float type.
    None,
    /// Codes with one (scale, minimum) pair a group: `x ≈ s·c + m`.
    Grouped {
        /// Grouping of the keys.
        key: Groups,
        /// Grouping of the values.
        value: Groups,
        /// How the pair is found.
        fit: Fit,
    },
    /// 8-bit floats (E4M3) with one scale a head and block of tokens.
    Fp8,
}

/// When tokens are quantized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// The oldest block leaves the window once it is full, is quantized once and never touched again.
    Streaming,
    /// What Hugging Face's QuantizedCache does, for comparison with published numbers.
    Transformers,
}

/// A parsed `--kv-quant` value.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct QuantSpec {
    /// The name as written in its canonical form, overrides included: `int4-hqq,group=32`.
    pub name: String,
    /// What is stored.
    pub scheme: Scheme,
    /// Tokens that always stay in full precision.
    pub residual: usize,
    /// Layers that stay in full precision, sorted.
    pub keep_layers: Vec<usize>,
    /// When tokens are quantized.
    pub policy: Policy,
}

impl QuantSpec {
    /// The unquantized baseline.
    pub fn none() -> Self {
        QuantSpec {
            name: "none".into(),
            scheme: Scheme::None,
            residual: 128,
            keep_layers: Vec::new(),
            policy: Policy::Streaming,
        }
    }

    /// Whether any layer's cache is quantized.
    pub fn is_quantized(&self) -> bool {
        self.scheme != Scheme::None
    }

    /// Tokens that leave the window together: the least multiple of all group sizes along tokens, at least 64.
    pub fn block_tokens(&self) -> usize {
        let along_tokens = |g: Groups| if g.direction == Direction::Channel { g.group } else { 1 };
        match self.scheme {
            Scheme::Grouped { key, value, .. } => along_tokens(key).max(along_tokens(value)).max(64),
            Scheme::None | Scheme::Fp8 => 64,
        }
    }
}
