//! The one cache behind every spec: in each layer a dense ring of recent tokens and, where the spec quantizes the layer, a
//! ring of packed tiles of older ones. Without a quantization the window simply holds everything.
//!
//! A chunk too long for a layer's window passes through the staging ring, which the layers take turns to use: the window is
//! copied there, the chunk appended, attended to and quantized from there, and what is left is copied back.

use std::ops::Range;

use candle_core::{DType, Tensor};

use super::layer::{self, LayerPlan, PackedPlan};
use super::ops;
use super::{CacheBytes, CacheShape, KeyReads, KvCache, LayerView, PackedView, predict};
use crate::quant::QuantSpec;
use crate::quant::real::check_real;
use crate::{Error, Result};

/// A KV cache of preallocated rings.
pub struct RingCache {
    spec: QuantSpec,
    shape: CacheShape,
    layers: Vec<Layer>,
    /// `[2, B, Hkv, W', D]`, W' enough for the longest chunk.
    staging: Option<Tensor>,
    staged: Option<Staged>,
    /// One i64 on the device: 0, or position·2³² + layer + 1 of the earliest number appended that is not finite.
    not_finite: Tensor,
    len: usize,
    reads: KeyReads,
}

/// Whose tokens the staging ring holds.
struct Staged {
    layer: usize,
    /// First position in the staging ring; the last is the layer's own.
    start: usize,
}

struct Layer {
    plan: LayerPlan,
    /// `[2, B, Hkv, W, D]`.
    window: Tensor,
    /// `[B, Hkv, tiles, tile bytes]` u8.
    tiles: Option<Tensor>,
    /// Positions before this one have left the window as codes.
    packed_end: usize,
    /// End of the positions in the window.
    end: usize,
}

impl Layer {
    fn new(spec: &QuantSpec, shape: &CacheShape, layer: usize) -> Result<Self> {
        let plan = LayerPlan::new(spec, shape, layer);
        let (batch, heads) = (shape.batch, shape.kv_heads);
        let window = new_ring(shape, plan.slots)?;
        let tiles = match plan.packed {
            Some(PackedPlan { geometry, tiles }) => {
                Some(Tensor::zeros((batch, heads, tiles, geometry.bytes()), DType::U8, &shape.device)?)
            }
            None => None,
        };
        Ok(Layer { plan, window, tiles, packed_end: 0, end: 0 })
    }

    /// Positions in the window: those not yet packed, as far back as the ring reaches.
    fn window_positions(&self) -> Range<usize> {
        self.packed_end.max(self.end.saturating_sub(self.plan.slots))..self.end
    }

    /// Positions held as codes.
    fn packed_positions(&self) -> Range<usize> {
        let held = self.plan.packed.map_or(0, |p| p.tiles * p.geometry.tokens);
        self.packed_end.saturating_sub(held)..self.packed_end
    }

    fn allocated(&self) -> CacheBytes {
        let (codes, parameters) = match (&self.tiles, self.plan.packed) {
            (Some(tiles), Some(PackedPlan { geometry, .. })) => {
                let count = bytes_of(tiles) / geometry.bytes() as u64;
                (count * geometry.code_bytes() as u64, count * geometry.parameter_bytes() as u64)
            }
            _ => (0, 0),
        };
        CacheBytes { codes, parameters, window: bytes_of(&self.window), scratch: 0 }
    }
}

/// A ring `[2, B, Hkv, slots, D]` of zeros.
fn new_ring(shape: &CacheShape, slots: usize) -> Result<Tensor> {
    Ok(Tensor::zeros((2, shape.batch, shape.kv_heads, slots, shape.head_dim), shape.dtype, &shape.device)?)
}

fn bytes_of(tensor: &Tensor) -> u64 {
    (tensor.elem_count() * tensor.dtype().size_in_bytes()) as u64
}

impl RingCache {
    /// Allocates the buffers of every layer.
    ///
    /// # Errors
    /// A usage error when the spec cannot serve the shape or the dtype is not a float type; out of memory.
    pub fn new(spec: QuantSpec, shape: CacheShape) -> Result<Self> {
        check_real(shape.dtype)?;
        spec.validate(shape.head_dim, shape.layers())?;
        if shape.layers() * shape.batch * shape.kv_heads * shape.head_dim * shape.capacity * shape.max_chunk == 0 {
            return Err(Error::usage(format!("a KV cache has at least one of everything, not {shape:?}")));
        }
        if shape.windows.contains(&Some(0)) {
            return Err(Error::usage("a sliding window holds at least one token"));
        }
        let layers = (0..shape.layers()).map(|layer| Layer::new(&spec, &shape, layer)).collect::<Result<Vec<_>>>()?;
        let plans: Vec<LayerPlan> = layers.iter().map(|layer| layer.plan).collect();
        let staging = match layer::staging_slots(&spec, &shape, &plans) {
            Some(slots) => Some(new_ring(&shape, slots)?),
            None => None,
        };
        let not_finite = Tensor::zeros(1, DType::I64, &shape.device)?;
        Ok(RingCache { spec, shape, layers, staging, staged: None, not_finite, len: 0, reads: KeyReads::default() })
    }

    /// The first packed layer: all of them move in step.
    fn packed_layer(&self) -> Option<(&Layer, &PackedPlan)> {
        self.layers.iter().find_map(|layer| Some((layer, layer.plan.packed.as_ref()?)))
    }

    /// The ring that holds the recent tokens of `layer` now, and their positions.
    fn recent(&self, layer: usize) -> (&Tensor, Range<usize>) {
        let own = &self.layers[layer];
        match (&self.staged, &self.staging) {
            (Some(staged), Some(ring)) if staged.layer == layer => (ring, staged.start..own.end),
            _ => (&own.window, own.window_positions()),
        }
    }

    /// Makes room for `tokens` new tokens of `layer`: in its own window, or else in the staging ring.
    fn make_room(&mut self, layer: usize, tokens: usize) -> Result<()> {
        let not_settled = |layer| Error::Invalid(format!("layer {layer}: a forward pass has not been settled"));
        // A chunk may be appended once more, as after an error, but the staging ring is free only when its layer is settled.
        match &self.staged {
            Some(staged) if staged.layer != layer || self.layers[layer].end == self.len => {
                return Err(not_settled(staged.layer));
            }
            _ => self.staged = None,
        }
        let own = &self.layers[layer];
        if own.plan.packed.is_some() && self.len - own.packed_end > own.plan.keep {
            return Err(not_settled(layer));
        }
        let start = own.packed_end.max(self.len.saturating_sub(own.plan.keep));
        if self.len - start + tokens <= own.plan.slots {
            return Ok(());
        }
        let Some(staging) = &self.staging else {
            return Err(Error::Invalid(format!("layer {layer}: no ring has room for {tokens} new tokens")));
        };
        let append = ops::Append { layer, position: start, not_finite: &self.not_finite };
        ops::copy_positions(staging, &own.window, start..self.len, &append)?;
        self.staged = Some(Staged { layer, start });
        Ok(())
    }

    /// Counts the reads of T queries at the end of `layer`, and which of the keys they see are codes.
    fn count_reads(&mut self, layer: usize, tokens: usize) {
        let window = self.shape.windows[layer];
        let layer = &self.layers[layer];
        let packed = layer.packed_positions();
        for query in layer.end - tokens..layer.end {
            let first = window.map_or(0, |w| (query + 1).saturating_sub(w));
            let from_codes = packed.end.saturating_sub(first.max(packed.start));
            self.reads.from_codes += (from_codes * self.shape.batch) as u64;
            self.reads.total += ((query + 1 - first) * self.shape.batch) as u64;
        }
    }
}

impl KvCache for RingCache {
    fn spec(&self) -> &QuantSpec {
        &self.spec
    }

    fn shape(&self) -> &CacheShape {
        &self.shape
    }

    fn len(&self) -> usize {
        self.len
    }

    fn append(&mut self, layer: usize, k: &Tensor, v: &Tensor) -> Result<()> {
        ops::check_finite(layer, self.len, k, v)?;
        self.reserve(layer, k.dim(2)?)?;
        let append = ops::Append { layer, position: self.len, not_finite: &self.not_finite };
        Ok(ops::append_window(self.recent(layer).0, k, v, &append)?)
    }

    fn reserve(&mut self, layer: usize, tokens: usize) -> Result<()> {
        let end = self.len + tokens;
        if tokens > self.shape.max_chunk {
            return Err(Error::usage(format!(
                "{tokens} tokens in one pass; the cache was made for at most {}",
                self.shape.max_chunk
            )));
        }
        if end > self.shape.capacity {
            return Err(Error::usage(format!(
                "token {end} does not fit a cache made for {} tokens",
                self.shape.capacity
            )));
        }
        self.make_room(layer, tokens)?;
        self.layers[layer].end = end;
        self.count_reads(layer, tokens);
        Ok(())
    }

    fn view(&self, layer: usize) -> LayerView<'_> {
        let (window, window_positions) = self.recent(layer);
        let own = &self.layers[layer];
        let packed = match (&own.tiles, own.plan.packed) {
            (Some(tiles), Some(PackedPlan { geometry, .. })) => {
                Some(PackedView { tiles, spec: &self.spec, geometry, positions: own.packed_positions() })
            }
            _ => None,
        };
        LayerView { window, window_positions, packed, sliding_window: self.shape.windows[layer] }
    }

    fn settle(&mut self, layer: usize) -> Result<()> {
        let (window, recent) = self.recent(layer);
        let own = &self.layers[layer];
        let mut packed_end = own.packed_end;
        if let (Some(tiles), Some(PackedPlan { geometry, .. })) = (&own.tiles, own.plan.packed) {
            let leaving = (own.end - packed_end).saturating_sub(self.spec.residual) / geometry.tokens;
            packed_end += leaving * geometry.tokens;
            if leaving > 0 {
                ops::quantize_blocks(tiles, window, &self.spec, geometry, own.packed_end..packed_end)?;
            }
        }
        if self.staged.as_ref().is_some_and(|staged| staged.layer == layer) {
            let left = packed_end.max(recent.start).max(own.end.saturating_sub(own.plan.keep))..own.end;
            let append = ops::Append { layer, position: left.start, not_finite: &self.not_finite };
            ops::copy_positions(&own.window, window, left, &append)?;
            self.staged = None;
        }
        self.layers[layer].packed_end = packed_end;
        Ok(())
    }

    fn advance(&mut self, tokens: usize) {
        self.len += tokens;
    }

    fn tokens_until_flush(&self) -> Option<usize> {
        let (layer, packed) = self.packed_layer()?;
        Some((layer.packed_end + self.spec.residual + packed.geometry.tokens).saturating_sub(self.len).max(1))
    }

    fn allocated(&self) -> CacheBytes {
        let layers: CacheBytes = self.layers.iter().map(Layer::allocated).sum();
        let scratch = bytes_of(&self.not_finite) + self.staging.as_ref().map_or(0, bytes_of);
        CacheBytes { scratch, ..layers }
    }

    fn predicted(&self) -> CacheBytes {
        predict(&self.spec, &self.shape)
    }

    fn check_finite(&self) -> Result<()> {
        match self.not_finite.to_vec1::<i64>()?[0] {
            0 => Ok(()),
            flag => Err(ops::not_finite((flag & 0xffff_ffff) as usize - 1, (flag >> 32) as usize, "key or value")),
        }
    }

    fn not_finite(&self) -> &Tensor {
        &self.not_finite
    }

    fn key_reads(&self) -> KeyReads {
        self.reads
    }

    fn rewind(&mut self, len: usize) {
        self.len = len.min(self.len);
        self.staged = None;
        for layer in &mut self.layers {
            layer.end = self.len;
            if let Some(PackedPlan { geometry, .. }) = layer.plan.packed {
                // Where `settle` leaves it, however the tokens came.
                let leaving = self.len.saturating_sub(self.spec.residual) / geometry.tokens;
                layer.packed_end = leaving * geometry.tokens;
            }
        }
    }

    fn reset(&mut self) {
        self.len = 0;
        self.staged = None;
        self.reads = KeyReads::default();
        for layer in &mut self.layers {
            (layer.packed_end, layer.end) = (0, 0);
        }
    }
}
