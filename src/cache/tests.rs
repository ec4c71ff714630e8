//! What every cache promises, whatever is stored in it.

use candle_core::{DType, Device, Tensor};
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{CacheBytes, CacheShape, KvCache, new, ops};
use crate::quant::QuantSpec;
use crate::quant::presets::PRESETS;

fn spec(text: &str) -> QuantSpec {
    text.parse().unwrap()
}

fn shape(capacity: usize, max_chunk: usize) -> CacheShape {
    CacheShape {
        windows: vec![None; 3],
        batch: 2,
        kv_heads: 2,
        head_dim: 64,
        capacity,
        max_chunk,
        dtype: DType::F32,
        device: Device::Cpu,
    }
}

/// Keys or values of positions `0..tokens`: the same numbers for a position however it is fed.
fn stream(shape: &CacheShape, tokens: usize, seed: u64) -> Tensor {
    let mut rng = StdRng::seed_from_u64(seed);
    let dims = (shape.batch, shape.kv_heads, tokens, shape.head_dim);
    let count = shape.batch * shape.kv_heads * tokens * shape.head_dim;
    let data: Vec<f32> = (0..count).map(|_| rng.random_range(-3.0f32..3.0)).collect();
    Tensor::from_vec(data, dims, &shape.device).unwrap().to_dtype(shape.dtype).unwrap()
}

/// Feeds positions of (k, v) to all layers in chunks.
fn feed(cache: &mut dyn KvCache, (k, v): (&Tensor, &Tensor), chunks: impl IntoIterator<Item = usize>) {
    for tokens in chunks {
        let start = cache.len();
        for layer in 0..cache.shape().layers() {
            cache.append(layer, &k.narrow(2, start, tokens).unwrap(), &v.narrow(2, start, tokens).unwrap()).unwrap();
            cache.settle(layer).unwrap();
        }
        cache.advance(tokens);
    }
}

fn tile_bytes(cache: &dyn KvCache, layer: usize) -> Vec<u8> {
    let view = cache.view(layer);
    view.packed.map_or(Vec::new(), |packed| packed.tiles.flatten_all().unwrap().to_vec1().unwrap())
}

fn numbers(x: &Tensor) -> Vec<f32> {
    x.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn the_ledger_is_what_was_allocated_for_every_preset_and_length() {
    let mut rng = StdRng::seed_from_u64(1);
    for preset in &PRESETS {
        for _ in 0..100 {
            let mut shape = shape(rng.random_range(1..2000), rng.random_range(1..300));
            shape.dtype = [DType::F32, DType::F16, DType::BF16][rng.random_range(0..3usize)];
            shape.windows.fill([None, Some(rng.random_range(1..700))][rng.random_range(0..2usize)]);
            let mut spec = spec(preset.name).with_residual(rng.random_range(0..200));
            if rng.random_range(0..3) == 0 && spec.is_quantized() {
                spec.keep_layers = vec![rng.random_range(0..3)];
            }
            let cache = new(spec, shape).unwrap();
            assert_eq!(cache.allocated(), cache.predicted(), "{} {:?}", preset.name, cache.shape());
        }
    }
}

#[test]
fn the_ledger_follows_from_bits_and_groups() {
    // 4224 tokens, residual 128: 64 blocks leave; the window holds residual + block - 1 + chunk, rounded up to blocks.
    let mut shape = shape(128 + 64 * 64, 64);
    shape.dtype = DType::F16;
    let cache = new(spec("int4-hqq"), shape.clone()).unwrap();
    let heads = 3 * 2 * 2;
    let elements = 2 * heads * 64 * 64 * 64;
    assert_eq!(
        cache.allocated(),
        CacheBytes { codes: elements / 2, parameters: elements / 64 * 4, window: 2 * heads * 256 * 64 * 2, scratch: 8 }
    );
    let full = new(QuantSpec::none(), shape.clone()).unwrap().allocated();
    assert_eq!(full, CacheBytes { window: 2 * heads * 4224 * 64 * 2, scratch: 8, ..CacheBytes::default() });
    let kept = new(spec("int4-hqq,keep-layers=1"), shape).unwrap().allocated();
    assert_eq!(kept.codes * 3, cache.allocated().codes * 2);
    assert_eq!(kept.window, cache.allocated().window / 3 * 2 + full.window / 3);
}

#[test]
fn a_shared_sliding_window_is_given_room_for_what_a_token_sees_and_no_more() {
    let mut shape = shape(1500, 64);
    shape.windows.fill(Some(300));
    let heads = 3 * 2 * 2;
    let slot = 2 * heads * 64 * 4;
    // A token sees 299 before it, and 64 are appended at once; slots come in blocks of 64.
    let full = new(QuantSpec::none(), shape.clone()).unwrap().allocated();
    assert_eq!(full, CacheBytes { window: slot * 384, scratch: 8, ..CacheBytes::default() });
    // Of the 299 the window holds 64 or more: 235 lie in four blocks. It grows to a block and 63 before one leaves.
    let packed = new(spec("int8-hqq,residual=64"), shape).unwrap().allocated();
    assert_eq!((packed.codes, packed.window), (2 * heads * 4 * 64 * 64, slot * 192));
}

#[test]
fn a_block_leaves_only_when_the_window_holds_residual_and_block() {
    for (text, residual, block) in
        [("int4-hqq", 128, 64), ("int2-kivi,residual=10,k-group=128", 10, 128), ("fp8,residual=0", 0, 64)]
    {
        let shape = shape(700, 64);
        let (k, v) = (stream(&shape, 600, 1), stream(&shape, 600, 2));
        let mut cache = new(spec(text), shape).unwrap();
        for token in 0..600 {
            let until = cache.tokens_until_flush().unwrap();
            let before = cache.view(0).window_positions.start;
            feed(cache.as_mut(), (&k, &v), [1]);
            let view = cache.view(0);
            let in_window = view.window_positions.len();
            assert!(in_window < residual + block && (in_window >= residual || token + 1 < residual + block), "{text}");
            assert_eq!(view.window_positions.start, view.packed.as_ref().unwrap().positions.end);
            assert_eq!(view.positions(), 0..token + 1);
            assert_eq!(
                view.window_positions.start != before,
                until == 1,
                "{text}: a flush comes when it was announced"
            );
        }
    }
}

#[test]
fn a_full_precision_cache_never_flushes() {
    assert_eq!(new(QuantSpec::none(), shape(100, 10)).unwrap().tokens_until_flush(), None);
    assert_eq!(new(spec("int4-hqq,keep-layers=0+1+2"), shape(1000, 10)).unwrap().tokens_until_flush(), None);
    assert_eq!(new(spec("int4-hqq"), shape(150, 10)).unwrap().tokens_until_flush(), None, "no block can ever leave");
    assert_eq!(new(spec("int4-hqq"), shape(192, 10)).unwrap().tokens_until_flush(), Some(192));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn chunk_sizes_do_not_change_codes(
        preset in prop::sample::select(PRESETS[1..].to_vec()),
        residual in 0usize..150,
        chunks in prop::collection::vec(1usize..200, 1..8),
        sliding in prop::option::of(1usize..500),
    ) {
        let tokens: usize = chunks.iter().sum();
        let mut shape = shape(tokens, 200);
        shape.windows = vec![sliding];
        let (k, v) = (stream(&shape, tokens, 1), stream(&shape, tokens, 2));
        let spec = spec(preset.name).with_residual(residual);
        let mut chunked = new(spec.clone(), shape.clone()).unwrap();
        feed(chunked.as_mut(), (&k, &v), chunks);
        let mut single = new(spec, shape).unwrap();
        feed(single.as_mut(), (&k, &v), vec![1; tokens]);
        prop_assert_eq!(chunked.view(0).window_positions, single.view(0).window_positions);
        prop_assert_eq!(tile_bytes(chunked.as_ref(), 0), tile_bytes(single.as_ref(), 0));
    }
}

#[test]
fn the_window_reads_back_exactly_after_wrapping() {
    let mut shape = shape(1000, 100);
    shape.windows.fill(Some(90));
    let (k, v) = (stream(&shape, 1000, 1), stream(&shape, 1000, 2));
    let mut cache = new(QuantSpec::none(), shape).unwrap();
    for chunk in [100, 100, 3, 100, 64, 1, 100, 100, 100] {
        feed(cache.as_mut(), (&k, &v), [chunk]);
        let view = cache.view(2);
        let held = view.positions();
        assert!(held.end == cache.len() && held.len() >= 90.min(held.end));
        let dense = ops::dense(&view, held.clone()).unwrap();
        for (side, original) in [(0, &k), (1, &v)] {
            let expected = numbers(&original.narrow(2, held.start, held.len()).unwrap());
            assert_eq!(numbers(&dense.get(side).unwrap()), expected);
        }
    }
}

#[test]
fn packed_positions_read_back_close_and_recent_ones_exactly() {
    let shape = shape(600, 64);
    let (k, v) = (stream(&shape, 600, 1), stream(&shape, 600, 2));
    for (text, most) in [("int8-hqq", 0.02), ("int8-hqq-token", 0.02), ("int4-kivi", 0.21), ("fp8", 0.2)] {
        let mut cache = new(spec(text), shape.clone()).unwrap();
        feed(cache.as_mut(), (&k, &v), [64; 9]);
        let view = cache.view(1);
        let recent = view.window_positions.clone();
        assert!(recent.start == 448 && recent.end == 576, "{text}: {recent:?}");
        for (positions, most) in [(0..448, most), (recent, 0.0)] {
            let dense = ops::dense(&view, positions.clone()).unwrap();
            for (side, original) in [(0, &k), (1, &v)] {
                let expected = numbers(&original.narrow(2, positions.start, positions.len()).unwrap());
                let got = numbers(&dense.get(side).unwrap());
                let worst = expected.iter().zip(&got).fold(0.0f32, |w, (a, b)| w.max((a - b).abs()));
                assert!(worst <= most, "{text}: {worst} at {positions:?}");
                assert!(most == 0.0 || worst > 0.0, "{text} stored nothing");
            }
        }
    }
}

#[test]
fn tiles_of_a_sliding_window_wrap_and_keep_the_newest() {
    let mut long = shape(1500, 64);
    long.windows = vec![None];
    let mut sliding = long.clone();
    sliding.windows = vec![Some(300)];
    let (k, v) = (stream(&long, 1500, 1), stream(&long, 1500, 2));
    for text in ["int4-hqq,residual=64", "int2-kivi,group=64,residual=1"] {
        let mut whole = new(spec(text), long.clone()).unwrap();
        let mut ring = new(spec(text), sliding.clone()).unwrap();
        assert!(ring.allocated().codes < whole.allocated().codes / 3);
        for _ in 0..23 {
            feed(whole.as_mut(), (&k, &v), [64]);
            feed(ring.as_mut(), (&k, &v), [64]);
            let held = ring.view(0).positions();
            assert!(held.len() >= 299.min(held.end), "the next token sees itself and 299 before it");
            let [a, b] = [&whole, &ring].map(|cache| numbers(&ops::dense(&cache.view(0), held.clone()).unwrap()));
            assert_eq!(a, b);
        }
    }
}

#[test]
fn kept_layers_hold_no_codes() {
    let shape = shape(600, 64);
    let (k, v) = (stream(&shape, 600, 1), stream(&shape, 600, 2));
    let mut cache = new(spec("int2-hqq,keep-layers=0+2"), shape).unwrap();
    feed(cache.as_mut(), (&k, &v), [64; 9]);
    for layer in [0, 2] {
        assert!(cache.view(layer).packed.is_none());
        assert_eq!(cache.view(layer).window_positions, 0..576);
    }
    assert_eq!(cache.view(1).packed.unwrap().positions, 0..448);
}

#[test]
fn key_reads_are_counted_pair_by_pair() {
    for windows in [[None; 3], [Some(150); 3], [None, Some(20), Some(150)], [Some(40), None, None]] {
        let shape = CacheShape { windows: windows.into(), ..shape(600, 64) };
        let (k, v) = (stream(&shape, 600, 1), stream(&shape, 600, 2));
        let mut cache = new(spec("int4-hqq,residual=32,keep-layers=1"), shape).unwrap();
        let (mut from_codes, mut total) = (0, 0);
        for tokens in [64, 64, 64, 1, 1, 40, 64, 64, 64] {
            let (start, packed) = (cache.len(), cache.view(0).packed.map_or(0..0, |p| p.positions));
            for query in start..start + tokens {
                for (layer, window) in windows.into_iter().enumerate() {
                    for key in (0..=query).filter(|key| window.is_none_or(|w| query - key < w)) {
                        // 2 sequences; layer 1 keeps full precision.
                        total += 2;
                        from_codes += if layer != 1 && packed.contains(&key) { 2 } else { 0 };
                    }
                }
            }
            feed(cache.as_mut(), (&k, &v), [tokens]);
        }
        let reads = cache.key_reads();
        assert_eq!((reads.from_codes, reads.total), (from_codes, total), "{windows:?}");
        cache.reset();
        assert_eq!(cache.key_reads().total, 0);
    }
}

#[test]
fn a_reset_cache_repeats_itself() {
    let shape = shape(400, 50);
    let (k, v) = (stream(&shape, 400, 1), stream(&shape, 400, 2));
    let mut cache = new(spec("int4-hqq"), shape).unwrap();
    feed(cache.as_mut(), (&k, &v), [50; 8]);
    let first = tile_bytes(cache.as_ref(), 0);
    let allocated = cache.allocated();
    cache.reset();
    assert!(cache.is_empty() && cache.view(0).positions().is_empty());
    feed(cache.as_mut(), (&v, &k), [50; 8]);
    assert_ne!(tile_bytes(cache.as_ref(), 0), first);
    cache.reset();
    feed(cache.as_mut(), (&k, &v), [50; 8]);
    assert_eq!(tile_bytes(cache.as_ref(), 0), first);
    assert_eq!(cache.allocated(), allocated);
}

#[test]
fn numbers_that_are_not_finite_are_refused_with_layer_and_position() {
    let shape = shape(400, 64);
    let good = stream(&shape, 10, 1);
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut data = numbers(&good);
        // Second batch entry, token 7.
        data[(2 * 10 + 7) * 64 + 3] = bad;
        let broken = Tensor::from_vec(data, (2, 2, 10, 64), &Device::Cpu).unwrap();
        let mut cache = new(spec("int4-hqq"), shape.clone()).unwrap();
        feed(cache.as_mut(), (&good, &good), [10]);
        let error = cache.append(1, &good, &broken).unwrap_err().to_string();
        assert!(error.contains("layer 1, position 17: a value is NaN or infinite"), "{error}");
        let error = cache.append(2, &broken, &good).unwrap_err().to_string();
        assert!(error.contains("layer 2, position 17: a key"), "{error}");
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let x = |tokens| stream(&shape(100, 20), tokens, 1);
    let mut cache = new(QuantSpec::none(), shape(100, 20)).unwrap();
    assert!(cache.append(0, &x(21), &x(21)).unwrap_err().to_string().contains("at most 20"));
    cache.advance(90);
    assert!(cache.append(0, &x(11), &x(11)).unwrap_err().to_string().contains("made for 100 tokens"));
    assert!(new(QuantSpec::none(), CacheShape { dtype: DType::U8, ..shape(100, 20) }).is_err());
    assert!(new(QuantSpec::none(), shape(0, 20)).is_err());
    assert!(new(spec("int4-hqq-token"), CacheShape { head_dim: 80, ..shape(100, 20) }).is_err());
    assert!(new(spec("int4-hqq,keep-layers=3"), shape(100, 20)).is_err());
}

#[test]
fn blocks_that_were_not_settled_are_noticed_before_they_are_overwritten() {
    let shape = shape(1000, 64);
    let (k, v) = (stream(&shape, 64, 1), stream(&shape, 64, 2));
    let mut cache = new(spec("int4-hqq"), shape).unwrap();
    for _ in 0..3 {
        cache.append(0, &k, &v).unwrap();
        cache.advance(64);
    }
    assert!(cache.append(0, &k, &v).unwrap_err().to_string().contains("layer 0: a forward pass has not been settled"));
}

#[test]
fn a_long_chunk_passes_through_one_staging_ring_that_all_layers_share() {
    let (short, long) = (shape(4096, 64), shape(4096, 1000));
    let (k, v) = (stream(&long, 2400, 1), stream(&long, 2400, 2));
    for (text, residual, block) in [("int4-hqq", 128, 64), ("int2-kivi,residual=40,k-group=128", 40, 128)] {
        let mut direct = new(spec(text), short.clone()).unwrap();
        let mut staged = new(spec(text), long.clone()).unwrap();
        // 2 sides, 2 sequences, 2 heads of 64 channels in f32.
        let slots = (residual + block - 1 + 1000usize).next_multiple_of(block);
        let scratch = (2 * 2 * 2 * slots * 64 * 4) as u64 + 8;
        assert_eq!(staged.allocated(), CacheBytes { scratch, ..direct.allocated() });
        assert_eq!(direct.allocated().scratch, 8);
        feed(direct.as_mut(), (&k, &v), [60; 40]);
        feed(staged.as_mut(), (&k, &v), [1000, 1, 64, 65, 900, 7, 300, 63]);
        for layer in 0..3 {
            let [a, b] = [&direct, &staged].map(|cache| {
                let view = cache.view(layer);
                (view.window_positions.clone(), numbers(&ops::dense(&view, 0..2400).unwrap()))
            });
            assert_eq!(a, b, "{text} layer {layer}");
        }
    }
}

#[test]
fn the_staging_ring_is_not_given_away_before_its_layer_is_settled() {
    let shape = shape(1000, 300);
    let (k, v) = (stream(&shape, 300, 1), stream(&shape, 300, 2));
    let mut cache = new(spec("int4-hqq"), shape).unwrap();
    cache.append(0, &k, &v).unwrap();
    cache.append(0, &k, &v).unwrap();
    assert!(cache.append(1, &k, &v).unwrap_err().to_string().contains("layer 0: a forward pass has not been settled"));
    cache.settle(0).unwrap();
    cache.append(1, &k, &v).unwrap();
    cache.advance(300);
    assert!(cache.append(1, &k, &v).unwrap_err().to_string().contains("layer 1: a forward pass has not been settled"));
    cache.reset();
    cache.append(1, &k, &v).unwrap();
}

#[test]
fn four_bits_save_what_they_promise_at_long_contexts_even_with_long_chunks() {
    let shape = CacheShape {
        windows: vec![None; 32],
        batch: 1,
        kv_heads: 2,
        head_dim: 128,
        capacity: 32768,
        max_chunk: 2048,
        dtype: DType::F16,
        device: Device::Cpu,
    };
    let full = new(QuantSpec::none(), shape.clone()).unwrap().allocated().total();
    let four = new(spec("int4-hqq"), shape).unwrap().allocated().total();
    // 16 bits against 4.5 are 3.56; the window and the staging ring take the rest.
    let ratio = full as f64 / four as f64;
    assert!((3.4..3.56).contains(&ratio), "{ratio}");
}

#[test]
fn a_rewound_cache_has_the_shape_it_had_and_goes_on_as_before() {
    for text in ["none", "int4-hqq,residual=64", "int2-kivi,residual=10,k-group=128", "fp8,residual=0"] {
        let shape = shape(700, 300);
        let (k, v) = (stream(&shape, 600, 1), stream(&shape, 600, 2));
        let mut cache = new(spec(text), shape).unwrap();
        feed(cache.as_mut(), (&k, &v), [300, 57]);
        let places = |cache: &dyn KvCache| {
            let view = cache.view(0);
            (cache.len(), view.positions(), view.window_positions, cache.tokens_until_flush())
        };
        let before = places(cache.as_ref());
        for _ in 0..2 {
            feed(cache.as_mut(), (&k, &v), vec![1; 200]);
            assert_ne!(places(cache.as_ref()), before);
            cache.rewind(357);
            assert_eq!(places(cache.as_ref()), before, "{text}");
        }
    }
}

#[test]
fn a_token_reads_what_the_sliding_window_of_each_layer_shows_it() {
    let all = shape(512, 64);
    let (k, v) = (stream(&all, 500, 1), stream(&all, 500, 2));
    let fed = |name: &str, windows: [Option<usize>; 2]| {
        let mut cache = new(spec(name), CacheShape { windows: windows.into(), ..all.clone() }).unwrap();
        feed(cache.as_mut(), (&k, &v), [64; 7].into_iter().chain([52]));
        cache
    };
    let slot = 2 * 64 * 4;
    let heads = (all.batch * all.kv_heads) as u64;
    assert_eq!(fed("none", [None, None]).read_bytes(), heads * 2 * 500 * slot);
    assert_eq!(fed("none", [None, Some(100)]).read_bytes(), heads * 600 * slot);
    let packed = fed("int4-hqq", [None, None]);
    // 320 of 500 tokens are five tiles.
    let tile = packed.view(0).packed.unwrap().geometry.bytes() as u64;
    assert_eq!(packed.view(0).window_positions, 320..500);
    assert_eq!(packed.read_bytes(), heads * 2 * (5 * tile + 180 * slot));
    // Positions 300 to 499, of which the first twenty are in the last tile; and 400 to 499.
    assert_eq!(fed("int4-hqq", [Some(200), Some(100)]).read_bytes(), heads * (tile + (180 + 100) * slot));
}
