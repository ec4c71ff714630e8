//! Attention on the GPU against float64.

use candle_core::{DType, Device, Tensor};
use kvprof::cache::{self, CacheShape};
use kvprof::model::attention;
use kvprof::quant::QuantSpec;

use crate::inputs::{self, Kind};

/// A shape to attend in: the last `tokens` of `cached` are the queries.
#[derive(Debug, Clone, Copy)]
struct Case {
    heads: (usize, usize),
    tokens: usize,
    cached: usize,
    sliding_window: Option<usize>,
    kind: Kind,
}

const fn case(heads: (usize, usize), tokens: usize, cached: usize, sliding_window: Option<usize>, kind: Kind) -> Case {
    Case { heads, tokens, cached, sliding_window, kind }
}

const CASES: [Case; 11] = [
    case((4, 4), 1, 1, None, Kind::Normal),
    case((8, 2), 64, 64, None, Kind::Normal),
    case((8, 2), 200, 200, None, Kind::Normal),
    case((7, 1), 33, 500, None, Kind::Normal),
    case((8, 8), 300, 777, Some(100), Kind::Normal),
    case((4, 1), 1, 1100, None, Kind::Normal),
    case((12, 2), 129, 1024, None, Kind::Outlier),
    case((4, 2), 128, 128, Some(1), Kind::Normal),
    case((8, 4), 70, 513, Some(64), Kind::Constant),
    case((6, 2), 257, 1025, None, Kind::Bias),
    case((28, 4), 530, 530, None, Kind::Normal),
];

fn wide(x: &Tensor) -> Vec<f64> {
    x.to_device(&Device::Cpu).unwrap().to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Attention of `[B, Hq, T, D]` over `[B, Hkv, S, D]` in float64, one query at a time.
fn reference(q: &Tensor, k: &Tensor, v: &Tensor, sliding_window: Option<usize>, scale: f64) -> Vec<f64> {
    let (batch, q_heads, tokens, d) = q.dims4().unwrap();
    let (_, kv_heads, cached, _) = k.dims4().unwrap();
    let (q, k, v) = (wide(q), wide(k), wide(v));
    let mut out = Vec::with_capacity(q.len());
    for (row, query) in q.chunks_exact(d).enumerate() {
        let (head, token) = (row / tokens, row % tokens);
        let kv_head = head / q_heads * kv_heads + head % q_heads / (q_heads / kv_heads);
        let position = cached - tokens + token;
        let first = sliding_window.map_or(0, |w| (position + 1).saturating_sub(w));
        let rows = |x: &'_ [f64], j: usize| x[(kv_head * cached + j) * d..][..d].to_vec();
        let scores: Vec<f64> = (first..=position)
            .map(|j| rows(&k, j).iter().zip(query).map(|(a, b)| a * b).sum::<f64>() * scale)
            .collect();
        let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|s| (s - top).exp()).collect();
        let sum: f64 = weights.iter().sum();
        let mut result = vec![0.0; d];
        for (j, weight) in (first..=position).zip(&weights) {
            result.iter_mut().zip(rows(&v, j)).for_each(|(r, x)| *r += weight / sum * x);
        }
        out.extend(result);
    }
    assert_eq!(out.len(), batch * q_heads * tokens * d);
    out
}

/// ‖found − expected‖ / ‖expected‖.
fn relative_error(found: &[f64], expected: &[f64]) -> f64 {
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    let difference = norm(&mut found.iter().zip(expected).map(|(a, b)| a - b));
    difference / norm(&mut expected.iter().copied())
}

fn check(gpu: &Device, backend: &str, case: Case, head_dim: usize, dtype: DType) {
    let Case { heads: (q_heads, kv_heads), tokens, cached, sliding_window, kind } = case;
    let what = format!("{backend} D {head_dim} {dtype:?} {case:?}");
    let scale = 1.0 / (head_dim as f64).sqrt();
    let dims = [2, kv_heads, cached, head_dim];
    let (k, v) = (inputs::tensor(kind, dims, dtype, 5), inputs::tensor(Kind::Normal, dims, dtype, 6));
    let q = inputs::tensor(Kind::Normal, [2, q_heads, tokens, head_dim], dtype, 7);
    let shape = CacheShape {
        layers: 1,
        batch: 2,
        kv_heads,
        head_dim,
        capacity: 1200,
        max_chunk: 600,
        sliding_window,
        dtype,
        device: gpu.clone(),
    };
    let mut cache = cache::new(QuantSpec::none(), shape).unwrap();
    let (on_gpu_k, on_gpu_v) = (k.to_device(gpu).unwrap(), v.to_device(gpu).unwrap());
    let mut start = 0;
    while start < cached {
        let history = cached - tokens;
        let count = if start < history { (history - start).min(600) } else { tokens };
        cache
            .append(0, &on_gpu_k.narrow(2, start, count).unwrap(), &on_gpu_v.narrow(2, start, count).unwrap())
            .unwrap();
        start += count;
        if start < cached {
            cache.settle(0).unwrap();
            cache.advance(count);
        }
    }
    let backend = attention::new(backend).unwrap();
    let out = backend.attend(&q.to_device(gpu).unwrap(), &cache.view(0), scale).unwrap();
    assert_eq!(out.dims(), [2, q_heads, tokens, head_dim], "{what}");
    let expected = reference(&q, &k, &v, sliding_window, scale);
    let error = relative_error(&wide(&out), &expected);
    // Half of what bfloat16's own rounding of the result can do to a number, root mean square, on top of the 2e-3 of the sums.
    let limit = if dtype == DType::F16 { 2e-3 } else { 4e-3 };
    assert!(error < limit, "{what}: relative error {error:.2e}");
}

fn check_all(test: &str, head_dim: usize) {
    let Some(gpu) = crate::gpu(test) else { return };
    for dtype in [DType::F16, DType::BF16] {
        for case in CASES {
            check(&gpu, "sdpa", case, head_dim, dtype);
        }
    }
}

#[test]
fn dense_attention_of_64_channels_matches_float64() {
    check_all("dense_attention_of_64_channels_matches_float64", 64);
}

#[test]
fn dense_attention_of_128_channels_matches_float64() {
    check_all("dense_attention_of_128_channels_matches_float64", 128);
}

#[test]
fn equal_query_heads_get_equal_results() {
    let Some(gpu) = crate::gpu("equal_query_heads_get_equal_results") else { return };
    let (k, v) = (7, 8);
    let dims = [1, 2, 300, 128];
    let [k, v] = [k, v].map(|seed| inputs::tensor(Kind::Normal, dims, DType::F16, seed).to_device(&gpu).unwrap());
    let one = inputs::tensor(Kind::Normal, [1, 1, 300, 128], DType::F16, 9).to_device(&gpu).unwrap();
    let q = one.broadcast_as((1, 8, 300, 128)).unwrap().contiguous().unwrap();
    let shape = CacheShape {
        layers: 1,
        batch: 1,
        kv_heads: 2,
        head_dim: 128,
        capacity: 300,
        max_chunk: 300,
        sliding_window: None,
        dtype: DType::F16,
        device: gpu.clone(),
    };
    let mut cache = cache::new(QuantSpec::none(), shape).unwrap();
    cache.append(0, &k, &v).unwrap();
    let out = attention::new("sdpa").unwrap().attend(&q, &cache.view(0), 0.1).unwrap();
    for head in 1..4 {
        let [first, other] = [0, head].map(|h| wide(&out.narrow(1, h, 1).unwrap()));
        assert!(first == other, "head {head} differs from head 0");
    }
}
