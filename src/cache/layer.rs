//! How large one layer's buffers are. Everything the ledger predicts follows from here.

use super::{CacheBytes, CacheShape};
use crate::quant::{QuantSpec, TileGeometry};

/// Slots and tiles of one layer of a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LayerPlan {
    /// Slots of the recent window (W).
    pub slots: usize,
    /// Ring of packed tiles; `None` where the layer stays in full precision or no block can ever leave the window.
    pub packed: Option<PackedPlan>,
}

/// The packed part of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PackedPlan {
    /// One tile.
    pub geometry: TileGeometry,
    /// Tiles of each (batch entry, KV head).
    pub tiles: usize,
}

/// Windows are whole multiples of this many slots, so that a run of 64 positions never wraps in the middle.
const SLOT_MULTIPLE: usize = 64;

impl LayerPlan {
    /// The plan of `layer`.
    pub fn new(spec: &QuantSpec, shape: &CacheShape, layer: usize) -> Self {
        let packed = if spec.keep_layers.binary_search(&layer).is_ok() { None } else { PackedPlan::new(spec, shape) };
        let (most, multiple) = match packed {
            // Before a forward pass the window holds at most residual + block - 1 tokens, a full block leaving after each.
            Some(PackedPlan { geometry, .. }) => {
                (spec.residual + geometry.tokens - 1 + shape.max_chunk, geometry.tokens)
            }
            None => match shape.sliding_window {
                // The oldest query of a chunk still sees sliding_window - 1 tokens before itself.
                Some(sliding) => (sliding - 1 + shape.max_chunk, SLOT_MULTIPLE),
                None => (shape.capacity, SLOT_MULTIPLE),
            },
        };
        LayerPlan { slots: most.min(shape.capacity).next_multiple_of(multiple), packed }
    }

    /// Bytes of this layer's buffers.
    pub fn bytes(&self, shape: &CacheShape) -> CacheBytes {
        let heads = (shape.batch * shape.kv_heads) as u64;
        let window = 2 * heads * (self.slots * shape.head_dim * shape.dtype.size_in_bytes()) as u64;
        let tiles = |bytes_of: fn(&TileGeometry) -> usize| {
            self.packed.map_or(0, |p| heads * (p.tiles * bytes_of(&p.geometry)) as u64)
        };
        CacheBytes {
            codes: tiles(TileGeometry::code_bytes),
            parameters: tiles(TileGeometry::parameter_bytes),
            window,
            scratch: 0,
        }
    }
}

impl PackedPlan {
    fn new(spec: &QuantSpec, shape: &CacheShape) -> Option<Self> {
        let geometry = TileGeometry::new(spec, shape.head_dim, shape.dtype)?;
        let leaving = shape.capacity.saturating_sub(spec.residual) / geometry.tokens;
        if leaving == 0 {
            return None;
        }
        let tiles = match shape.sliding_window {
            // When a block has just left, the next query is at least `residual` tokens past it.
            Some(sliding) => {
                let seen = (sliding - 1).saturating_sub(spec.residual).div_ceil(geometry.tokens);
                seen.clamp(1, leaving)
            }
            None => leaving,
        };
        Some(PackedPlan { geometry, tiles })
    }
}
