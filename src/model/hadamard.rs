//! The Hadamard transform of the heads that a cache keeps transformed (`quant::hadamard`).

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};
use rayon::prelude::*;

use crate::Result;
use crate::device::ranges::{self, Part};
use crate::quant::Real;
use crate::quant::hadamard::transform;
use crate::quant::real::with_real;

/// Transforms the rows of `x` `[a, b, c, D]` (any strides, D innermost and a power of two), in f32. The result is contiguous, in the dtype of `x`.
///
/// # Errors
/// A dtype that is not a float type; on a GPU also one that no kernel serves (f32, heads other than 64 or 128 channels).
pub fn rows(x: &Tensor) -> Result<Tensor> {
    let _range = ranges::enter(Part::Elementwise);
    let innermost = if x.stride()[3] == 1 { x.clone() } else { x.contiguous()? };
    Ok(innermost.apply_op1_no_bwd(&HadamardTransform)?)
}

/// The transform as one operation. On the GPU: kernels/hadamard.cu.
struct HadamardTransform;

impl CustomOp1 for HadamardTransform {
    fn name(&self) -> &'static str {
        "hadamard-transform"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        with_real!(candle_core::backend::BackendStorage::dtype(x), P => {
            let out = host::<P>(P::slice(x)?, layout)?;
            Ok((<P as candle_core::WithDType>::to_cpu_storage_owned(out), layout.shape().clone()))
        })
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> candle_core::Result<(CudaStorage, Shape)> {
        super::hadamard_cuda::rows(x, layout)
    }
}

fn host<P: Real>(x: &[P], layout: &Layout) -> candle_core::Result<Vec<P>> {
    let (_, b, c, channels) = layout.shape().dims4()?;
    let strides = layout.stride();
    let mut out = vec![P::narrow(0.0); layout.shape().elem_count()];
    out.par_chunks_mut(channels).enumerate().for_each_init(
        || vec![0f32; channels],
        |row, (index, out)| {
            let start = layout.start_offset()
                + index / c / b * strides[0]
                + index / c % b * strides[1]
                + index % c * strides[2];
            row.iter_mut().zip(&x[start..]).for_each(|(wide, x)| *wide = x.widen());
            transform(row);
            out.iter_mut().zip(&*row).for_each(|(out, wide)| *out = P::narrow(*wide));
        },
    );
    Ok(out)
}

#[cfg(test)]
mod tests {
    use candle_core::{D, Device};

    use super::*;

    #[test]
    fn rows_of_a_strided_view_are_transformed_and_a_second_time_back() {
        let fused = Tensor::rand(-1f32, 1.0, (2, 5, 6, 64), &Device::Cpu).unwrap();
        let view = fused.transpose(1, 2).unwrap().narrow(1, 1, 4).unwrap();
        let once = rows(&view).unwrap();
        assert!(once.is_contiguous());
        assert_eq!(once.dims(), [2, 4, 5, 64]);
        let difference = |a: &Tensor, b: &Tensor| {
            (a - b).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar::<f32>().unwrap()
        };
        assert!(difference(&once, &view) > 0.1);
        assert!(difference(&rows(&once).unwrap(), &view) < 1e-6);
        let products = |x: &Tensor| (x * x).unwrap().sum(D::Minus1).unwrap();
        assert!(difference(&products(&once), &products(&view)) < 1e-4);
    }
}
