//! Device memory of the decode step, allocated once.

use candle_core::{DType, Device, Tensor};

use super::weights::StepWeights;
use crate::Result;

/// Everything that passes between the kernels of a step, and from one step to the next. The kernels write to these tensors
/// behind candle's back, which is why they are never shared with it while a step is in flight.
pub(super) struct Buffers {
    /// `[B, hidden]`: the residual stream.
    pub stream: Tensor,
    /// `[B, hidden]`: its normalized form.
    pub normed: Tensor,
    /// `[B, Hq, D]`.
    pub query: Tensor,
    /// `[B, Hq, D]`: what attention returns.
    pub attended: Tensor,
    /// `[B, intermediate]`.
    pub inner: Tensor,
    /// `[B, V]` f32: of the last step.
    pub logits: Tensor,
    /// `[B]` i64: each sequence's largest logit so far, as a sortable key.
    pub best: Tensor,
    /// `[B]` u32: the tokens that the next step reads.
    pub tokens: Tensor,
    /// `[capacity, B]` u32: the token chosen for each position.
    pub history: Tensor,
    /// `[ways, 2]` u32: (positions quantized, positions in all), one row for each way that layers keep their tokens.
    pub lengths: Tensor,
}

impl Buffers {
    /// # Errors
    /// When the device has no room.
    pub fn new(weights: &StepWeights, batch: usize, capacity: usize, ways: usize) -> Result<Self> {
        let device: &Device = weights.embedding.device();
        let float = weights.embedding.dtype();
        let zeros = |shape: &[usize], dtype: DType| Tensor::zeros(shape, dtype, device);
        Ok(Buffers {
            stream: zeros(&[batch, weights.hidden], float)?,
            normed: zeros(&[batch, weights.hidden], float)?,
            query: zeros(&[batch, weights.heads, weights.head_dim], float)?,
            attended: zeros(&[batch, weights.heads, weights.head_dim], float)?,
            inner: zeros(&[batch, weights.intermediate], float)?,
            logits: zeros(&[batch, weights.vocab], DType::F32)?,
            best: zeros(&[batch], DType::I64)?,
            tokens: zeros(&[batch], DType::U32)?,
            history: zeros(&[capacity, batch], DType::U32)?,
            lengths: zeros(&[ways, 2], DType::U32)?,
        })
    }
}
