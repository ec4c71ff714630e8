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
        let count = visible.len();
        let dense = ops::dense(view, visible)?;
        // The scratch is a window whose first slot holds position 0; only differences of positions matter.
        let attention = HostAttention {
            name: "sdpa-attention",
            scale: scale as f32,
            start: 0,
            end: count,
            sliding_window: view.sliding_window,
            packed: None,
        };
        Ok(q.apply_op2_no_bwd(&dense, &attention)?)
    }

    fn kernel(&self, _tokens: usize, view: &LayerView<'_>) -> String {
        let dequantize = if view.packed.is_some() { "dequantize + " } else { "" };
        format!("{dequantize}dense online-softmax loop (CPU)")
    }
}
