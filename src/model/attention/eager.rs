//! `eager`: everything dense, then matmul, softmax, matmul, as the textbook has it.

use std::ops::Range;

use candle_core::{DType, Device, Tensor};

use super::Attention;
use crate::Result;
use crate::cache::{LayerView, ops};

/// Most scores in memory at once, unless one token has more: candle's kernels count elements in 32 bits.
pub const MOST_SCORES: usize = 1 << 28;

/// Dequantize, then matmul, softmax in f32, matmul; of as many query tokens at once as have [`MOST_SCORES`].
#[derive(Debug, Clone, Copy, Default)]
pub struct Eager;

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

        let at_once = (MOST_SCORES / (batch * q_heads * keys.len()).max(1)).clamp(1, tokens);
        let first = keys.end - tokens;
        let outputs = (0..tokens)
            .step_by(at_once)
            .map(|start| {
                let count = at_once.min(tokens - start);
                let queries = first + start..first + start + count;
                let seen =
                    if tokens == 1 { None } else { Some(seen(queries, &keys, view.sliding_window, q.device())?) };
                attend_block(&scaled.narrow(2, start, count)?, &k, &v, seen)
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

/// Of scaled queries `[B, Hq, T, D]` and `seen` `[T, S]`: `[B, Hq, T, D]`.
fn attend_block(q: &Tensor, k: &Tensor, v: &Tensor, seen: Option<Tensor>) -> Result<Tensor> {
    let (batch, q_heads, tokens, head_dim) = q.dims4()?;
    let (kv_heads, keys) = (k.dim(1)?, k.dim(2)?);
    // The query heads of one KV head stand under each other: [B, Hkv, (Hq/Hkv)·T, D].
    let rows = q_heads / kv_heads * tokens;
    let q_rows = q.contiguous()?.reshape((batch, kv_heads, rows, head_dim))?;
    // One copy of the scores ends before the next but one begins: they are most of the memory.
    let mut scores = q_rows.matmul(&k.t()?)?.to_dtype(DType::F32)?;
    if let Some(seen) = seen {
        // Of two axes, since candle finds the place of an element that is broadcast by a division for each.
        scores = scores.reshape((batch * q_heads, tokens * keys))?;
        scores = scores.broadcast_add(&seen.reshape((1, tokens * keys))?)?;
        scores = scores.reshape((batch, kv_heads, rows, keys))?;
    }
    scores = candle_nn::ops::softmax_last_dim(&scores)?;
    scores = scores.to_dtype(q.dtype())?;
    Ok(scores.matmul(v)?.reshape((batch, q_heads, tokens, head_dim))?)
}

/// What to add to scores `[T, S]` so that `queries` see no later key and none outside the sliding window: 0 or minus infinity in f32.
fn seen(queries: Range<usize>, keys: &Range<usize>, sliding_window: Option<usize>, device: &Device) -> Result<Tensor> {
    let shape = (queries.len(), keys.len());
    let column = |of: &dyn Fn(usize) -> usize| {
        Tensor::from_iter(queries.clone().map(|query| of(query) as u32), device)?.reshape((shape.0, 1))
    };
    let keys = Tensor::arange(keys.start as u32, keys.end as u32, device)?.reshape((1, shape.1))?;
    let first = column(&|query| sliding_window.map_or(0, |window| (query + 1).saturating_sub(window)))?;
    let (early, late) = (keys.broadcast_lt(&first)?, keys.broadcast_gt(&column(&|query| query)?)?);
    let all = |x: f32| Tensor::new(x, device)?.broadcast_as(shape);
    Ok((early + late)?.where_cond(&all(f32::NEG_INFINITY)?, &all(0.0)?)?)
}
