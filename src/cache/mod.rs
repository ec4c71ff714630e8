//! Layer 3: what a model remembers of the tokens it has read.
//!
//! Every cache is a dense ring of recent tokens plus, for the quantized ones, packed tiles of older tokens; the
//! unquantized cache is a ring that holds everything. Buffers are allocated once and never grown.

pub mod host;
mod layer;
pub mod ops;
mod ring;
#[cfg(test)]
mod tests;

use std::iter::Sum;
use std::ops::{AddAssign, Range};

use candle_core::{DType, Device, Tensor};

use crate::Result;
use crate::quant::{Hadamard, QuantSpec, TileGeometry};

pub use layer::predict;
pub use ring::RingCache;

/// Allocates a cache for `spec`.
///
/// # Errors
/// A usage error when the spec cannot serve the shape (a group that does not divide D, a layer to keep that does not exist,
/// a dtype that is not a float type); out of memory.
pub fn new(spec: QuantSpec, shape: CacheShape) -> Result<Box<dyn KvCache>> {
    Ok(Box::new(RingCache::new(spec, shape)?))
}

/// What a cache must hold; the same for every quantization of one run.
#[derive(Debug, Clone)]
pub struct CacheShape {
    /// Sequences side by side (B).
    pub batch: usize,
    /// KV heads (Hkv).
    pub kv_heads: usize,
    /// Channels of a head (D).
    pub head_dim: usize,
    /// Longest sequence to hold, in tokens.
    pub capacity: usize,
    /// Most tokens appended in one forward pass.
    pub max_chunk: usize,
    /// For each decoder layer, the tokens that one sees, itself and those before it; `None` is all of them. Where the layers share
    /// one, the cache need not keep what is older.
    pub windows: Vec<Option<usize>>,
    /// Float type of the model's keys and values, and of the group parameters.
    pub dtype: DType,
    /// Where the buffers live.
    pub device: Device,
}

impl CacheShape {
    /// Decoder layers.
    pub fn layers(&self) -> usize {
        self.windows.len()
    }

    /// The sliding window that all layers share, if they do: older tokens are never attended to.
    pub fn shared_window(&self) -> Option<usize> {
        shared_window(&self.windows)
    }
}

/// Channels of a head (D) for which there are CUDA kernels: of the cache, of attention, of rotation, of the decode step.
pub const GPU_HEAD_DIMS: [usize; 2] = [64, 128];

/// The sliding window that all of `windows` are, if they are one.
pub fn shared_window(windows: &[Option<usize>]) -> Option<usize> {
    let first = *windows.first()?;
    if windows.iter().all(|&window| window == first) { first } else { None }
}

/// Bytes by purpose, either predicted from a spec or read off the allocated buffers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheBytes {
    /// Packed codes.
    pub codes: u64,
    /// Scales and minima.
    pub parameters: u64,
    /// Full-precision recent tokens.
    pub window: u64,
    /// Working space of the cache itself: the ring that long chunks pass through, and 8 bytes that note numbers that are not finite.
    pub scratch: u64,
}

impl CacheBytes {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.codes + self.parameters + self.window + self.scratch
    }
}

impl std::iter::Sum for CacheBytes {
    fn sum<I: Iterator<Item = Self>>(parts: I) -> Self {
        parts.fold(CacheBytes::default(), |a, b| CacheBytes {
            codes: a.codes + b.codes,
            parameters: a.parameters + b.parameters,
            window: a.window + b.window,
            scratch: a.scratch + b.scratch,
        })
    }
}

/// How often keys were read, and how many of those reads came from codes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeyReads {
    /// (query token, key token) pairs whose key came from a code.
    pub from_codes: u64,
    /// All such pairs.
    pub total: u64,
}

impl KeyReads {
    /// The share that came from codes, 0…1; 0 where nothing was read.
    pub fn share(self) -> f64 {
        if self.total == 0 { 0.0 } else { self.from_codes as f64 / self.total as f64 }
    }
}

impl AddAssign for KeyReads {
    fn add_assign(&mut self, other: Self) {
        self.from_codes += other.from_codes;
        self.total += other.total;
    }
}

impl Sum for KeyReads {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(KeyReads::default(), |mut sum, reads| {
            sum += reads;
            sum
        })
    }
}

/// What a layer holds, as attention reads it. Positions are absolute token positions.
pub struct LayerView<'a> {
    /// Dense ring `[2 (K, V), B, Hkv, W, D]` of the model's float type: position p is in slot p mod W.
    pub window: &'a Tensor,
    /// Positions that are in the window.
    pub window_positions: Range<usize>,
    /// Older tokens as codes.
    pub packed: Option<PackedView<'a>>,
    /// Keys older than this are masked.
    pub sliding_window: Option<usize>,
}

impl LayerView<'_> {
    /// Positions held, packed and dense.
    pub fn positions(&self) -> Range<usize> {
        let start = match &self.packed {
            Some(packed) if !packed.positions.is_empty() => packed.positions.start,
            _ => self.window_positions.start,
        };
        start..self.window_positions.end
    }

    /// Positions that the last `tokens` tokens may attend to: those held and not older than the sliding window.
    pub fn visible(&self, tokens: usize) -> Range<usize> {
        let held = self.positions();
        let oldest_query = held.end.saturating_sub(tokens);
        let first = self.sliding_window.map_or(0, |window| (oldest_query + 1).saturating_sub(window));
        held.start.max(first)..held.end
    }

    /// Bytes of the window slots and tiles of one sequence and KV head that the latest token reads.
    fn read_bytes(&self) -> usize {
        let visible = self.visible(1);
        let slot = 2 * self.window.dims()[4] * self.window.dtype().size_in_bytes();
        let dense = visible.end.saturating_sub(visible.start.max(self.window_positions.start));
        let tiles = self.packed.as_ref().map_or(0, |packed| {
            let (tokens, end) = (packed.geometry.tokens, visible.end.min(packed.positions.end));
            let count = end.div_ceil(tokens).saturating_sub(visible.start / tokens);
            count * packed.geometry.bytes()
        });
        dense * slot + tiles
    }
}

/// The packed part of a layer.
pub struct PackedView<'a> {
    /// `[B, Hkv, tiles, tile bytes]` u8: position p is in tile (p / tile tokens) mod tiles.
    pub tiles: &'a Tensor,
    /// Scheme and fit.
    pub spec: &'a QuantSpec,
    /// Sizes and places inside a tile.
    pub geometry: TileGeometry,
    /// Positions held, ending where the window begins.
    pub positions: Range<usize>,
}

impl PackedView<'_> {
    /// Geometry and positions by themselves.
    pub fn meta(&self) -> host::PackedMeta {
        host::PackedMeta { geometry: self.geometry, positions: self.positions.clone() }
    }
}

/// The seam between a model and its cache.
///
/// A forward pass calls, for each layer in turn, [`append`](KvCache::append), [`view`](KvCache::view) (to attend) and
/// [`settle`](KvCache::settle) (blocks that are due are quantized); after the last layer, [`advance`](KvCache::advance).
pub trait KvCache {
    /// The quantization this cache was made for.
    fn spec(&self) -> &QuantSpec;

    /// How keys and values of `layer` are to be given to it: transformed where its codes are of transformed numbers, which a layer without
    /// codes has no need of. Queries and outputs go by the same (`quant::hadamard`).
    fn hadamard(&self, layer: usize) -> Hadamard {
        if self.view(layer).packed.is_some() { self.spec().hadamard } else { Hadamard::NONE }
    }

    /// The shape this cache was made for.
    fn shape(&self) -> &CacheShape;

    /// Tokens held, or dropped by the sliding window, up to the last finished forward pass: the next token's position.
    fn len(&self) -> usize;

    /// Whether nothing has been appended since the last reset.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts T new keys (after RoPE) and values `[B, Hkv, T, D]` into the window of `layer`.
    ///
    /// # Errors
    /// When the capacity or `max_chunk` is exceeded, or a value is not finite.
    fn append(&mut self, layer: usize, k: &Tensor, v: &Tensor) -> Result<()>;

    /// Makes place for T tokens that a kernel writes into the window of `layer` itself, as [`append`](KvCache::append) would:
    /// position p in slot p mod W of the window that [`view`](KvCache::view) shows afterwards.
    ///
    /// # Errors
    /// When the capacity or `max_chunk` is exceeded.
    fn reserve(&mut self, layer: usize, tokens: usize) -> Result<()>;

    /// What `layer` holds now, the tokens just appended included.
    fn view(&self, layer: usize) -> LayerView<'_>;

    /// Quantizes the blocks of `layer` that are due.
    fn settle(&mut self, layer: usize) -> Result<()>;

    /// Ends a forward pass of `tokens` new tokens.
    fn advance(&mut self, tokens: usize);

    /// New tokens that may be fed in one pass before a block leaves the window (at least 1): feeding at most so many at a
    /// time gives the same codes and logits as feeding one by one. `None` when nothing ever leaves.
    fn tokens_until_flush(&self) -> Option<usize>;

    /// Bytes allocated, read off the buffers themselves.
    fn allocated(&self) -> CacheBytes;

    /// Bytes that the spec predicts for this shape.
    fn predicted(&self) -> CacheBytes;

    /// Bytes of the codes, parameters and window slots that attention reads for the latest token, all layers together.
    fn read_bytes(&self) -> u64 {
        let shape = self.shape();
        let layers = (0..shape.layers()).map(|layer| self.view(layer).read_bytes() as u64);
        layers.sum::<u64>() * (shape.batch * shape.kv_heads) as u64
    }

    /// Fails when a key or value appended since the cache was made is NaN or infinite. On the CPU that has stopped
    /// [`append`](KvCache::append) already; a GPU raises a flag, so call this where its results are waited for anyway.
    ///
    /// # Errors
    /// [`Error::NotFinite`](crate::Error::NotFinite) naming layer and position.
    fn check_finite(&self) -> Result<()>;

    /// What [`check_finite`](KvCache::check_finite) looks at, for a kernel that writes into the window itself: one i64 on the
    /// device, 0 or position·2³² + layer + 1 of the earliest key or value that is NaN or infinite.
    fn not_finite(&self) -> &Tensor;

    /// Key reads since the last reset.
    fn key_reads(&self) -> KeyReads;

    /// Forgets all tokens; the buffers stay.
    fn reset(&mut self);

    /// Goes back to the shape it had at `len` tokens, at most as many as now: the same positions in the window and as codes. What
    /// they hold may since have been overwritten, so that this is for repeating work whose cost alone matters. No forward pass
    /// may be under way.
    fn rewind(&mut self, len: usize);
}
