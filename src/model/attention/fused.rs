//! `fused`: attention that reads the packed codes inside its loop.

use candle_core::Tensor;

use super::Attention;
#[cfg(feature = "cuda")]
use super::decode::DecodeKernel;
use super::host::HostAttention;
use crate::Result;
use crate::cache::LayerView;

/// Unpacks codes group by group next to the arithmetic that needs them; for an unquantized layer, flash attention.
#[derive(Debug, Clone, Copy, Default)]
pub struct Fused;

impl Attention for Fused {
    fn name(&self) -> &'static str {
        "fused"
    }

    fn attend(&self, q: &Tensor, view: &LayerView<'_>, scale: f64) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if q.device().is_cuda() {
            return match super::decode::kernel_for(q.dims(), q.dtype(), view) {
                Ok(kernel) => Ok(super::decode::attend(q, view, scale, &kernel)?),
                Err(_) => super::Sdpa.attend(q, view, scale), // `kernel` says so, and why
            };
        }
        let visible = view.visible(q.dim(2)?);
        let mut attention = HostAttention {
            name: "fused-attention",
            scale: scale as f32,
            start: visible.start,
            end: visible.end,
            sliding_window: view.sliding_window,
            packed: None,
        };
        match &view.packed {
            Some(packed) if visible.start < packed.positions.end => {
                attention.packed = Some(packed.meta());
                Ok(attention.attend(q, view.window, Some(packed.tiles))?)
            }
            _ => Ok(attention.attend(q, view.window, None)?),
        }
    }

    fn kernel(&self, heads: usize, tokens: usize, view: &LayerView<'_>) -> String {
        #[cfg(feature = "cuda")]
        if let Some(kernel) = on_gpu(heads, tokens, view) {
            return match kernel {
                Ok(kernel) => kernel.kernel,
                Err(reason) => format!("{} ({reason})", super::Sdpa.kernel(heads, tokens, view)),
            };
        }
        let _ = (heads, tokens);
        match &view.packed {
            Some(_) => "packed online-softmax loop (CPU)".into(),
            None => "dense online-softmax loop (CPU)".into(),
        }
    }

    #[cfg(feature = "cuda")]
    fn fallback(&self, heads: usize, tokens: usize, view: &LayerView<'_>) -> Option<String> {
        on_gpu(heads, tokens, view)?.err()
    }
}

/// The kernel that attends to `view` on its GPU, or why there is none; `None` on a CPU.
#[cfg(feature = "cuda")]
fn on_gpu(heads: usize, tokens: usize, view: &LayerView<'_>) -> Option<Result<DecodeKernel, String>> {
    let (device, window) = (view.window.device(), view.window.dims());
    let q = [window[1], heads, tokens, window[4]];
    device.is_cuda().then(|| super::decode::kernel_for(&q, view.window.dtype(), view))
}
