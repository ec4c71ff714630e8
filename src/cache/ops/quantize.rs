//! Blocks of tokens out of the window into tiles.

use std::ops::Range;

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, InplaceOp2, Layout, Result, Tensor, bail};
use rayon::prelude::*;

use super::{WindowDims, check_whole};
use crate::cache::host::fit_of;
use crate::device::ranges::{self, Part};
use crate::quant::codec::{Side, TileCodec};
use crate::quant::real::with_real;
use crate::quant::{Fit, QuantSpec, Real, TileGeometry};

/// Quantizes `positions`, whole blocks that are all in `window` `[2, B, Hkv, W, D]`, into their places in the ring `tiles`
/// `[B, Hkv, tiles, tile bytes]`.
///
/// # Errors
/// When shapes disagree or `positions` are not whole blocks.
pub fn quantize_blocks(
    tiles: &Tensor,
    window: &Tensor,
    spec: &QuantSpec,
    geometry: TileGeometry,
    positions: Range<usize>,
) -> Result<()> {
    let _range = ranges::enter(Part::Quantize);
    check_whole(tiles, "tiles")?;
    check_whole(window, "window")?;
    let dims = WindowDims::of(window.shape())?;
    let (batch, heads, ring, bytes) = tiles.dims4()?;
    let block = geometry.tokens;
    if (batch, heads, bytes) != (dims.batch, dims.kv_heads, geometry.bytes()) {
        bail!("tiles {:?} of {} bytes do not fit a window {:?}", tiles.shape(), geometry.bytes(), window.shape());
    }
    if !positions.start.is_multiple_of(block) || !positions.end.is_multiple_of(block) || positions.len() > dims.slots {
        bail!("positions {positions:?} are not whole blocks of {block} tokens in a window of {}", dims.slots);
    }
    // Of more blocks than the ring holds (a sliding window, a long chunk) only the last survive.
    let last = positions.end / block;
    let first = (positions.start / block).max(last.saturating_sub(ring));
    tiles.inplace_op2(window, &QuantizeBlocks { geometry, fit: fit_of(spec), blocks: first..last })
}

struct QuantizeBlocks {
    geometry: TileGeometry,
    fit: Fit,
    blocks: Range<usize>,
}

impl QuantizeBlocks {
    fn host<P: Real>(&self, tiles: &mut [u8], ring: usize, window: &[P], dims: WindowDims) {
        let first = self.blocks.start;
        tiles.par_chunks_mut(self.geometry.bytes()).enumerate().for_each(|(index, tile)| {
            let (head, tile_index) = (index / ring, index % ring);
            // The one block of this call whose place is this tile, if there is one.
            let block = first + (tile_index + ring - first % ring) % ring;
            if block >= self.blocks.end {
                return;
            }
            let mut codec = TileCodec::<P>::new(self.geometry, self.fit);
            for side in Side::BOTH {
                let rows = (block * self.geometry.tokens..(block + 1) * self.geometry.tokens).map(|position| {
                    let from = dims.offset(side as usize, head, position % dims.slots);
                    &window[from..from + dims.head_dim]
                });
                codec.encode(side, rows, tile);
            }
        });
    }
}

impl InplaceOp2 for QuantizeBlocks {
    fn name(&self) -> &'static str {
        "quantize-blocks"
    }

    fn cpu_fwd(
        &self,
        tiles: &mut CpuStorage,
        tiles_layout: &Layout,
        window: &CpuStorage,
        window_layout: &Layout,
    ) -> Result<()> {
        let dims = WindowDims::of(window_layout.shape())?;
        let ring = tiles_layout.dims()[2];
        let CpuStorage::U8(tiles) = tiles else { bail!("tiles are bytes, not {:?}", tiles.dtype()) };
        with_real!(window.dtype(), P => self.host(tiles, ring, <P as Real>::slice(window)?, dims));
        Ok(())
    }
    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        tiles: &mut CudaStorage,
        tiles_layout: &Layout,
        window: &CudaStorage,
        window_layout: &Layout,
    ) -> Result<()> {
        let blocks = self.blocks.clone();
        super::cuda::quantize((tiles, tiles_layout), (window, window_layout), &self.geometry, self.fit, blocks)
    }
}
