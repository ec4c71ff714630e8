//! The arguments of the decode attention kernels.

use candle_core::Result;

use super::choice::{DecodeKernel, DecodeShape};
use super::scratch::Scratch;
use crate::cache::LayerView;
use crate::device::kernels::{Address, DeviceRepr, tensor_address};

/// How far a cache has grown. Mirrors `CacheLength` of kernels/include/kvprof/decode_params.cuh.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheLength {
    /// Positions below this are, or were, in tiles.
    pub quantized: i32,
    /// Positions from `quantized` to this are in the window; the last query is at `total - 1`.
    pub total: i32,
}

/// Mirrors `DecodeParams` of kernels/include/kvprof/decode_params.cuh, which says what the fields mean.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub struct DecodeParams {
    pub query: Address,
    pub out: Address,
    pub tiles: Address,
    pub window: Address,
    pub length: Address,
    pub partial_out: Address,
    pub partial_sums: Address,
    pub arrivals: Address,
    pub query_batch_stride: i32,
    pub query_head_stride: i32,
    pub query_token_stride: i32,
    pub out_batch_stride: i32,
    pub out_head_stride: i32,
    pub out_token_stride: i32,
    pub kv_heads: i32,
    pub heads_per_kv: i32,
    pub tokens: i32,
    pub tile_capacity: i32,
    pub window_capacity: i32,
    pub sliding_window: i32,
    pub fixed_length: CacheLength,
    pub softmax_scale: f32,
    pub tiles_expected: i32,
}

const _: () = assert!(size_of::<CacheLength>() == 8 && size_of::<DecodeParams>() == 128);

// SAFETY: plain numbers in the layout of the C++ struct of the same name (size asserted on both sides).
unsafe impl DeviceRepr for DecodeParams {}

impl DecodeKernel {
    /// The parameters for `view`. `query` and `out` are the addresses of contiguous `[B, Hq, T, D]`; `length` is that of a
    /// [`CacheLength`] in device memory, or 0 to read what the view holds now.
    ///
    /// # Errors
    /// When the buffers of the view are not on a CUDA device.
    pub fn params(
        &self,
        view: &LayerView<'_>,
        shape: &DecodeShape,
        [query, out, length]: [Address; 3],
        scratch: &Scratch,
        scale: f32,
    ) -> Result<DecodeParams> {
        let head = (shape.tokens * shape.head_dim) as i32;
        let (tiles, tile_capacity, filled) = match &view.packed {
            Some(packed) => {
                (tensor_address(packed.tiles)?, packed.tiles.dim(2)?, packed.positions.end / packed.geometry.tokens)
            }
            None => (0, 1, 0),
        };
        Ok(DecodeParams {
            query,
            out,
            tiles,
            window: tensor_address(view.window)?,
            length,
            partial_out: tensor_address(&scratch.out)?,
            partial_sums: tensor_address(&scratch.sums)?,
            arrivals: tensor_address(&scratch.arrivals)?,
            query_batch_stride: shape.heads as i32 * head,
            query_head_stride: head,
            query_token_stride: shape.head_dim as i32,
            out_batch_stride: shape.heads as i32 * head,
            out_head_stride: head,
            out_token_stride: shape.head_dim as i32,
            kv_heads: shape.kv_heads as i32,
            heads_per_kv: (shape.heads / shape.kv_heads) as i32,
            tokens: shape.tokens as i32,
            tile_capacity: tile_capacity as i32,
            window_capacity: view.window.dim(3)? as i32,
            sliding_window: view.sliding_window.unwrap_or(0) as i32,
            fixed_length: CacheLength {
                quantized: view.window_positions.start as i32,
                total: view.window_positions.end as i32,
            },
            softmax_scale: scale,
            tiles_expected: if view.sliding_window.is_some() { 0 } else { filled as i32 },
        })
    }
}
