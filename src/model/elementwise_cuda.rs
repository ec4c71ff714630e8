//! Operations element by element on the GPU: parameters and launches of kernels/elementwise.cu.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CudaStorage, CustomOp1, CustomOp2, DType, Layout, Result, Shape, Tensor, bail};

use crate::device::kernels::{Address, DeviceRepr, Launch, address, float_name, uninitialized};

/// Threads a block (`kElementwiseThreads`), and elements a thread.
const THREADS: u32 = 256;
const PIECE: usize = 8;

/// Mirrors `SwiGluParams` of kernels/include/kvprof/elementwise.cuh.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct SwiGluParams {
    x: Address,
    out: Address,
    pieces: u32,
    pieces_of_a_row: u32,
}

/// Mirrors `AddParams` of kernels/include/kvprof/elementwise.cuh.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct AddParams {
    x: Address,
    y: Address,
    out: Address,
    pieces: u32,
    pieces_of_y: u32,
}

const _: () = assert!(size_of::<SwiGluParams>() == 24 && size_of::<AddParams>() == 32);

// SAFETY: plain numbers in the layout of the C++ struct of the same name (size asserted on both sides).
unsafe impl DeviceRepr for SwiGluParams {}
// SAFETY: as above.
unsafe impl DeviceRepr for AddParams {}

/// Whether the kernels read `x`: whole pieces in each of the `parts` of its rows, one row after the other.
pub(super) fn serves(x: &Tensor, parts: usize) -> bool {
    let row = x.dims().last().copied().unwrap_or(0);
    x.device().is_cuda()
        && matches!(x.dtype(), DType::F16 | DType::BF16)
        && row > 0
        && row.is_multiple_of(parts * PIECE)
        && x.elem_count() / PIECE <= u32::MAX as usize
        && x.is_contiguous()
        && x.layout().start_offset().is_multiple_of(PIECE)
}

/// The launch of `operation` on the pieces of its result.
///
/// # Safety
/// As of [`Launch::enqueue`].
unsafe fn launch<P: DeviceRepr>(operation: &str, pieces: u32, on: &CudaStorage, params: &P) -> Result<()> {
    let launch = Launch {
        image: "elementwise",
        kernel: &format!("{operation}_{}", float_name(on.dtype())?),
        grid: [(pieces as usize).div_ceil(THREADS as usize), 1, 1],
        threads: THREADS,
        shared_bytes: 0,
    };
    // SAFETY: the caller vouches for it.
    unsafe { launch.enqueue(&on.device, params) }
}

/// The gated activation as one operation; its operand is one that [`serves`] two parts of.
pub(super) struct SwiGlu;

impl CustomOp1 for SwiGlu {
    fn name(&self) -> &'static str {
        "swiglu"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        bail!("this form of swiglu is for CUDA devices")
    }

    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let mut dims = layout.shape().dims().to_vec();
        let Some(width) = dims.last_mut() else { bail!("swiglu of a scalar") };
        *width /= 2;
        let pieces_of_a_row = (*width / PIECE) as u32;
        let shape = Shape::from(dims);
        let out = uninitialized(&x.device, x.dtype(), shape.elem_count())?;
        let pieces = (shape.elem_count() / PIECE) as u32;
        let params = SwiGluParams {
            x: address(x, layout)?,
            out: address(&out, &Layout::contiguous(&shape))?,
            pieces,
            pieces_of_a_row,
        };
        // SAFETY: `x` is contiguous with two halves of whole pieces in each row; each thread reads a piece of either half and
        // writes the piece of `out` that belongs to them.
        unsafe { launch("swiglu", pieces, x, &params) }?;
        Ok((out, shape))
    }
}

/// The sum as one operation; its operands are ones that [`serves`], the second as long as the first or as its rows.
pub(super) struct Add;

impl CustomOp2 for Add {
    fn name(&self) -> &'static str {
        "add"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        bail!("this form of add is for CUDA devices")
    }

    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        layout: &Layout,
        y: &CudaStorage,
        y_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let (shape, repeated) = (layout.shape().clone(), y_layout.shape().elem_count());
        if x.dtype() != y.dtype() || repeated == 0 || !shape.elem_count().is_multiple_of(repeated) {
            bail!("{shape:?} of {:?} and {:?} of {:?} do not add up", x.dtype(), y_layout.shape(), y.dtype());
        }
        let out = uninitialized(&x.device, x.dtype(), shape.elem_count())?;
        let pieces = (shape.elem_count() / PIECE) as u32;
        let params = AddParams {
            x: address(x, layout)?,
            y: address(y, y_layout)?,
            out: address(&out, &Layout::contiguous(&shape))?,
            pieces,
            pieces_of_y: (repeated / PIECE) as u32,
        };
        // SAFETY: both are contiguous and whole pieces long; each thread reads a piece of either, of `y` below its length, and writes
        // one of `out`, which is as long as `x`.
        unsafe { launch("add", pieces, x, &params) }?;
        Ok((out, shape))
    }
}
