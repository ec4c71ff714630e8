//! `fused`: attention that reads the packed codes inside its loop.

use candle_core::Tensor;

use super::Attention;
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
        if view.window.device().is_cuda() {
            let window = view.window.dims();
            return match super::decode::kernel_for(&[window[1], heads, tokens, window[4]], view.window.dtype(), view) {
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
        let window = view.window.dims();
        let on_gpu = view.window.device().is_cuda();
        let kernel = || super::decode::kernel_for(&[window[1], heads, tokens, window[4]], view.window.dtype(), view);
        on_gpu.then(kernel)?.err()
    }
}
