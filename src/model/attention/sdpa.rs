//! `sdpa`: everything dense, then one fused pass of attention over it.

use candle_core::Tensor;

use super::Attention;
use super::host::HostAttention;
use crate::Result;
use crate::cache::{LayerView, ops};

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

    fn kernel(&self, tokens: usize, view: &LayerView<'_>) -> String {
        let packed = view.visible(tokens).start < view.window_positions.start;
        let dequantize = if packed { "dequantize + " } else { "" };
        #[cfg(feature = "cuda")]
        if view.window.device().is_cuda() {
            return match super::flash::kernel_for(view.window) {
                Ok(kernel) => format!("{dequantize}{kernel}"),
                Err(error) => format!("none: {error}"),
            };
        }
        format!("{dequantize}dense online-softmax loop (CPU)")
    }
}
