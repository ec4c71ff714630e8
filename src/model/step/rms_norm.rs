//! The step's RMS norm over many tokens, as one operation.

use candle_core::backend::{BackendDevice, BackendStorage};
use candle_core::{CpuStorage, CudaStorage, CustomOp2, DType, Layout, Shape, Tensor, bail};

use super::params::{MAX_HIDDEN, NORM_THREADS, RmsNormParams};
use crate::Result;
use crate::device::kernels::{Launch, address, float_name};

/// Whether the kernel normalizes rows of `x` with the weights `gain`.
pub(in crate::model) fn serves(x: &Tensor, gain: &Tensor) -> bool {
    let depth = gain.elem_count();
    let aligned = |x: &Tensor| x.is_contiguous() && x.layout().start_offset().is_multiple_of(8);
    x.device().is_cuda()
        && matches!(x.dtype(), DType::F16 | DType::BF16)
        && x.dtype() == gain.dtype()
        && x.dims().last() == Some(&depth)
        && depth.is_multiple_of(8)
        && (1..=MAX_HIDDEN).contains(&depth)
        && aligned(x)
        && aligned(gain)
}

/// `x` `[.., depth]` divided by the root mean square of each row, times `gain` `[depth]`; both are ones that [`serves`].
///
/// # Errors
/// When the device fails.
pub(in crate::model) fn forward(x: &Tensor, gain: &Tensor, eps: f64) -> Result<Tensor> {
    Ok(x.apply_op2_no_bwd(gain, &RmsNorm { epsilon: eps as f32 })?)
}

struct RmsNorm {
    epsilon: f32,
}

impl CustomOp2 for RmsNorm {
    fn name(&self) -> &'static str {
        "rms-norm"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        bail!("this form of the norm is for CUDA devices")
    }

    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        layout: &Layout,
        gain: &CudaStorage,
        gain_layout: &Layout,
    ) -> candle_core::Result<(CudaStorage, Shape)> {
        let (shape, depth) = (layout.shape().clone(), gain_layout.shape().elem_count());
        // SAFETY: the kernel below writes every element before anything can read it on the device's only stream.
        let out = unsafe { x.device.alloc_uninit(&shape, x.dtype()) }?;
        let params = RmsNormParams {
            x: address(x, layout)?,
            gain: address(gain, gain_layout)?,
            out: address(&out, &Layout::contiguous(&shape))?,
            tokens: 0,
            stream: 0,
            depth: depth as i32,
            epsilon: self.epsilon,
        };
        let launch = Launch {
            image: "step",
            kernel: &format!("kvprof_rms_norm_{}", float_name(x.dtype())?),
            grid: [shape.elem_count() / depth, 1, 1],
            threads: NORM_THREADS,
            shared_bytes: 0,
        };
        // SAFETY: `serves` found rows of `depth` elements, one after the other, and as many weights; each block reads one row and
        // writes the same row of `out`.
        unsafe { launch.enqueue(&x.device, &params) }?;
        Ok((out, shape))
    }
}
