//! Fused decode attention on the GPU against float64 attention over what the tiles say: codes, scales and minima as stored.

use candle_core::{DType, Device, Tensor};
use kvprof::cache::LayerView;
use kvprof::model::attention;
use kvprof::quant::presets::PRESETS;
use kvprof::quant::tile::{SideGeometry, TileGeometry};

use crate::inputs::{self, Kind};
use crate::reference::{self, Case, assert_close, case, wide};
use crate::tile::to_host_order;

const CASES: [Case; 12] = [
    // A single token; nothing is packed.
    case((4, 2), 1, 1, None, Kind::Normal),
    // Tiles and a window whose length is a multiple of nothing.
    case((8, 2), 1, 611, None, Kind::Normal),
    case((7, 1), 1, 1030, None, Kind::Outlier),
    case((2, 2), 1, 300, None, Kind::Constant),
    case((16, 2), 1, 700, None, Kind::Bias),
    // More than eight rows, so several passes; a few new tokens.
    case((12, 1), 1, 450, None, Kind::Normal),
    case((6, 2), 3, 391, None, Kind::Normal),
    // As many new tokens as are taken over tiles; an unquantized cache takes four.
    case((8, 2), 16, 620, None, Kind::Normal),
    case((7, 1), 9, 399, None, Kind::Outlier),
    case((4, 2), 16, 900, Some(150), Kind::Normal),
    // The sliding window cuts a tile, and the ring of tiles has wrapped.
    case((4, 1), 1, 1101, Some(300), Kind::Normal),
    case((4, 2), 2, 777, Some(150), Kind::Normal),
];

/// Mixtures with a kernel beside those of presets.
const MIXTURES: [&str; 8] = [
    "int4-hqq,group=32",
    "int4-quanto,group=32",
    "int8-hqq-token,group=32",
    "int4-hqq,k-bits=8",
    "int4-hqq-kivi,k-bits=8",
    "int4-quanto,k-bits=8",
    "int4-hqq,v-bits=2",
    "int4-hqq-kivi,v-bits=2",
];

fn specs() -> impl Iterator<Item = &'static str> {
    PRESETS.iter().map(|preset| preset.name).chain(MIXTURES)
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

fn check(gpu: &Device, spec: &str, case: Case, head_dim: usize, dtype: DType) {
    let (q_heads, kv_heads) = case.heads;
    let dims = [2, kv_heads, case.cached, head_dim];
    let [k, v] = [(case.kind, 11), (Kind::Normal, 12)].map(|(kind, seed)| inputs::tensor(kind, dims, dtype, seed));
    let q = inputs::tensor(Kind::Normal, [2, q_heads, case.tokens, head_dim], dtype, 13);
    check_with(gpu, spec, case, [&q, &k, &v]);
}

fn check_with(gpu: &Device, spec: &str, case: Case, [q, k, v]: [&Tensor; 3]) {
    let (head_dim, dtype) = (k.dim(3).unwrap(), k.dtype());
    let what = format!("{spec} D {head_dim} {dtype:?} {case:?}");
    let cache = case.cache(spec.parse().unwrap(), k, v, 64, gpu);
    let fused = attention::new("fused").unwrap();
    let (view, scale) = (cache.view(0), 1.0 / (head_dim as f64).sqrt());
    let kernel = fused.kernel(case.heads.0, case.tokens, &view);
    let rows = if case.heads.0 / case.heads.1 * case.tokens <= 4 { "_r4" } else { "_r8" };
    assert!(kernel.starts_with("decode_") && kernel.ends_with(rows), "{what}: {kernel}");
    let out = wide(&fused.attend(&q.to_device(gpu).unwrap(), &view, scale).unwrap());
    let expected = reference::attention(q, &held(&view, true), &held(&view, false), view.sliding_window, scale);
    assert_close(&out, &expected, dtype, &what);
}

#[test]
fn fused_decode_matches_float64_over_the_stored_codes() {
    let Some(gpu) = crate::gpu("fused_decode_matches_float64_over_the_stored_codes") else { return };
    for head_dim in [64, 128] {
        for dtype in [DType::F16, DType::BF16] {
            for spec in specs() {
                for case in CASES.into_iter().filter(|case| spec != "none" || case.tokens <= 4) {
                    check(&gpu, spec, case, head_dim, dtype);
                }
            }
        }
    }
}

/// Tokens that take 5 or 12 nats more than the others and have nothing to say, as first tokens of models do, one to a tile, before small
/// values: probabilities times scales would be numbers that a 16-bit float holds barely (errors of 0.005 to 0.01 behind 5 nats), or
/// not. Behind 12, so is the output itself, unless it is a bfloat16.
#[test]
fn small_values_are_read_past_tokens_that_take_most_of_the_attention() {
    let Some(gpu) = crate::gpu("small_values_are_read_past_tokens_that_take_most_of_the_attention") else { return };
    let case = case((8, 2), 1, 1101, None, Kind::Normal);
    for head_dim in [64, 128] {
        for (dtype, nats) in [(DType::F16, 5.0), (DType::BF16, 5.0), (DType::BF16, 12.0)] {
            for spec in specs() {
                let [k, v] =
                    [21, 22].map(|seed| inputs::tensor(Kind::Normal, [2, 2, case.cached, head_dim], dtype, seed));
                let k = with_sinks(&k, nats / (head_dim as f64).sqrt());
                let v = with_sinks(&(v * 0.01).unwrap(), 0.0);
                check_with(&gpu, spec, case, [&filled(1.0, [2, 8, 1, head_dim], dtype), &k, &v]);
            }
        }
    }
}

/// The first tiles have small values, the last ones large ones, so that probabilities have to become smaller on the way to be multiplied by their
/// scales.
#[test]
fn values_may_grow_while_they_are_read() {
    let Some(gpu) = crate::gpu("values_may_grow_while_they_are_read") else { return };
    let case = case((8, 2), 1, 1100, None, Kind::Normal);
    for dtype in [DType::F16, DType::BF16] {
        for spec in specs() {
            let dims = [2, 2, case.cached, 128];
            let [q, k, v] = [(31, [2, 8, 1, 128]), (32, dims), (33, dims)]
                .map(|(seed, dims)| inputs::tensor(Kind::Normal, dims, dtype, seed));
            let part = |from: usize, to: usize, size: f64| (v.narrow(2, from, to - from).unwrap() * size).unwrap();
            let v = Tensor::cat(&[part(0, 300, 0.01), part(300, 600, 3.0), part(600, 1100, 3000.0)], 2).unwrap();
            check_with(&gpu, spec, case, [&q, &k, &v]);
        }
    }
}

/// Every 64th token of `x`, from the first on, filled with `y`.
fn with_sinks(x: &Tensor, y: f64) -> Tensor {
    let [batch, heads, tokens, head_dim] = x.dims4().map(|(b, h, t, d)| [b, h, t, d]).unwrap();
    let parts: Vec<_> = (0..tokens)
        .step_by(64)
        .flat_map(|at| {
            let rest = tokens.min(at + 64) - at - 1;
            [filled(y, [batch, heads, 1, head_dim], x.dtype()), x.narrow(2, at + 1, rest).unwrap()]
        })
        .collect();
    Tensor::cat(&parts, 2).unwrap()
}

fn filled(x: f64, dims: [usize; 4], dtype: DType) -> Tensor {
    Tensor::full(x as f32, &dims[..], &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
}
