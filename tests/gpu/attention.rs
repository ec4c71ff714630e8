//! Attention on the GPU against float64.

use candle_core::{DType, Device};
use kvprof::cache::{self, CacheShape};
use kvprof::model::attention;
use kvprof::quant::QuantSpec;

use crate::inputs::{self, Kind};
use crate::reference::{self, Case, assert_close, case, wide};

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

fn check(gpu: &Device, backend: &str, case: Case, head_dim: usize, dtype: DType) {
    let what = format!("{backend} D {head_dim} {dtype:?} {case:?}");
    let (scale, (q_heads, kv_heads)) = (1.0 / (head_dim as f64).sqrt(), case.heads);
    let dims = [2, kv_heads, case.cached, head_dim];
    let [k, v] = [(case.kind, 5), (Kind::Normal, 6)].map(|(kind, seed)| inputs::tensor(kind, dims, dtype, seed));
    let q = inputs::tensor(Kind::Normal, [2, q_heads, case.tokens, head_dim], dtype, 7);
    let cache = case.cache(QuantSpec::none(), &k, &v, 600, gpu);
    let backend = attention::new(backend).unwrap();
    let out = backend.attend(&q.to_device(gpu).unwrap(), &cache.view(0), scale).unwrap();
    assert_eq!(out.dims(), [2, q_heads, case.tokens, head_dim], "{what}");
    let [keys, values] =
        [&k, &v].map(|x| wide(x).chunks_exact(case.cached * head_dim).map(<[f64]>::to_vec).collect::<Vec<_>>());
    let expected = reference::attention(&q, &keys, &values, case.sliding_window, scale);
    assert_close(&wide(&out), &expected, dtype, &what);
}

fn check_all(test: &str, head_dim: usize) {
    let Some(gpu) = crate::gpu(test) else { return };
    for dtype in [DType::F16, DType::BF16] {
        for case in CASES {
            check(&gpu, "sdpa", case, head_dim, dtype);
        }
    }
    // Scores in memory are rounded, which large ones and bf16 do not stand.
    for case in CASES.into_iter().filter(|case| case.kind == Kind::Normal) {
        check(&gpu, "eager", case, head_dim, DType::F16);
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
        windows: vec![None],
        batch: 1,
        kv_heads: 2,
        head_dim: 128,
        capacity: 300,
        max_chunk: 300,
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
