//! A layer's buffers in host memory, read position by position: tiles where a position has been packed, the window where not.

use std::ops::Range;

use crate::cache::ops::WindowDims;
use crate::quant::codec::{Side, TileCodec};
use crate::quant::{Fit, QuantSpec, Real, Scheme, TileGeometry};

/// What a host operation must know about the packed part of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedMeta {
    /// Sizes and places inside a tile.
    pub geometry: TileGeometry,
    /// Positions held as codes.
    pub positions: Range<usize>,
}

/// How the groups of `spec` are fitted (min-max where it has none, as FP8).
pub(crate) fn fit_of(spec: &QuantSpec) -> Fit {
    match spec.scheme {
        Scheme::Grouped { fit, .. } => fit,
        Scheme::None | Scheme::Fp8 => Fit::MinMax,
    }
}

/// A layer's buffers as slices.
#[derive(Debug, Clone, Copy)]
pub struct HostLayer<'a, P> {
    window: &'a [P],
    dims: WindowDims,
    packed: Option<(&'a [u8], &'a PackedMeta)>,
}

impl<'a, P: Real> HostLayer<'a, P> {
    /// The layer whose window `[2, B, Hkv, W, D]` and tiles `[B, Hkv, tiles, tile bytes]` are given.
    pub fn new(window: &'a [P], dims: WindowDims, packed: Option<(&'a [u8], &'a PackedMeta)>) -> Self {
        HostLayer { window, dims, packed }
    }

    /// Working space for [`read`](Self::read): one for each thread.
    pub fn codec(&self) -> Option<TileCodec<P>> {
        self.packed.map(|(_, meta)| TileCodec::new(meta.geometry, Fit::MinMax))
    }

    /// The longest run of positions from `start` on, at most `most` of them, that lies in one tile or in one stretch of the
    /// window: reading such a run decodes a tile's parameters once.
    pub fn run(&self, start: usize, most: usize) -> usize {
        match self.packed {
            Some((_, meta)) if start < meta.positions.end => {
                most.min(meta.geometry.tokens - start % meta.geometry.tokens).min(meta.positions.end - start)
            }
            _ => most.min(self.dims.slots - start % self.dims.slots),
        }
    }

    /// Rows of D numbers, oldest first, of one side of `head` (batch entry · Hkv + KV head), widened to f32.
    ///
    /// The layer must hold all of `positions`.
    pub fn read(
        &self,
        codec: &mut Option<TileCodec<P>>,
        side: Side,
        head: usize,
        positions: Range<usize>,
        out: &mut [f32],
    ) {
        let mut start = positions.start;
        let mut out = out;
        while start < positions.end {
            let count = self.run(start, positions.end - start);
            let (rows, rest) = out.split_at_mut(count * self.dims.head_dim);
            match (self.packed, codec.as_mut()) {
                (Some((tiles, meta)), Some(codec)) if start < meta.positions.end => {
                    let first = start % meta.geometry.tokens;
                    let tile = self.tile(tiles, meta, head, start);
                    codec.decode(side, tile, first..first + count, rows);
                }
                _ => {
                    let from = self.dims.offset(side as usize, head, start % self.dims.slots);
                    for (out, x) in rows.iter_mut().zip(&self.window[from..]) {
                        *out = x.widen();
                    }
                }
            }
            (start, out) = (start + count, rest);
        }
    }

    /// The tile that holds `position` of `head`.
    fn tile(&self, tiles: &'a [u8], meta: &PackedMeta, head: usize, position: usize) -> &'a [u8] {
        let bytes = meta.geometry.bytes();
        let ring = tiles.len() / bytes / (self.dims.batch * self.dims.kv_heads);
        let tile = head * ring + position / meta.geometry.tokens % ring;
        &tiles[tile * bytes..][..bytes]
    }
}
