//! The rotary embedding on the GPU: parameters and launch of kernels/rope.cu.

use candle_core::backend::BackendStorage;
use candle_core::{CudaStorage, DType, Layout, Result, Shape, bail};

use super::norm::QkNorm;
use crate::device::kernels::{self, Address, DeviceRepr, Launch, Strides, address};

/// Threads a block, and rows a block, as the kernel is compiled for (`kRopeThreads`).
const THREADS: u32 = 128;
const ROWS: usize = 4;

/// Mirrors `RopeParams` of kernels/include/kvprof/rope.cuh.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct RopeParams {
    x: Address,
    out: Address,
    cos: Address,
    sin: Address,
    gain: Address,
    strides: Strides,
    heads: i32,
    new_tokens: i32,
    first_position: i32,
    epsilon: f32,
}

const _: () = assert!(size_of::<RopeParams>() == 80);

// SAFETY: plain numbers in the layout of the C++ struct of the same name (size asserted on both sides).
unsafe impl DeviceRepr for RopeParams {}

/// Rotates `x` `[B, H, T, D]`, f16 or bf16, D 64 or 128, by rows `position..position + T` of the f32 tables, which the caller
/// has checked to be there; before that, each row is normalized if there is a `norm`.
pub(super) fn rotate(
    (x, layout): (&CudaStorage, &Layout),
    (cos, cos_layout): (&CudaStorage, &Layout),
    (sin, sin_layout): (&CudaStorage, &Layout),
    position: usize,
    norm: Option<&QkNorm>,
) -> Result<(CudaStorage, Shape)> {
    let (batch, heads, tokens, head_dim) = layout.shape().dims4()?;
    let dtype = kernels::float_name(x.dtype())?;
    if !(cos_layout.is_contiguous() && sin_layout.is_contiguous()) {
        bail!("RoPE tables must be contiguous");
    }
    if let Some(norm) = norm
        && (norm.weights.dims() != [heads, 1, head_dim] || norm.weights.dtype() != x.dtype())
    {
        bail!("weights {:?} of a norm for {heads} heads of {head_dim} channels", norm.weights.shape());
    }
    let device = x.device.clone();
    let count = layout.shape().elem_count();
    // SAFETY: the kernel below writes every element before anything can read it on the device's only stream.
    let out = unsafe {
        match x.dtype() {
            DType::BF16 => CudaStorage::wrap_cuda_slice(device.alloc::<half::bf16>(count)?, device),
            _ => CudaStorage::wrap_cuda_slice(device.alloc::<half::f16>(count)?, device),
        }
    };
    let params = RopeParams {
        x: address(x, layout)?,
        out: address(&out, &Layout::contiguous(layout.shape()))?,
        cos: address(cos, cos_layout)?,
        sin: address(sin, sin_layout)?,
        gain: norm.map_or(Ok(0), |norm| kernels::tensor_address(&norm.weights))?,
        strides: Strides::of(layout)?,
        heads: heads as i32,
        new_tokens: tokens as i32,
        first_position: position as i32,
        epsilon: norm.map_or(0.0, |norm| norm.eps() as f32),
    };
    let launch = Launch {
        image: "rope",
        kernel: &format!("rope_{dtype}_d{head_dim}"),
        grid: [(tokens * heads).div_ceil(ROWS), batch, 1],
        threads: THREADS,
        shared_bytes: 0,
    };
    // SAFETY: the kernel reads rows of D elements through the strides of `x`, rows below `position + T` of the tables and a row
    // of weights a head (checked above), and writes each of the B·H·T rows of `out` once.
    unsafe { launch.enqueue(&x.device, &params) }?;
    Ok((out, layout.shape().clone()))
}
