//! `eager`: everything dense, then matmul, softmax, matmul, as the textbook has it.

use candle_core::{DType, Device, Tensor};

use super::Attention;
use super::causal_softmax::CausalSoftmax;
use crate::Result;
use crate::cache::{LayerView, ops};

/// Most scores in memory at once, unless one token has more: candle's kernels count elements in 32 bits.
pub const MOST_SCORES: usize = 1 << 28;

/// Dequantize, then matmul, softmax (in f32), matmul; of as many query tokens at once as have [`MOST_SCORES`].
#[derive(Debug, Clone, Copy)]
pub struct Eager {
    /// Most scores at once.
    pub(super) most_scores: usize,
}

impl Default for Eager {
    fn default() -> Self {
        Eager { most_scores: MOST_SCORES }
    }
}

impl Attention for Eager {
    fn name(&self) -> &'static str {
        "eager"
    }

    fn attend(&self, q: &Tensor, view: &LayerView<'_>, scale: f64) -> Result<Tensor> {
        let (batch, q_heads, tokens, _) = q.dims4()?;
        let keys = view.visible(tokens);
        // Half floats on the host are slow and no more exact: there all of it is f32.
        let dtype = if q.device().is_cpu() { DType::F32 } else { q.dtype() };
        let dense = ops::dense(view, keys.clone())?.to_dtype(dtype)?;
        let (k, v) = (dense.get(0)?, dense.get(1)?);
        let scaled = (q.to_dtype(dtype)? * scale)?;

        let at_once = (self.most_scores / (batch * q_heads * keys.len()).max(1)).clamp(1, tokens);
        let outputs = (0..tokens)
            .step_by(at_once)
            .map(|start| {
                let count = at_once.min(tokens - start);
                let first_query = keys.len() - tokens + start;
                let softmax = CausalSoftmax { tokens: count, first_query, sliding_window: view.sliding_window };
                attend_block(&scaled.narrow(2, start, count)?, &k, &v, softmax)
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Tensor::cat(&outputs, 2)?.to_dtype(q.dtype())?)
    }

    fn kernel(&self, _heads: usize, _tokens: usize, view: &LayerView<'_>) -> String {
        let device = match view.window.device() {
            Device::Cpu => "candle CPU",
            Device::Cuda(_) => "cuBLAS",
            Device::Metal(_) => "Metal",
        };
        let dequantize = if view.packed.is_some() { "dequantize + " } else { "" };
        format!("{dequantize}matmul-softmax-matmul ({device})")
    }
}

/// Of scaled queries `[B, Hq, T, D]`: `[B, Hq, T, D]`.
fn attend_block(q: &Tensor, k: &Tensor, v: &Tensor, softmax: CausalSoftmax) -> Result<Tensor> {
    let (batch, q_heads, tokens, head_dim) = q.dims4()?;
    let kv_heads = k.dim(1)?;
    // The query heads of one KV head stand under each other: [B, Hkv, (Hq/Hkv)·T, D].
    let rows = q.contiguous()?.reshape((batch, kv_heads, q_heads / kv_heads * tokens, head_dim))?;
    let weights = softmax.of(&rows.matmul(&k.t()?)?)?;
    Ok(weights.matmul(v)?.reshape((batch, q_heads, tokens, head_dim))?)
}
