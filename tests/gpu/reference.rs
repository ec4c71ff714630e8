//! Attention in float64, and what the tests of attention kernels share.

use candle_core::{DType, Device, Tensor};
use kvprof::cache::{self, CacheShape, KvCache};
use kvprof::quant::QuantSpec;

use crate::inputs::Kind;

/// A shape to attend in: the last `tokens` of `cached` are the queries.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// Query and KV heads.
    pub heads: (usize, usize),
    pub tokens: usize,
    pub cached: usize,
    pub sliding_window: Option<usize>,
    /// What keys are filled with.
    pub kind: Kind,
}

pub const fn case(
    heads: (usize, usize),
    tokens: usize,
    cached: usize,
    sliding_window: Option<usize>,
    kind: Kind,
) -> Case {
    Case { heads, tokens, cached, sliding_window, kind }
}

impl Case {
    /// A one-layer cache on `gpu` that holds `k` and `v` `[2, Hkv, S, D]`, appended at most `max_chunk` at a time; the tokens of
    /// the queries last, in one go and not yet settled.
    pub fn cache(&self, spec: QuantSpec, k: &Tensor, v: &Tensor, max_chunk: usize, gpu: &Device) -> Box<dyn KvCache> {
        let shape = CacheShape {
            windows: vec![self.sliding_window],
            batch: 2,
            kv_heads: self.heads.1,
            head_dim: k.dim(3).unwrap(),
            capacity: 1200,
            max_chunk,
            dtype: k.dtype(),
            device: gpu.clone(),
        };
        let mut cache = cache::new(spec, shape).unwrap();
        let (k, v) = (k.to_device(gpu).unwrap(), v.to_device(gpu).unwrap());
        let history = self.cached - self.tokens;
        let mut start = 0;
        while start < self.cached {
            let count = if start < history { (history - start).min(max_chunk) } else { self.tokens };
            cache.append(0, &k.narrow(2, start, count).unwrap(), &v.narrow(2, start, count).unwrap()).unwrap();
            start += count;
            if start < self.cached {
                cache.settle(0).unwrap();
                cache.advance(count);
            }
        }
        cache
    }
}

/// The elements in order.
pub fn wide(x: &Tensor) -> Vec<f64> {
    x.to_device(&Device::Cpu).unwrap().to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Attention of `[B, Hq, T, D]`, the last T positions, over keys and values `[B·Hkv][S·D]`.
pub fn attention(q: &Tensor, keys: &[Vec<f64>], values: &[Vec<f64>], window: Option<usize>, scale: f64) -> Vec<f64> {
    let (batch, q_heads, tokens, d) = q.dims4().unwrap();
    let group = batch * q_heads / keys.len();
    let cached = keys[0].len() / d;
    let mut out = Vec::with_capacity(batch * q_heads * tokens * d);
    for (row, query) in wide(q).chunks_exact(d).enumerate() {
        // Query heads of one KV head are neighbours, and batch entries hold whole groups.
        let (pair, position) = (row / tokens / group, cached - tokens + row % tokens);
        let first = window.map_or(0, |window| (position + 1).saturating_sub(window));
        let scores: Vec<f64> = (first..=position)
            .map(|j| keys[pair][j * d..][..d].iter().zip(query).map(|(k, q)| k * q).sum::<f64>() * scale)
            .collect();
        let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|s| (s - top).exp()).collect();
        let sum: f64 = weights.iter().sum();
        let start = out.len();
        out.resize(start + d, 0.0);
        for (j, weight) in (first..=position).zip(&weights) {
            out[start..].iter_mut().zip(&values[pair][j * d..][..d]).for_each(|(o, v)| *o += weight / sum * v);
        }
    }
    out
}

/// Asserts that ‖found − expected‖ / ‖expected‖ is within the bound for results of `dtype`: 2e-3 for the sums, and in bfloat16
/// twice that, whose own rounding of the result is half of it, root mean square.
pub fn assert_close(found: &[f64], expected: &[f64], dtype: DType, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    let error = norm(&mut found.iter().zip(expected).map(|(a, b)| a - b)) / norm(&mut expected.iter().copied());
    let limit = if dtype == DType::F16 { 2e-3 } else { 4e-3 };
    assert!(error < limit, "{what}: relative error {error:.2e}");
}
