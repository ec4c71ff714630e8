//! Every backend against attention written out in float64, over everything a view can be.

use candle_core::{DType, Device, Tensor};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{Attention, Eager, NAMES, new};
use crate::cache::{self, CacheShape, KvCache, ops};
use crate::quant::QuantSpec;

/// One sequence fed to one cache.
#[derive(Clone, Copy)]
struct Case {
    spec: &'static str,
    q_heads: usize,
    kv_heads: usize,
    head_dim: usize,
    capacity: usize,
    sliding_window: Option<usize>,
    chunks: &'static [usize],
    dtype: DType,
}

const PLAIN: Case = Case {
    spec: "none",
    q_heads: 4,
    kv_heads: 2,
    head_dim: 16,
    capacity: 100,
    sliding_window: None,
    chunks: &[7, 1, 64, 1, 13],
    dtype: DType::F32,
};

fn random(shape: (usize, usize, usize, usize), rng: &mut StdRng, dtype: DType) -> Tensor {
    let count = shape.0 * shape.1 * shape.2 * shape.3;
    let data: Vec<f32> = (0..count).map(|_| rng.random_range(-2.0f32..2.0)).collect();
    Tensor::from_vec(data, shape, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
}

fn flat(x: &Tensor) -> Vec<f64> {
    x.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Softmax(q·kᵀ·scale)·v of one query over the keys it sees.
fn reference(q: &[f64], keys: &[f64], values: &[f64], scale: f64) -> Vec<f64> {
    let dim = q.len();
    let scores: Vec<f64> = keys.chunks(dim).map(|k| q.iter().zip(k).map(|(a, b)| a * b).sum::<f64>() * scale).collect();
    let max = scores.iter().cloned().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
    let sum: f64 = weights.iter().sum();
    (0..dim).map(|d| weights.iter().zip(values.chunks(dim)).map(|(w, v)| w * v[d]).sum::<f64>() / sum).collect()
}

/// Feeds random tokens through a cache and compares every backend with the reference after each chunk. What the cache
/// holds is read back through `dense`, which has its own tests.
fn check(case: &Case) {
    let mut rng = StdRng::seed_from_u64(7);
    let batch = 2;
    let spec = if case.spec == "none" { QuantSpec::none() } else { case.spec.parse().unwrap() };
    let shape = CacheShape {
        windows: vec![case.sliding_window],
        batch,
        kv_heads: case.kv_heads,
        head_dim: case.head_dim,
        capacity: case.capacity,
        max_chunk: *case.chunks.iter().max().unwrap(),
        dtype: case.dtype,
        device: Device::Cpu,
    };
    let mut cache = cache::new(spec, shape).unwrap();
    let scale = 1.0 / (case.head_dim as f64).sqrt();
    let tolerance = match case.dtype {
        DType::F16 => 2e-3,
        DType::BF16 => 1.6e-2,
        _ => 1e-5,
    };
    for &tokens in case.chunks {
        let k = random((batch, case.kv_heads, tokens, case.head_dim), &mut rng, case.dtype);
        let v = random((batch, case.kv_heads, tokens, case.head_dim), &mut rng, case.dtype);
        let q = random((batch, case.q_heads, tokens, case.head_dim), &mut rng, case.dtype);
        cache.append(0, &k, &v).unwrap();
        // Two thousand scores are a few query tokens.
        let in_blocks: Box<dyn Attention> = Box::new(Eager { most_scores: 2000 });
        let named = NAMES.map(|name| (name, new(name).unwrap()));
        for (name, backend) in named.into_iter().chain([("eager in blocks", in_blocks)]) {
            let out = backend.attend(&q, &cache.view(0), scale).unwrap();
            assert_eq!(out.dtype(), case.dtype);
            let out = flat(&out);
            let expected = expected(case, cache.as_ref(), &q, scale);
            for (at, (got, want)) in out.iter().zip(&expected).enumerate() {
                assert!(
                    (got - want).abs() <= tolerance * want.abs().max(1.0),
                    "{name}, {} with {tokens} tokens at {}, element {at}: {got} instead of {want}",
                    case.spec,
                    cache.len(),
                );
            }
        }
        cache.settle(0).unwrap();
        cache.advance(tokens);
    }
}

fn expected(case: &Case, cache: &dyn KvCache, q: &Tensor, scale: f64) -> Vec<f64> {
    let view = cache.view(0);
    let (batch, q_heads, tokens, dim) = q.dims4().unwrap();
    let held = view.positions();
    let dense = ops::dense(&view, held.clone()).unwrap();
    let (keys, values) = (flat(&dense.get(0).unwrap()), flat(&dense.get(1).unwrap()));
    let q = flat(q);
    let mut out = Vec::new();
    for entry in 0..batch {
        for head in 0..q_heads {
            let kv_head = entry * case.kv_heads + head / (q_heads / case.kv_heads);
            for token in 0..tokens {
                let position = held.end - tokens + token;
                let first = case.sliding_window.map_or(0, |w| (position + 1).saturating_sub(w));
                assert!(first.max(held.start) == first, "the cache dropped a token that is still seen");
                let rows = (kv_head * held.len() + first - held.start) * dim
                    ..(kv_head * held.len() + position + 1 - held.start) * dim;
                let at = ((entry * q_heads + head) * tokens + token) * dim;
                out.extend(reference(&q[at..at + dim], &keys[rows.clone()], &values[rows], scale));
            }
        }
    }
    out
}

#[test]
fn full_precision_matches_float64() {
    check(&PLAIN);
}

#[test]
fn half_floats_match_float64_to_their_own_precision() {
    check(&Case { dtype: DType::F16, ..PLAIN });
    check(&Case { dtype: DType::BF16, ..PLAIN });
}

#[test]
fn every_head_grouping_finds_its_own_kv_head() {
    for (q_heads, kv_heads) in [(1, 1), (3, 3), (9, 3), (6, 1)] {
        check(&Case { q_heads, kv_heads, ..PLAIN });
    }
}

#[test]
fn a_sliding_window_hides_older_tokens_while_its_ring_wraps() {
    for window in [1, 5, 64, 70] {
        check(&Case {
            sliding_window: Some(window),
            capacity: 600,
            chunks: &[64, 64, 1, 33, 64, 64, 1, 1, 64, 50, 64],
            ..PLAIN
        });
    }
}

#[test]
fn packed_layers_match_float64_over_their_dequantized_values() {
    let base = Case { head_dim: 64, capacity: 500, chunks: &[64, 64, 64, 64, 1, 1, 40, 64, 23, 1, 64], ..PLAIN };
    for preset in crate::quant::presets::PRESETS {
        check(&Case { spec: preset.name, ..base });
    }
    for spec in ["int4-hqq,group=128", "int2-kivi,residual=0,k-bits=8", "int4-hqq-token,residual=5,group=16"] {
        check(&Case { spec, ..base });
        check(&Case { spec, dtype: DType::BF16, ..base });
    }
}

#[test]
fn packed_layers_slide() {
    for window in [40, 130, 200] {
        for spec in ["int4-hqq", "int2-hqq-kivi,residual=16", "int8-hqq,group=128,residual=1"] {
            check(&Case {
                spec,
                head_dim: 64,
                sliding_window: Some(window),
                capacity: 1200,
                chunks: &[64, 64, 200, 1, 1, 64, 64, 64, 64, 64, 64, 64, 64, 64, 17, 64, 64, 1],
                ..PLAIN
            });
        }
    }
}

#[test]
fn a_chunk_longer_than_a_pass_is_cut_into_passes() {
    check(&Case { capacity: 700, chunks: &[150, 500], ..PLAIN });
    check(&Case { spec: "int4-hqq", capacity: 700, head_dim: 64, chunks: &[300, 350], ..PLAIN });
}

#[test]
fn an_unknown_backend_is_refused_with_the_names_there_are() {
    let error = new("flash").err().unwrap().to_string();
    for name in NAMES {
        assert!(error.contains(name));
    }
}

/// Attention outputs of 400 random tokens, `[Hq, D]` for each, fed `chunk` at a time but never across a flush.
fn streamed(spec: &str, chunk: usize) -> Vec<Vec<f64>> {
    let tokens = 400;
    let mut rng = StdRng::seed_from_u64(9);
    let [q, k, v] = [4, 2, 2].map(|heads| random((1, heads, tokens, 64), &mut rng, DType::F32));
    let shape = CacheShape {
        windows: vec![None],
        batch: 1,
        kv_heads: 2,
        head_dim: 64,
        capacity: tokens,
        max_chunk: chunk,
        dtype: DType::F32,
        device: Device::Cpu,
    };
    let mut cache = cache::new(spec.parse().unwrap(), shape).unwrap();
    let mut out = Vec::new();
    while cache.len() < tokens {
        let start = cache.len();
        let count = cache.tokens_until_flush().unwrap().min(chunk).min(tokens - start);
        let [q, k, v] = [&q, &k, &v].map(|x| x.narrow(2, start, count).unwrap());
        cache.append(0, &k, &v).unwrap();
        let result = new("fused").unwrap().attend(&q, &cache.view(0), 0.125).unwrap();
        out.extend((0..count).map(|token| flat(&result.narrow(2, token, 1).unwrap())));
        cache.settle(0).unwrap();
        cache.advance(count);
    }
    out
}

#[test]
fn chunks_that_end_at_a_flush_see_what_single_tokens_see() {
    for spec in ["int2-hqq", "int4-kivi,residual=30", "fp8,residual=0"] {
        let single = streamed(spec, 1);
        for chunk in [64, 200] {
            for (token, (a, b)) in single.iter().zip(streamed(spec, chunk)).enumerate() {
                let worst = a.iter().zip(&b).fold(0.0f64, |worst, (a, b)| worst.max((a - b).abs()));
                assert!(worst < 1e-5, "{spec}: token {token} differs by {worst} in chunks of {chunk}");
            }
        }
    }
}
