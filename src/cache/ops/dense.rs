//! A range of positions of a layer as one dense tensor: what `eager` and `sdpa` attend to.

use std::ops::Range;

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, WithDType, bail};
use rayon::prelude::*;

use super::{WindowDims, check_whole};
use crate::cache::LayerView;
use crate::cache::host::{HostLayer, PackedMeta};
use crate::device::ranges::{self, Part};
use crate::quant::Real;
use crate::quant::codec::Side;
use crate::quant::real::with_real;

/// Keys and values of `positions` as `[2 (K, V), B, Hkv, S, D]` in the window's dtype, oldest first; codes are dequantized.
///
/// # Errors
/// When the view does not hold all of `positions`.
pub fn dense(view: &LayerView<'_>, positions: Range<usize>) -> Result<Tensor> {
    check_whole(view.window, "window")?;
    let held = view.positions();
    if positions.start < held.start || positions.end > held.end || positions.is_empty() {
        bail!("positions {positions:?} asked of a layer that holds {held:?}");
    }
    match &view.packed {
        Some(packed) if positions.start < packed.positions.end => {
            check_whole(packed.tiles, "tiles")?;
            let _range = ranges::enter(Part::Dequantize);
            view.window.apply_op2_no_bwd(packed.tiles, &Dense { positions, packed: Some(packed.meta()) })
        }
        _ => {
            // Nothing but a copy, though the same kernel makes it.
            let _range = ranges::enter(Part::Cache);
            view.window.apply_op1_no_bwd(&Dense { positions, packed: None })
        }
    }
}

struct Dense {
    positions: Range<usize>,
    packed: Option<PackedMeta>,
}

impl Dense {
    fn host<P: Real>(&self, window: &[P], dims: WindowDims, tiles: &[u8]) -> (CpuStorage, Shape) {
        let layer = HostLayer::new(window, dims, self.packed.as_ref().map(|meta| (tiles, meta)));
        let row = self.positions.len() * dims.head_dim;
        let heads = dims.batch * dims.kv_heads;
        let mut out = vec![P::zero(); 2 * heads * row];
        out.par_chunks_mut(row).enumerate().for_each(|(index, out)| {
            let mut codec = layer.codec();
            let mut rows = Vec::new();
            let mut start = self.positions.start;
            let mut out = out;
            while start < self.positions.end {
                let count = layer.run(start, self.positions.end - start);
                rows.resize(count * dims.head_dim, 0.0);
                layer.read(&mut codec, Side::BOTH[index / heads], index % heads, start..start + count, &mut rows);
                let (done, rest) = out.split_at_mut(rows.len());
                done.iter_mut().zip(&rows).for_each(|(out, x)| *out = P::narrow(*x));
                (start, out) = (start + count, rest);
            }
        });
        let shape = Shape::from((2, dims.batch, dims.kv_heads, self.positions.len(), dims.head_dim));
        (P::to_cpu_storage_owned(out), shape)
    }
}

/// Nothing is packed: a copy out of the ring.
impl CustomOp1 for Dense {
    fn name(&self) -> &'static str {
        "dense-window"
    }

    fn cpu_fwd(&self, window: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let dims = WindowDims::of(layout.shape())?;
        with_real!(window.dtype(), P => Ok(self.host(<P as Real>::slice(window)?, dims, &[])))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, window: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        super::cuda::dense((window, layout), None, self.positions.clone())
    }
}

/// Window and tiles.
impl CustomOp2 for Dense {
    fn name(&self) -> &'static str {
        "dequantize"
    }

    fn cpu_fwd(
        &self,
        window: &CpuStorage,
        layout: &Layout,
        tiles: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let dims = WindowDims::of(layout.shape())?;
        let tiles = u8::cpu_storage_as_slice(tiles)?;
        with_real!(window.dtype(), P => Ok(self.host(<P as Real>::slice(window)?, dims, tiles)))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        window: &CudaStorage,
        layout: &Layout,
        tiles: &CudaStorage,
        tiles_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let packed = self.packed.as_ref().map(|meta| ((tiles, tiles_layout), &meta.geometry, meta.positions.end));
        super::cuda::dense((window, layout), packed, self.positions.clone())
    }
}
