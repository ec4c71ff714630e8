//! `eager`: everything dense, then matmul, softmax, matmul, as the textbook has it.

use candle_core::{D, DType, Device, Tensor};

use super::{Attention, causal_mask};
use crate::Result;
use crate::cache::{LayerView, ops};

/// Dequantize, then matmul, softmax in f32, matmul.
#[derive(Debug, Clone, Copy, Default)]
pub struct Eager;

impl Attention for Eager {
    fn name(&self) -> &'static str {
        "eager"
    }

    fn attend(&self, q: &Tensor, view: &LayerView<'_>, scale: f64) -> Result<Tensor> {
        let (batch, q_heads, tokens, head_dim) = q.dims4()?;
        let kv_heads = view.window.dim(2)?;
        let keys = view.visible(tokens);
        // Half floats on the host are slow and no more exact: there all of it is f32.
        let dtype = if q.device().is_cpu() { DType::F32 } else { q.dtype() };
        let dense = ops::dense(view, keys.clone())?.to_dtype(dtype)?;
        let (k, v) = (dense.get(0)?, dense.get(1)?);

        // The query heads of one KV head stand under each other: [B, Hkv, (Hq/Hkv)·T, D].
        let rows = q_heads / kv_heads * tokens;
        let q_rows = (q.to_dtype(dtype)? * scale)?.contiguous()?.reshape((batch, kv_heads, rows, head_dim))?;
        let scores = q_rows.matmul(&k.t()?)?.to_dtype(DType::F32)?;
        let scores = match causal_mask(tokens, keys, view.sliding_window, q.device())? {
            Some(mask) => {
                let group = q_heads / kv_heads;
                let keys = mask.dim(1)?;
                scores
                    .reshape((batch, kv_heads, group, tokens, keys))?
                    .broadcast_add(&mask)?
                    .reshape((batch, kv_heads, rows, keys))?
            }
            None => scores,
        };
        let weights = candle_nn::ops::softmax(&scores, D::Minus1)?.to_dtype(dtype)?;
        let out = weights.matmul(&v)?.reshape((batch, q_heads, tokens, head_dim))?;
        Ok(out.to_dtype(q.dtype())?)
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
