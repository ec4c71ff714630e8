//! Fused decode attention on the GPU against float64 attention over what the tiles say: codes, scales and minima as stored.

use candle_core::{DType, Device, Tensor};
use kvprof::cache::{self, CacheShape, LayerView};
use kvprof::model::attention;
use kvprof::quant::presets::PRESETS;
use kvprof::quant::tile::{SideGeometry, TileGeometry};

use crate::inputs::{self, Kind};
use crate::tile::to_host_order;

/// A cache of `cached` tokens whose last `tokens` are the queries.
#[derive(Debug, Clone, Copy)]
struct Case {
    heads: (usize, usize),
    tokens: usize,
    cached: usize,
    sliding_window: Option<usize>,
    kind: Kind,
}

const CASES: [Case; 9] = [
    // A single token; nothing is packed.
    Case { heads: (4, 2), tokens: 1, cached: 1, sliding_window: None, kind: Kind::Normal },
    // Tiles and a window whose length is a multiple of nothing.
    Case { heads: (8, 2), tokens: 1, cached: 611, sliding_window: None, kind: Kind::Normal },
    Case { heads: (7, 1), tokens: 1, cached: 1030, sliding_window: None, kind: Kind::Outlier },
    Case { heads: (2, 2), tokens: 1, cached: 300, sliding_window: None, kind: Kind::Constant },
    Case { heads: (16, 2), tokens: 1, cached: 700, sliding_window: None, kind: Kind::Bias },
    // More than eight rows, so several passes; a few new tokens.
    Case { heads: (12, 1), tokens: 1, cached: 450, sliding_window: None, kind: Kind::Normal },
    Case { heads: (6, 2), tokens: 3, cached: 391, sliding_window: None, kind: Kind::Normal },
    // The sliding window cuts a tile, and the ring of tiles has wrapped.
    Case { heads: (4, 1), tokens: 1, cached: 1101, sliding_window: Some(300), kind: Kind::Normal },
    Case { heads: (4, 2), tokens: 2, cached: 777, sliding_window: Some(150), kind: Kind::Normal },
];

fn wide(x: &Tensor) -> Vec<f64> {
    x.to_device(&Device::Cpu).unwrap().to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// The float stored in two bytes.
fn real(bytes: &[u8], dtype: DType) -> f64 {
    let bits = u16::from_le_bytes([bytes[0], bytes[1]]);
    if dtype == DType::F16 { half::f16::from_bits(bits).to_f64() } else { half::bf16::from_bits(bits).to_f64() }
}

fn e4m3(code: u8) -> f64 {
    let (exponent, mantissa) = (i32::from(code >> 3 & 15), f64::from(code & 7));
    let magnitude = if exponent == 0 { mantissa / 512.0 } else { (8.0 + mantissa) / 8.0 * 2f64.powi(exponent - 7) };
    if code & 0x80 == 0 { magnitude } else { -magnitude }
}

/// s·c + m of an element of a tile in the host's order.
fn element(
    geometry: &TileGeometry,
    side: &SideGeometry,
    tile: &[u8],
    token: usize,
    channel: usize,
    dtype: DType,
) -> f64 {
    let bit = (token * geometry.channels + channel) * side.bits;
    let code = tile[side.codes_at + bit / 8] >> (bit % 8) & (u8::MAX >> (8 - side.bits));
    let at = side.parameters_at + 2 * side.group_index(token, channel);
    let scale = real(&tile[at..], dtype);
    if side.groups.is_none() {
        return scale * e4m3(code);
    }
    scale * f64::from(code) + real(&tile[at + side.scale_bytes..], dtype)
}

/// Keys and values `[B·Hkv][S·D]` that a view holds, from position 0; what is no longer held is NaN.
fn held(view: &LayerView<'_>, is_key: bool) -> Vec<Vec<f64>> {
    let dtype = view.window.dtype();
    let (slots, d) = (view.window.dim(3).unwrap(), view.window.dim(4).unwrap());
    let heads = view.window.dim(1).unwrap() * view.window.dim(2).unwrap();
    let window = wide(&view.window.get(usize::from(!is_key)).unwrap());
    let mut rows = vec![vec![f64::NAN; view.window_positions.end * d]; heads];
    for (head, rows) in rows.iter_mut().enumerate() {
        for position in view.window_positions.clone() {
            let from = (head * slots + position % slots) * d;
            rows[position * d..][..d].copy_from_slice(&window[from..from + d]);
        }
    }
    let Some(packed) = &view.packed else { return rows };
    let (geometry, tiles) = (packed.geometry, packed.tiles.dim(2).unwrap());
    let bytes: Vec<u8> = packed.tiles.to_device(&Device::Cpu).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    let side = if is_key { &geometry.key } else { &geometry.value };
    for (head, rows) in rows.iter_mut().enumerate() {
        for first in packed.positions.clone().step_by(geometry.tokens) {
            let index = head * tiles + first / geometry.tokens % tiles;
            let tile = to_host_order(&geometry, &bytes[index * geometry.bytes()..][..geometry.bytes()]);
            for position in first..first + geometry.tokens {
                for channel in 0..d {
                    rows[position * d + channel] = element(&geometry, side, &tile, position - first, channel, dtype);
                }
            }
        }
    }
    rows
}

/// Attention of the last T positions in float64, `[B, Hq, T, D]`.
fn reference(q: &Tensor, view: &LayerView<'_>, scale: f64) -> Vec<f64> {
    let (_, q_heads, tokens, d) = q.dims4().unwrap();
    let kv_heads = view.window.dim(2).unwrap();
    let (keys, values, end) = (held(view, true), held(view, false), view.window_positions.end);
    let mut out = Vec::new();
    for (row, query) in wide(q).chunks_exact(d).enumerate() {
        let (batch, head, token) = (row / tokens / q_heads, row / tokens % q_heads, row % tokens);
        let pair = batch * kv_heads + head / (q_heads / kv_heads);
        let position = end - tokens + token;
        let first = view.sliding_window.map_or(0, |window| (position + 1).saturating_sub(window));
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

fn check(gpu: &Device, spec: &str, case: Case, head_dim: usize, dtype: DType) {
    let Case { heads: (q_heads, kv_heads), tokens, cached, sliding_window, kind } = case;
    let what = format!("{spec} D {head_dim} {dtype:?} {case:?}");
    let dims = [2, kv_heads, cached, head_dim];
    let [k, v] = [(kind, 11), (Kind::Normal, 12)]
        .map(|(kind, seed)| inputs::tensor(kind, dims, dtype, seed).to_device(gpu).unwrap());
    let q = inputs::tensor(Kind::Normal, [2, q_heads, tokens, head_dim], dtype, 13);
    let shape = CacheShape {
        layers: 1,
        batch: 2,
        kv_heads,
        head_dim,
        capacity: 1200,
        max_chunk: 64,
        sliding_window,
        dtype,
        device: gpu.clone(),
    };
    let mut cache = cache::new(spec.parse().unwrap(), shape).unwrap();
    let mut start = 0;
    while start < cached {
        let history = cached - tokens;
        let count = if start < history { (history - start).min(64) } else { tokens };
        cache.append(0, &k.narrow(2, start, count).unwrap(), &v.narrow(2, start, count).unwrap()).unwrap();
        start += count;
        if start < cached {
            cache.settle(0).unwrap();
            cache.advance(count);
        }
    }
    let fused = attention::new("fused").unwrap();
    let (view, scale) = (cache.view(0), 1.0 / (head_dim as f64).sqrt());
    assert!(fused.kernel(tokens, &view).starts_with("decode_"), "{what}: {}", fused.kernel(tokens, &view));
    let out = wide(&fused.attend(&q.to_device(gpu).unwrap(), &view, scale).unwrap());
    let expected = reference(&q, &view, scale);
    assert_eq!(out.len(), expected.len(), "{what}");
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    let error = norm(&mut out.iter().zip(&expected).map(|(a, b)| a - b)) / norm(&mut expected.iter().copied());
    // The result's own rounding to bfloat16 is half of the limit there.
    let limit = if dtype == DType::F16 { 2e-3 } else { 4e-3 };
    assert!(error < limit, "{what}: relative error {error:.2e}");
}

#[test]
fn fused_decode_matches_float64_over_the_stored_codes() {
    let Some(gpu) = crate::gpu("fused_decode_matches_float64_over_the_stored_codes") else { return };
    for head_dim in [64, 128] {
        for dtype in [DType::F16, DType::BF16] {
            for preset in &PRESETS {
                for case in CASES {
                    check(&gpu, preset.name, case, head_dim, dtype);
                }
            }
        }
    }
}
