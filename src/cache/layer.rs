//! How large one layer's buffers are, and the ring that long chunks pass through. Everything the ledger predicts follows from
//! here.

use super::{CacheBytes, CacheShape};
use crate::quant::{QuantSpec, TileGeometry};

/// Slots and tiles of one layer of a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LayerPlan {
    /// Most tokens that the window must still hold when a forward pass begins.
    pub keep: usize,
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

/// Rings are whole multiples of this many slots, so that a run of 64 positions never wraps in the middle.
const SLOT_MULTIPLE: usize = 64;

/// Bytes of the one flag a cache keeps on its device: where the first number that is not finite was appended.
pub(super) const FLAG_BYTES: u64 = 8;

/// New tokens for which every layer's own window has room. Longer chunks pass through one staging ring that the layers share:
/// room for a prefill chunk of thousands of tokens in each layer would outweigh what the codes save.
const DIRECT_TOKENS: usize = 64;

impl LayerPlan {
    /// The plan of `layer`.
    pub fn new(spec: &QuantSpec, shape: &CacheShape, layer: usize) -> Self {
        let packed = if spec.keep_layers.binary_search(&layer).is_ok() { None } else { PackedPlan::new(spec, shape) };
        let keep = match (packed, shape.shared_window()) {
            // One token more, and a block leaves.
            (Some(PackedPlan { geometry, .. }), _) => spec.residual + geometry.tokens - 1,
            // The next token sees itself and sliding_window - 1 tokens before it.
            (None, Some(sliding)) => sliding - 1,
            (None, None) => shape.capacity,
        };
        let slots = ring_slots(spec, shape, keep, DIRECT_TOKENS.min(shape.max_chunk));
        LayerPlan { keep, slots, packed }
    }

    /// Bytes of this layer's buffers.
    pub fn bytes(&self, shape: &CacheShape) -> CacheBytes {
        let heads = (shape.batch * shape.kv_heads) as u64;
        let tiles = |bytes_of: fn(&TileGeometry) -> usize| {
            self.packed.map_or(0, |p| heads * (p.tiles * bytes_of(&p.geometry)) as u64)
        };
        CacheBytes {
            codes: tiles(TileGeometry::code_bytes),
            parameters: tiles(TileGeometry::parameter_bytes),
            window: ring_bytes(shape, self.slots),
            scratch: 0,
        }
    }
}

/// Slots of a ring for `keep` old and `new` new tokens; no more than the whole sequence needs.
fn ring_slots(spec: &QuantSpec, shape: &CacheShape, keep: usize, new: usize) -> usize {
    (keep + new).min(shape.capacity).next_multiple_of(spec.block_tokens().max(SLOT_MULTIPLE))
}

/// Bytes of a ring `[2, B, Hkv, slots, D]`.
fn ring_bytes(shape: &CacheShape, slots: usize) -> u64 {
    (2 * shape.batch * shape.kv_heads * slots * shape.head_dim * shape.dtype.size_in_bytes()) as u64
}

/// Slots of the staging ring of all layers; `None` where every chunk fits every layer's own window.
pub(super) fn staging_slots(spec: &QuantSpec, shape: &CacheShape, plans: &[LayerPlan]) -> Option<usize> {
    let needed = |plan: &LayerPlan| ring_slots(spec, shape, plan.keep, shape.max_chunk);
    plans.iter().filter(|plan| needed(plan) > plan.slots).map(needed).max()
}

/// Bytes that a cache of `spec` and `shape` takes, without making one.
pub fn predict(spec: &QuantSpec, shape: &CacheShape) -> CacheBytes {
    let plans: Vec<LayerPlan> = (0..shape.layers()).map(|layer| LayerPlan::new(spec, shape, layer)).collect();
    let scratch = FLAG_BYTES + staging_slots(spec, shape, &plans).map_or(0, |slots| ring_bytes(shape, slots));
    let layers: CacheBytes = plans.iter().map(|plan| plan.bytes(shape)).sum();
    CacheBytes { scratch, ..layers }
}

impl PackedPlan {
    fn new(spec: &QuantSpec, shape: &CacheShape) -> Option<Self> {
        let geometry = TileGeometry::new(spec, shape.head_dim, shape.dtype)?;
        let leaving = shape.capacity.saturating_sub(spec.residual) / geometry.tokens;
        if leaving == 0 {
            return None;
        }
        let tiles = match shape.shared_window() {
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
