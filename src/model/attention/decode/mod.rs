//! Decode attention on a CUDA device: one launch that reads packed tiles and the dense window (kernels/decode_*.cu).

mod choice;
mod params;
mod scratch;

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CudaDevice, CudaStorage, CustomOp1, DType, Device, Layout, Result, Shape, Tensor, bail};

use self::choice::UNIT_TOKENS;
pub use self::choice::{DecodeKernel, DecodeShape};
pub use self::params::{CacheLength, DecodeParams};
pub use self::scratch::Scratch;
use crate::cache::LayerView;
use crate::device::DeviceLimits;
use crate::device::kernels::address;

/// The shape of attending with `q` `[B, Hq, T, D]` to `view`.
///
/// # Errors
/// When the two do not fit.
pub fn shape_of(q: &[usize], dtype: DType, view: &LayerView<'_>) -> Result<DecodeShape> {
    let (&[batch, heads, tokens, head_dim], &[2, window_batch, kv_heads, slots, channels]) = (q, view.window.dims())
    else {
        bail!("queries are [B, Hq, T, D] and a window [2, B, Hkv, W, D], not {q:?} and {:?}", view.window.shape());
    };
    if (batch, head_dim) != (window_batch, channels) || heads % kv_heads != 0 || slots < UNIT_TOKENS {
        bail!("queries {q:?} do not fit a window {:?}", view.window.shape());
    }
    if tokens == 0 || tokens > view.window_positions.len() || view.window_positions.len() > slots {
        bail!("{tokens} queries over a window that holds positions {:?}", view.window_positions);
    }
    if dtype != view.window.dtype() {
        bail!("queries of {dtype:?} over a cache of {:?}", view.window.dtype());
    }
    if !view.window.is_contiguous() || view.packed.as_ref().is_some_and(|packed| !packed.tiles.is_contiguous()) {
        bail!("the buffers of a cache are contiguous");
    }
    if let Some(packed) = &view.packed {
        let (of_batch, of_heads, _, bytes) = packed.tiles.dims4()?;
        if (of_batch, of_heads, bytes, packed.geometry.channels) != (batch, kv_heads, packed.geometry.bytes(), head_dim)
        {
            bail!("tiles {:?} do not fit a window {:?}", packed.tiles.shape(), view.window.shape());
        }
    }
    Ok(DecodeShape { batch, heads, kv_heads, tokens, head_dim, dtype, capacity: view.positions().len() })
}

/// The kernel that attends with T `tokens` and Hq `heads` to `view`, or why there is none.
///
/// # Errors
/// The reason, for people.
pub(super) fn kernel_for(q: &[usize], dtype: DType, view: &LayerView<'_>) -> std::result::Result<DecodeKernel, String> {
    let Device::Cuda(device) = view.window.device() else { return Err("the cache is not on a CUDA device".into()) };
    let shape = shape_of(q, dtype, view).map_err(|e| e.to_string())?;
    let limits = DeviceLimits::of(device).map_err(|e| e.to_string())?;
    DecodeKernel::choose(view.packed.as_ref().map(|p| &p.geometry), &shape, limits)
}

/// Attends with `q` `[B, Hq, T, D]` to everything `view` holds; the result is `[B, Hq, T, D]`.
///
/// # Errors
/// When shapes or dtypes do not fit; out of memory; a refused launch.
pub(super) fn attend(q: &Tensor, view: &LayerView<'_>, scale: f64, kernel: &DecodeKernel) -> Result<Tensor> {
    let shape = shape_of(q.dims(), q.dtype(), view)?;
    let scratch = Scratch::shared(kernel, &shape, q.device())?;
    let params = kernel.params(view, &shape, [0; 3], &scratch, scale as f32)?;
    q.contiguous()?.apply_op1_no_bwd(&Decode { kernel, params })
}

/// The launch, with everything but the addresses of queries and output.
struct Decode<'a> {
    kernel: &'a DecodeKernel,
    params: DecodeParams,
}

impl CustomOp1 for Decode<'_> {
    fn name(&self) -> &'static str {
        "fused-decode-attention"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        bail!("{} runs on CUDA devices only", self.kernel.kernel)
    }

    fn cuda_fwd(&self, q: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let device: &CudaDevice = &q.device;
        let shape = layout.shape().clone();
        // SAFETY: written in full by the launch below, before anything else on the device's only stream can read it.
        let out = unsafe { candle_core::backend::BackendDevice::alloc_uninit(device, &shape, q.dtype()) }?;
        let params = DecodeParams {
            query: address(q, layout)?,
            out: address(&out, &Layout::contiguous(&shape))?,
            ..self.params
        };
        // SAFETY: `shape_of` checked that queries, window and tiles fit each other and are contiguous; the lengths are those of
        // the view, so every slot and tile read is inside its ring; the scratch was sized for this grid. All of it is used
        // on the device's only stream.
        unsafe { self.kernel.launch().enqueue(device, &params) }?;
        Ok((out, shape))
    }
}
