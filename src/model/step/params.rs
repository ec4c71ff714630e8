//! Arguments of the step kernels, field by field as in kernels/include/kvprof/{gemv,step}.cuh. Addresses are of device memory.

use crate::device::kernels::{Address, DeviceRepr};

/// Threads of a normalization block (`kNormThreads` in kernels/include/kvprof/step.cuh).
pub(super) const NORM_THREADS: u32 = 512;
/// Longest row that normalization takes: 4 pieces of 8 elements a thread.
pub(super) const MAX_HIDDEN: usize = NORM_THREADS as usize * 4 * 8;

/// Threads of a block that normalizes heads, a warp each (`kHeadNormThreads`).
pub(super) const HEAD_NORM_THREADS: u32 = 128;

/// `GemvInput`: what is multiplied.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct GemvInput {
    pub weight: Address,
    pub x: Address,
    pub rows: i32,
    pub depth: i32,
    pub batch: i32,
    pub tiles: i32,
}

/// `LinearAddParams`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct LinearAddParams {
    pub input: GemvInput,
    pub stream: Address,
}

/// `GateUpParams`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct GateUpParams {
    pub input: GemvInput,
    pub out: Address,
}

/// `QkvParams`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct QkvParams {
    pub input: GemvInput,
    pub bias: Address,
    pub cosine: Address,
    pub sine: Address,
    pub query: Address,
    pub window: Address,
    pub length: Address,
    pub not_finite: Address,
    pub heads: i32,
    pub kv_heads: i32,
    pub head_dim: i32,
    pub window_capacity: i32,
    pub layer: i32,
    pub unrotated: i32,
}

/// `HeadNormParams`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct HeadNormParams {
    pub gain: Address,
    pub cosine: Address,
    pub sine: Address,
    pub query: Address,
    pub window: Address,
    pub length: Address,
    pub not_finite: Address,
    pub batch: i32,
    pub heads: i32,
    pub kv_heads: i32,
    pub head_dim: i32,
    pub window_capacity: i32,
    pub layer: i32,
    pub epsilon: f32,
    pub reserved: i32,
}

/// `StepHadamardParams` (kernels/include/kvprof/hadamard.cuh).
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct StepHadamardParams {
    pub query: Address,
    pub window: Address,
    pub length: Address,
    pub not_finite: Address,
    pub batch: i32,
    pub heads: i32,
    pub kv_heads: i32,
    pub head_dim: i32,
    pub window_capacity: i32,
    pub layer: i32,
    pub keys: i32,
    pub values: i32,
}

/// `LogitsParams`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct LogitsParams {
    pub input: GemvInput,
    pub logits: Address,
    pub best: Address,
}

/// `RmsNormParams`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct RmsNormParams {
    pub x: Address,
    pub gain: Address,
    pub out: Address,
    pub tokens: Address,
    pub stream: Address,
    pub depth: i32,
    pub epsilon: f32,
}

/// `NextTokenParams`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct NextTokenParams {
    pub best: Address,
    pub tokens: Address,
    pub history: Address,
    pub lengths: Address,
    pub batch: i32,
    pub capacity: i32,
    pub length_count: i32,
    pub reserved: i32,
}

const _: () = assert!(size_of::<GemvInput>() == 32);
const _: () = assert!(size_of::<LinearAddParams>() == 40);
const _: () = assert!(size_of::<GateUpParams>() == 40);
const _: () = assert!(size_of::<QkvParams>() == 112);
const _: () = assert!(size_of::<HeadNormParams>() == 88);
const _: () = assert!(size_of::<StepHadamardParams>() == 64);
const _: () = assert!(size_of::<LogitsParams>() == 48);
const _: () = assert!(size_of::<RmsNormParams>() == 48);
const _: () = assert!(size_of::<NextTokenParams>() == 48);

// SAFETY: each mirrors the C++ struct of its name (sizes are asserted here and there) and holds numbers and addresses only.
unsafe impl DeviceRepr for LinearAddParams {}
// SAFETY: as above.
unsafe impl DeviceRepr for GateUpParams {}
// SAFETY: as above.
unsafe impl DeviceRepr for QkvParams {}
// SAFETY: as above.
unsafe impl DeviceRepr for HeadNormParams {}
// SAFETY: as above.
unsafe impl DeviceRepr for StepHadamardParams {}
// SAFETY: as above.
unsafe impl DeviceRepr for LogitsParams {}
// SAFETY: as above.
unsafe impl DeviceRepr for RmsNormParams {}
// SAFETY: as above.
unsafe impl DeviceRepr for NextTokenParams {}
