//! The dense loop of `sdpa` and the packed loop of `fused` on the host: one loop, over whatever holds the positions.

use std::ops::Range;

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, WithDType, bail};
use rayon::prelude::*;

use super::online::{Causality, OnlineSoftmax};
use crate::cache::host::{HostLayer, PackedMeta};
use crate::cache::ops::WindowDims;
use crate::quant::Real;
use crate::quant::codec::Side;
use crate::quant::real::with_real;

/// Query tokens that share one pass over the keys: enough rows for an efficient product, few enough for the scores to stay in
/// a core's cache.
const QUERY_TOKENS: usize = 64;

/// Keys of one unit of work. Units of one pass run side by side and are merged in order, so results do not depend on the
/// number of threads.
const SPLIT_KEYS: usize = 512;

/// Keys whose codes are unpacked together: what they unpack to lives in a core's cache and is never written to memory as a
/// dense copy.
const STEP_KEYS: usize = 64;

/// Attention over a window `[2, B, Hkv, W, D]`, and over tiles where there are any. As an operation it gives `[B, T, Hq, D]`, the
/// order in which the projection that follows reads it.
pub struct HostAttention {
    /// Name for errors and traces.
    pub name: &'static str,
    /// Factor of the scores.
    pub scale: f32,
    /// One past the newest position: where the last query token stands.
    pub end: usize,
    /// Oldest position held.
    pub start: usize,
    /// Keys this much older than a query, or more, are hidden from it.
    pub sliding_window: Option<usize>,
    /// The tiles, when the operation is given any.
    pub packed: Option<PackedMeta>,
}

impl HostAttention {
    /// Attends with `q` `[B, Hq, T, D]`; the result is `[B, Hq, T, D]`, its heads innermost but for D in memory.
    ///
    /// # Errors
    /// When shapes or dtypes do not fit, or the device fails.
    pub fn attend(&self, q: &Tensor, window: &Tensor, tiles: Option<&Tensor>) -> Result<Tensor> {
        let attended = match tiles {
            Some(tiles) => q.apply_op3_no_bwd(window, tiles, self)?,
            None => q.apply_op2_no_bwd(window, self)?,
        };
        attended.transpose(1, 2)
    }

    fn run<P: Real>(
        &self,
        q: &[P],
        q_layout: &Layout,
        layer: HostLayer<'_, P>,
        dims: WindowDims,
    ) -> Result<(CpuStorage, Shape)> {
        let (batch, q_heads, tokens, head_dim) = q_layout.shape().dims4()?;
        if (batch, head_dim) != (dims.batch, dims.head_dim) || q_heads % dims.kv_heads != 0 || tokens > self.end {
            bail!("queries {:?} do not fit a cache of {dims:?} holding {} tokens", q_layout.shape(), self.end);
        }
        let group = q_heads / dims.kv_heads;
        let passes: Vec<(usize, Range<usize>)> = (0..batch * dims.kv_heads)
            .flat_map(|head| {
                (0..tokens).step_by(QUERY_TOKENS).map(move |first| (head, first..(first + QUERY_TOKENS).min(tokens)))
            })
            .collect();
        let results: Vec<Vec<f32>> = passes
            .par_iter()
            .map(|(head, pass)| {
                let rows = self.query_rows(q, q_layout, *head, group, dims, pass);
                let causality = Causality {
                    first_query: self.end - tokens + pass.start,
                    tokens: pass.len(),
                    sliding_window: self.sliding_window,
                };
                self.pass(&rows, &layer, *head, head_dim, &causality)
            })
            .collect();

        let mut out = vec![P::zero(); batch * q_heads * tokens * head_dim];
        for ((head, pass), result) in passes.iter().zip(&results) {
            let (entry, kv_head) = (head / dims.kv_heads, head % dims.kv_heads);
            for (member, rows) in result.chunks_exact(pass.len() * head_dim).enumerate() {
                for (token, row) in pass.clone().zip(rows.chunks_exact(head_dim)) {
                    let at = ((entry * tokens + token) * q_heads + kv_head * group + member) * head_dim;
                    out[at..at + head_dim].iter_mut().zip(row).for_each(|(out, x)| *out = P::narrow(*x));
                }
            }
        }
        Ok((P::to_cpu_storage_owned(out), Shape::from((batch, tokens, q_heads, head_dim))))
    }

    /// The scaled queries of one KV head as rows, one query head of the group under the other.
    fn query_rows<P: Real>(
        &self,
        q: &[P],
        layout: &Layout,
        head: usize,
        group: usize,
        dims: WindowDims,
        pass: &Range<usize>,
    ) -> Vec<f32> {
        let strides = layout.stride();
        let (entry, kv_head) = (head / dims.kv_heads, head % dims.kv_heads);
        let mut rows = Vec::with_capacity(group * pass.len() * dims.head_dim);
        for q_head in kv_head * group..(kv_head + 1) * group {
            for token in pass.clone() {
                let from = layout.start_offset() + entry * strides[0] + q_head * strides[1] + token * strides[2];
                rows.extend((0..dims.head_dim).map(|d| q[from + d * strides[3]].widen() * self.scale));
            }
        }
        rows
    }

    /// The attention of some query rows over all keys they see.
    fn pass<P: Real>(
        &self,
        rows: &[f32],
        layer: &HostLayer<'_, P>,
        head: usize,
        head_dim: usize,
        causality: &Causality,
    ) -> Vec<f32> {
        let seen = causality.seen_by_any();
        let seen = seen.start.max(self.start)..seen.end;
        // Splits start at multiples of their size, so that none cuts a tile.
        let splits: Vec<Range<usize>> = (seen.start / SPLIT_KEYS..seen.end.div_ceil(SPLIT_KEYS))
            .map(|split| (split * SPLIT_KEYS).max(seen.start)..((split + 1) * SPLIT_KEYS).min(seen.end))
            .collect();
        let parts: Vec<OnlineSoftmax> = splits
            .into_par_iter()
            .map(|keys| {
                let mut state = OnlineSoftmax::new(rows.len() / head_dim, head_dim);
                let mut codec = layer.codec();
                let mut dense = vec![0.0; 2 * STEP_KEYS * head_dim];
                let mut start = keys.start;
                while start < keys.end {
                    let count = layer.run(start, (keys.end - start).min(STEP_KEYS));
                    let (k, v) = dense[..2 * count * head_dim].split_at_mut(count * head_dim);
                    layer.read(&mut codec, Side::Key, head, start..start + count, k);
                    layer.read(&mut codec, Side::Value, head, start..start + count, v);
                    state.absorb(rows, k, v, start, causality);
                    start += count;
                }
                state
            })
            .collect();
        let empty = OnlineSoftmax::new(rows.len() / head_dim, head_dim);
        parts.iter().fold(empty, OnlineSoftmax::merge).finish()
    }

    /// Attention on the CPU, over the window and the bytes of the tiles, if there are any.
    fn on_cpu(
        &self,
        (q, q_layout): (&CpuStorage, &Layout),
        (window, layout): (&CpuStorage, &Layout),
        tiles: Option<&[u8]>,
    ) -> Result<(CpuStorage, Shape)> {
        let dims = WindowDims::of(layout.shape())?;
        with_real!(window.dtype(), P => {
            let layer = HostLayer::new(<P as Real>::slice(window)?, dims, tiles.zip(self.packed.as_ref()));
            self.run(<P as Real>::slice(q)?, q_layout, layer, dims)
        })
    }
}

/// Queries and window.
impl CustomOp2 for HostAttention {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_layout: &Layout,
        window: &CpuStorage,
        layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.on_cpu((q, q_layout), (window, layout), None)
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        q: &CudaStorage,
        q_layout: &Layout,
        window: &CudaStorage,
        window_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let keys = super::flash::Keys {
            positions: self.start..self.end,
            sliding_window: self.sliding_window,
            scale: self.scale,
        };
        super::flash::flash_attention((q, q_layout), (window, window_layout), &keys)
    }
}

/// Queries, window and tiles.
impl CustomOp3 for HostAttention {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_layout: &Layout,
        window: &CpuStorage,
        layout: &Layout,
        tiles: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.on_cpu((q, q_layout), (window, layout), Some(u8::cpu_storage_as_slice(tiles)?))
    }
}
