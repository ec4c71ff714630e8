//! What a `--kv-quant` name means (`kvprof run --help` has the table).

use serde::{Deserialize, Serialize};

use super::Hadamard;
use super::parse::DEFAULT_RESIDUAL;
use crate::{Error, Result};

/// Which elements share a scale and a minimum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// G consecutive tokens of one channel and head (`axis` 0 in result files).
    Channel,
    /// G consecutive channels of one token and head (`axis` 1 in result files).
    Token,
}

impl Direction {
    /// `channel` or `token`, as overrides write it.
    pub const fn name(self) -> &'static str {
        match self {
            Direction::Channel => "channel",
            Direction::Token => "token",
        }
    }

    /// 0 for per-channel, 1 for per-token: `axis_key` and `axis_value` of result files.
    pub const fn axis(self) -> u8 {
        match self {
            Direction::Channel => 0,
            Direction::Token => 1,
        }
    }
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

/// The longest residual window that can be asked for: longer than any context, and far from where sizes overflow.
const MOST_RESIDUAL: usize = 1 << 30;

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
    /// Which sides are kept transformed, so that outliers of one channel are spread over all.
    #[serde(default, skip_serializing_if = "Hadamard::is_none")]
    pub hadamard: Hadamard,
}

impl QuantSpec {
    /// The unquantized baseline.
    pub fn none() -> Self {
        QuantSpec {
            name: "none".into(),
            scheme: Scheme::None,
            residual: DEFAULT_RESIDUAL,
            keep_layers: Vec::new(),
            policy: Policy::Streaming,
            hadamard: Hadamard::NONE,
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

    /// Checks that a model with heads of `head_dim` channels and `layers` decoder layers can be served.
    ///
    /// # Errors
    /// A usage error that says what is possible.
    pub fn validate(&self, head_dim: usize, layers: usize) -> Result<()> {
        let refuse = |message: String| Err(Error::usage(format!("'{}': {message}", self.name)));
        if self.policy == Policy::Transformers {
            return refuse("policy=transformers is not offered yet; policy=streaming is".into());
        }
        if self.residual > MOST_RESIDUAL {
            return refuse(format!("a residual window of {} tokens is longer than any context", self.residual));
        }
        if let Some(layer) = self.keep_layers.iter().find(|layer| **layer >= layers) {
            return refuse(format!("there is no layer {layer} to keep; the model has layers 0 to {}", layers - 1));
        }
        if !self.hadamard.is_none() && !head_dim.is_power_of_two() {
            return refuse(format!(
                "a Hadamard transform needs a power of two of channels, and the model's heads have {head_dim}; leave hadamard out"
            ));
        }
        let Scheme::Grouped { key, value, .. } = self.scheme else {
            return Ok(());
        };
        for (side, what, groups) in [("k", "keys", key), ("v", "values", value)] {
            if groups.direction == Direction::Token && !head_dim.is_multiple_of(groups.group) {
                let possible: Vec<String> = [16, 32, 64, 128]
                    .iter()
                    .filter(|g| head_dim.is_multiple_of(**g))
                    .map(|g| format!("{side}-group={g}"))
                    .collect();
                let possible = match possible.as_slice() {
                    [] => format!("{side}=channel is possible"),
                    some => format!("possible are {} or {side}=channel", some.join(", ")),
                };
                return refuse(format!(
                    "groups of {} channels do not divide the model's head dimension {head_dim} ({what} per token); {possible}",
                    groups.group
                ));
            }
            if !(head_dim * usize::from(groups.bits)).is_multiple_of(8) {
                return refuse(format!(
                    "{} bits a code do not fill whole bytes with a head dimension of {head_dim}; {side}-bits=8 does",
                    groups.bits
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str, head_dim: usize, layers: usize) -> String {
        text.parse::<QuantSpec>().unwrap().validate(head_dim, layers).unwrap_err().to_string()
    }

    #[test]
    fn impossible_mixtures_are_refused_with_what_is_possible() {
        assert!(refusal("int4-hqq-token", 96, 2).contains("possible are k-group=16, k-group=32 or k=channel"));
        assert!(refusal("int4-kivi", 8, 2).contains("v=channel is possible"));
        assert!(refusal("int2-hqq", 66, 2).contains("k-bits=8"));
        assert!(refusal("int4-hqq,keep-layers=0+28", 128, 28).contains("layers 0 to 27"));
        assert!(refusal("int4-hqq,residual=18446744073709551615", 128, 28).contains("longer than any context"));
        assert!(refusal("int4-quanto,group=32,hadamard=kv", 96, 2).contains("leave hadamard out"));
        assert!(refusal("int4-hqq,policy=transformers", 128, 28).contains("not offered yet"));
    }

    #[test]
    fn every_preset_serves_heads_of_64_and_128_channels() {
        for preset in &crate::quant::presets::PRESETS {
            for head_dim in [64, 128] {
                preset.name.parse::<QuantSpec>().unwrap().validate(head_dim, 1).unwrap();
            }
        }
    }

    #[test]
    fn a_block_is_a_whole_number_of_groups_along_tokens() {
        let block = |text: &str| text.parse::<QuantSpec>().unwrap().block_tokens();
        assert_eq!(block("int2-hqq"), 64);
        assert_eq!(block("int4-hqq,v-group=128"), 128);
        assert_eq!(block("int4-hqq-token,group=128"), 64);
        assert_eq!(block("fp8"), 64);
    }
}
