//! The gated activation of an MLP.

use candle_core::Tensor;

use crate::Result;

/// SiLU(gate) · up of `x` `[.., 2n]`, which holds gate, then up: `[.., n]`.
///
/// # Errors
/// When the device fails.
pub(super) fn swiglu(x: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if cuda::serves(x) {
        return Ok(x.apply_op1_no_bwd(&cuda::SwiGlu)?);
    }
    Ok(candle_nn::ops::swiglu(x)?)
}

#[cfg(feature = "cuda")]
mod cuda {
    use candle_core::backend::{BackendDevice, BackendStorage};
    use candle_core::{CpuStorage, CudaStorage, CustomOp1, DType, Layout, Result, Shape, Tensor, bail};

    use crate::device::kernels::{Address, DeviceRepr, Launch, address, float_name};

    /// Threads a block (`kActivationThreads`), and elements a thread.
    const THREADS: u32 = 256;
    const PIECE: usize = 8;

    /// Mirrors `SwiGluParams` of kernels/include/kvprof/activation.cuh.
    #[repr(C)]
    #[derive(Debug, Clone, Copy)]
    struct SwiGluParams {
        x: Address,
        out: Address,
        rows: i32,
        pieces: i32,
    }

    const _: () = assert!(size_of::<SwiGluParams>() == 24);

    // SAFETY: plain numbers in the layout of the C++ struct of the same name (size asserted on both sides).
    unsafe impl DeviceRepr for SwiGluParams {}

    /// Whether kernels/activation.cu has an entry for `x`.
    pub(super) fn serves(x: &Tensor) -> bool {
        let width = x.dims().last().copied().unwrap_or(0);
        let aligned = x.layout().start_offset().is_multiple_of(PIECE);
        x.device().is_cuda()
            && matches!(x.dtype(), DType::F16 | DType::BF16)
            && width > 0
            && width.is_multiple_of(2 * PIECE)
            && x.is_contiguous()
            && aligned
    }

    /// The activation as one operation on a contiguous tensor.
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
            let pieces = *width / PIECE;
            let shape = Shape::from(dims);
            let rows = shape.elem_count() / (pieces * PIECE);
            let device = &x.device;
            // SAFETY: the kernel below writes every element before anything can read it on the device's only stream.
            let out = unsafe { device.alloc_uninit(&shape, x.dtype()) }?;
            let params = SwiGluParams {
                x: address(x, layout)?,
                out: address(&out, &Layout::contiguous(&shape))?,
                rows: rows as i32,
                pieces: pieces as i32,
            };
            let launch = Launch {
                image: "activation",
                kernel: &format!("swiglu_{}", float_name(x.dtype())?),
                grid: [(rows * pieces).div_ceil(THREADS as usize), 1, 1],
                threads: THREADS,
                shared_bytes: 0,
            };
            // SAFETY: `x` is contiguous with rows of 2·pieces·8 elements (`serves`); each thread reads 16 bytes of either half
            // of a row and writes the 16 bytes of `out` that belong to them.
            unsafe { launch.enqueue(device, &params) }?;
            Ok((out, shape))
        }
    }
}
