//! Operations element by element between the products of a layer. On a GPU: kernels/elementwise.cu where it serves the tensor.

use candle_core::Tensor;
use candle_nn::{Linear, Module};

#[cfg(feature = "cuda")]
use super::elementwise_cuda;
use crate::Result;

/// SiLU(gate) · up of `x` `[.., 2n]`, which holds gate, then up: `[.., n]`.
///
/// # Errors
/// When the device fails.
pub(super) fn swiglu(x: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if elementwise_cuda::serves(x, 2) {
        return Ok(x.apply_op1_no_bwd(&elementwise_cuda::SwiGlu)?);
    }
    Ok(candle_nn::ops::swiglu(x)?)
}

/// `x + y`, of one shape.
///
/// # Errors
/// When the shapes differ, or the device fails.
pub(super) fn add(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if elementwise_cuda::serves(x, 1) && elementwise_cuda::serves(y, 1) && x.dims() == y.dims() {
        return Ok(x.apply_op2_no_bwd(y, &elementwise_cuda::Add)?);
    }
    Ok((x + y)?)
}

/// The linear map of `x` `[.., depth]`, its bias included.
///
/// # Errors
/// When the shapes do not fit, or the device fails.
pub(super) fn linear(map: &Linear, x: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if let Some(bias) = map.bias()
        && x.device().is_cuda()
    {
        let product = Linear::new(map.weight().clone(), None).forward(x)?;
        if elementwise_cuda::serves(&product, 1) && elementwise_cuda::serves(bias, 1) {
            return Ok(product.apply_op2_no_bwd(bias, &elementwise_cuda::Add)?);
        }
        return Ok(product.broadcast_add(bias)?);
    }
    Ok(map.forward(x)?)
}
