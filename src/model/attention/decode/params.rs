//! The arguments of the decode attention kernels.

use crate::device::kernels::{Address, DeviceRepr};

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
