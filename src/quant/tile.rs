//! The storage unit of packed tokens: sizes and places.
//!
//! A tile holds the keys and values of 64 consecutive tokens (128 where a per-channel group spans 128) of one batch entry
//! and one KV head, as four contiguous parts: key codes, key parameters, value codes, value parameters.
//!
//! On the host a part is row-major: code (token, channel) is number `token·D + channel`, low bits first within a byte;
//! parameters are all scales by group number, then all minima. On a CUDA device the same bytes are permuted into the order
//! in which the attention kernel's lanes want them (`kernels/include/kvprof/tile.cuh`). Sizes are equal.

use candle_core::DType;

use super::{Direction, Groups, QuantSpec, Scheme};

/// Bytes set aside for the one FP8 scale of a side: the scale first, then zeros, so that tiles stay multiples of 16 bytes.
const FP8_PARAMETER_BYTES: usize = 16;

/// The keys or the values of a tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SideGeometry {
    /// Bits of a code.
    pub bits: usize,
    /// Grouping; `None` for FP8, whose one scale serves the whole side.
    pub groups: Option<Groups>,
    /// Where the codes start, in bytes from the start of the tile.
    pub codes_at: usize,
    /// Bytes of all codes.
    pub code_bytes: usize,
    /// Where the parameters start.
    pub parameters_at: usize,
    /// Bytes of all scales, the distance from a scale to its minimum (the whole of the parameters for FP8).
    pub scale_bytes: usize,
    /// Bytes of all parameters.
    pub parameter_bytes: usize,
    tokens: usize,
    channels: usize,
}

impl SideGeometry {
    fn new(groups: Option<Groups>, tokens: usize, channels: usize, real_bytes: usize) -> Self {
        let bits = groups.map_or(8, |g| usize::from(g.bits));
        let (scale_bytes, parameter_bytes) = match groups {
            Some(g) => {
                let scales = tokens * channels / g.group * real_bytes;
                (scales, 2 * scales)
            }
            None => (FP8_PARAMETER_BYTES, FP8_PARAMETER_BYTES),
        };
        SideGeometry {
            bits,
            groups,
            codes_at: 0,
            code_bytes: tokens * channels * bits / 8,
            parameters_at: 0,
            scale_bytes,
            parameter_bytes,
            tokens,
            channels,
        }
    }

    /// Number of the group that holds (token of the tile, channel); 0 for FP8.
    #[inline]
    pub fn group_index(&self, token: usize, channel: usize) -> usize {
        match self.groups {
            Some(Groups { group, direction: Direction::Channel, .. }) => token / group * self.channels + channel,
            Some(Groups { group, direction: Direction::Token, .. }) => {
                token * (self.channels / group) + channel / group
            }
            None => 0,
        }
    }

    /// Groups in a tile; 1 for FP8.
    pub fn group_count(&self) -> usize {
        self.groups.map_or(1, |g| self.tokens * self.channels / g.group)
    }
}

/// A tile of one spec, head dimension and float type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TileGeometry {
    /// Tokens of a tile, which is also the block that leaves the window at once: 64 or 128.
    pub tokens: usize,
    /// Channels of a head (D).
    pub channels: usize,
    /// Bytes of one number of the cache's float type.
    pub real_bytes: usize,
    /// The keys.
    pub key: SideGeometry,
    /// The values.
    pub value: SideGeometry,
}

impl TileGeometry {
    /// The tile of `spec` for heads of `head_dim` channels and parameters of type `dtype`; `None` for an unquantized spec.
    ///
    /// The spec must have passed [`QuantSpec::validate`] for this head dimension.
    pub fn new(spec: &QuantSpec, head_dim: usize, dtype: DType) -> Option<Self> {
        let (key, value) = match spec.scheme {
            Scheme::None => return None,
            Scheme::Grouped { key, value, .. } => (Some(key), Some(value)),
            Scheme::Fp8 => (None, None),
        };
        let tokens = spec.block_tokens();
        let real_bytes = dtype.size_in_bytes();
        let mut key = SideGeometry::new(key, tokens, head_dim, real_bytes);
        let mut value = SideGeometry::new(value, tokens, head_dim, real_bytes);
        key.parameters_at = key.code_bytes;
        value.codes_at = key.parameters_at + key.parameter_bytes;
        value.parameters_at = value.codes_at + value.code_bytes;
        Some(TileGeometry { tokens, channels: head_dim, real_bytes, key, value })
    }

    /// Bytes of the codes of a tile.
    pub fn code_bytes(&self) -> usize {
        self.key.code_bytes + self.value.code_bytes
    }

    /// Bytes of the scales and minima of a tile.
    pub fn parameter_bytes(&self) -> usize {
        self.key.parameter_bytes + self.value.parameter_bytes
    }

    /// Bytes of a tile.
    pub fn bytes(&self) -> usize {
        self.code_bytes() + self.parameter_bytes()
    }
}
