//! Softmax over the keys that each query sees: what `eager` computes between its two products. On a GPU kernels/causal_softmax.cu.

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

/// Which keys the rows of scores `[.., T, S]` see.
#[derive(Debug, Clone, Copy)]
pub(super) struct CausalSoftmax {
    /// T, query tokens. They are innermost among the rows.
    pub tokens: usize,
    /// The key that is the first query's own.
    pub first_query: usize,
    /// Keys that a query sees, its own included; `None` for all.
    pub sliding_window: Option<usize>,
}

impl CausalSoftmax {
    /// Probabilities of `scores`, whole and contiguous, in their dtype: f32 on the host, f16 or bf16 on a GPU. 0 for keys that are not seen.
    pub fn of(self, scores: &Tensor) -> Result<Tensor> {
        scores.apply_op1_no_bwd(&self)
    }

    fn keys(&self, layout: &Layout) -> Result<usize> {
        match layout.shape().dims() {
            [rows @ .., keys]
                if layout.is_contiguous()
                    && self.tokens > 0
                    && rows.iter().product::<usize>().is_multiple_of(self.tokens)
                    && self.first_query + self.tokens <= *keys =>
            {
                Ok(*keys)
            }
            dims => bail!("{self:?} of scores {dims:?}"),
        }
    }
}

impl CustomOp1 for CausalSoftmax {
    fn name(&self) -> &'static str {
        "causal-softmax"
    }

    fn cpu_fwd(&self, scores: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let keys = self.keys(layout)?;
        let scores = &scores.as_slice::<f32>()?[layout.start_offset()..][..layout.shape().elem_count()];
        let mut out = vec![0f32; scores.len()];
        out.par_chunks_mut(keys).zip(scores.par_chunks(keys)).enumerate().for_each(|(row, (out, scores))| {
            let end = self.first_query + row % self.tokens + 1;
            let begin = self.sliding_window.map_or(0, |window| end.saturating_sub(window));
            let (out, scores) = (&mut out[begin..end], &scores[begin..end]);
            let maximum = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            out.iter_mut().zip(scores).for_each(|(out, score)| *out = (score - maximum).exp());
            let sum: f32 = out.iter().sum();
            out.iter_mut().for_each(|out| *out /= sum);
        });
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, scores: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        Ok((cuda::launch(self, scores, layout, self.keys(layout)?)?, layout.shape().clone()))
    }
}

#[cfg(feature = "cuda")]
mod cuda {
    use candle_core::backend::BackendStorage;
    use candle_core::{CudaStorage, Layout, Result};

    use super::CausalSoftmax;
    use crate::device::kernels::{Address, DeviceRepr, Launch, address, float_name, uninitialized};

    /// Threads a block (`kSoftmaxThreads`).
    const THREADS: u32 = 256;

    /// Mirrors `CausalSoftmaxParams` of kernels/include/kvprof/causal_softmax.cuh.
    #[repr(C)]
    #[derive(Debug, Clone, Copy)]
    struct CausalSoftmaxParams {
        x: Address,
        out: Address,
        keys: i32,
        tokens: i32,
        first_query: i32,
        sliding_window: i32,
    }

    const _: () = assert!(size_of::<CausalSoftmaxParams>() == 32);

    // SAFETY: plain numbers in the layout of the C++ struct of the same name (size asserted on both sides).
    unsafe impl DeviceRepr for CausalSoftmaxParams {}

    pub(super) fn launch(
        softmax: &CausalSoftmax,
        scores: &CudaStorage,
        layout: &Layout,
        keys: usize,
    ) -> Result<CudaStorage> {
        let count = layout.shape().elem_count();
        let out = uninitialized(&scores.device, scores.dtype(), count)?;
        let params = CausalSoftmaxParams {
            x: address(scores, layout)?,
            out: address(&out, &Layout::contiguous(layout.shape()))?,
            keys: keys as i32,
            tokens: softmax.tokens as i32,
            first_query: softmax.first_query as i32,
            sliding_window: softmax.sliding_window.unwrap_or(0) as i32,
        };
        // Rows of whole pieces of 16 bytes begin where a piece may.
        let each = if keys.is_multiple_of(8) && layout.start_offset().is_multiple_of(8) { 8 } else { 1 };
        let launch = Launch {
            image: "causal_softmax",
            kernel: &format!("softmax_causal_{}_x{each}", float_name(scores.dtype())?),
            grid: [count / keys, 1, 1],
            threads: THREADS,
            shared_bytes: 0,
        };
        // SAFETY: scores and `out` are contiguous rows of `keys`; each block reads one row and writes that of `out`.
        unsafe { launch.enqueue(&scores.device, &params) }?;
        Ok(out)
    }
}
