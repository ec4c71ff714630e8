//! `sdpa`: everything dense, then one fused pass of attention over it.

use candle_core::Tensor;

use super::Attention;
use super::host::HostAttention;
use crate::Result;
use crate::cache::{LayerView, ops};
#[cfg(feature = "cuda")]
use crate::device::kernels::float_name;

/// Dequantize into scratch, then a dense attention with a running softmax: scores are never all in memory.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sdpa;

impl Attention for Sdpa {
    fn name(&self) -> &'static str {
        "sdpa"
    }

    fn attend(&self, q: &Tensor, view: &LayerView<'_>, scale: f64) -> Result<Tensor> {
        let visible = view.visible(q.dim(2)?);
        let mut attention = HostAttention {
            name: "sdpa-attention",
            scale: scale as f32,
            start: visible.start,
            end: visible.end,
            sliding_window: view.sliding_window,
            packed: None,
        };
        if visible.start >= view.window_positions.start {
            // Everything visible is dense already, in the window.
            return Ok(attention.attend(q, view.window, None)?);
        }
        // The scratch is a window whose first slot holds position 0; only differences of positions matter.
        (attention.start, attention.end) = (0, visible.len());
        let dense = ops::dense(view, visible)?;
        Ok(attention.attend(q, &dense, None)?)
    }

    fn kernel(&self, _heads: usize, tokens: usize, view: &LayerView<'_>) -> String {
        let packed = view.visible(tokens).start < view.window_positions.start;
        #[cfg(feature = "cuda")]
        if view.window.device().is_cuda() {
            let window = view.window;
            let found = super::flash::kernel_for(window).and_then(|kernel| Ok((float_name(window.dtype())?, kernel)));
            return match found {
                Ok((float, kernel)) if packed => format!("dequantize_{float}_d{} + {kernel}", window.dims()[4]),
                Ok((_, kernel)) => kernel,
                Err(error) => format!("none: {error}"),
            };
        }
        let dequantize = if packed { "dequantize + " } else { "" };
        format!("{dequantize}dense online-softmax loop (CPU)")
    }
}
