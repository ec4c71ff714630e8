//! The Hadamard transform on the GPU: parameters and launch of kernels/hadamard.cu.

use candle_core::backend::BackendStorage;
use candle_core::{CudaStorage, Layout, Result, Shape, bail};

use crate::cache::GPU_HEAD_DIMS;
use crate::device::kernels::{Address, DeviceRepr, Launch, Strides, address, float_name, uninitialized};

/// Threads a block, and rows a block, as the kernels are compiled for (`kHadamardThreads`).
pub(super) const THREADS: u32 = 128;
pub(super) const ROWS: usize = 4;

/// Mirrors `HadamardParams` of kernels/include/kvprof/hadamard.cuh.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct HadamardParams {
    x: Address,
    out: Address,
    strides: Strides,
    heads: i32,
    tokens: i32,
}

const _: () = assert!(size_of::<HadamardParams>() == 48);

// SAFETY: plain numbers in the layout of the C++ struct of the same name (size asserted on both sides).
unsafe impl DeviceRepr for HadamardParams {}

/// The transformed rows of `x` `[a, b, c, D]`, f16 or bf16, D 64 or 128.
pub(super) fn rows(x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
    let (outer, heads, tokens, channels) = layout.shape().dims4()?;
    if !GPU_HEAD_DIMS.contains(&channels) {
        bail!("no Hadamard kernel for heads of {channels} channels");
    }
    let out = uninitialized(&x.device, x.dtype(), layout.shape().elem_count())?;
    let params = HadamardParams {
        x: address(x, layout)?,
        out: address(&out, &Layout::contiguous(layout.shape()))?,
        strides: Strides::of(layout)?,
        heads: heads as i32,
        tokens: tokens as i32,
    };
    let launch = Launch {
        image: "hadamard",
        kernel: &format!("hadamard_{}_d{channels}", float_name(x.dtype())?),
        grid: [(heads * tokens).div_ceil(ROWS), outer, 1],
        threads: THREADS,
        shared_bytes: 0,
    };
    // SAFETY: the kernel reads rows of D elements through the strides of `x` and writes each of the a·b·c rows of `out` once.
    unsafe { launch.enqueue(&x.device, &params) }?;
    Ok((out, layout.shape().clone()))
}
