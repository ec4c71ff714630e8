//! Properties of the fits and of whole tiles.

use half::{bf16, f16};
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::codec::{Side, TileCodec, fit_group};
use super::fit::GroupFit;
use super::presets::PRESETS;
use super::{Fit, QuantSpec, Real, Scheme, TileGeometry, fp8};

/// A group of one of the sizes there are, drawn from numbers of very different sizes and rounded to `P`.
fn groups<P: Real>() -> impl Strategy<Value = Vec<f32>> {
    let size = prop::sample::select(vec![16usize, 32, 64, 128]);
    (size, -8i32..8, any::<u64>()).prop_map(|(size, exponent, seed)| {
        let mut rng = StdRng::seed_from_u64(seed);
        let offset = rng.random_range(-4.0f32..4.0);
        (0..size).map(|_| P::narrow((rng.random_range(-1.0f32..1.0) + offset) * 2f32.powi(exponent)).widen()).collect()
    })
}

/// Half the distance between two neighbours of size `x` in `P`, or more.
fn rounding<P: Real>(x: f32) -> f32 {
    let digits = match (P::BYTES, P::narrow(257.0).widen() == 257.0) {
        (4, _) => 23,
        (_, true) => 10,
        (_, false) => 7,
    };
    x.abs() * 2f32.powi(-digits) + 1e-7
}

fn stays_within_half_a_step<P: Real>(values: &[f32], bits: u8) -> Result<(), TestCaseError> {
    let mut codes = vec![0; values.len()];
    let pair = fit_group::<P>(Fit::MinMax, values, bits, &mut codes);
    let (scale, levels) = (pair.scale.widen(), f32::from(u8::MAX >> (8 - bits)));
    let size = values.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    // The rounded scale may reach short of the maximum by `levels` times its own rounding error.
    let allowed = scale / 2.0 + rounding::<P>(size) + levels * rounding::<P>(scale);
    for (x, code) in values.iter().zip(&codes) {
        let back = pair.value(*code).widen();
        prop_assert!((x - back).abs() <= allowed, "{} read back as {} with a step of {}", x, back, scale);
    }
    Ok(())
}

/// HQQ as QUANTIZATION.md writes it, in float64 throughout, with the plainest loops. Returns S and the z of every step at which
/// to stop is right: the refinement stops where an error no longer falls, and in units of 2^-16 of a code a fall by less than that
/// cannot be told from none, so it may stop at any step of such a plateau.
fn hqq_float64(values: &[f32], bits: u8) -> (f64, Vec<f64>) {
    let x: Vec<f64> = values.iter().map(|x| f64::from(*x)).collect();
    let levels = (1u32 << bits) as f64 - 1.0;
    let (min, max) = x.iter().fold((f64::MAX, f64::MIN), |(min, max), x| (min.min(*x), max.max(*x)));
    let scale = (levels / (max - min)).min(2e4);
    let unit = 1.0 / 65536.0 / scale;
    let mut zero = -min * scale;
    let mut best = f64::INFINITY;
    let mut stops = Vec::new();
    for step in 1..=20 {
        let quantized: Vec<f64> = x.iter().map(|x| (x * scale + zero).round_ties_even().clamp(0.0, levels)).collect();
        let errors: Vec<f64> = x.iter().zip(&quantized).map(|(x, q)| x - (q - zero) / scale).collect();
        let shrunk = errors.iter().map(|e| e.signum() * (e.abs() - e.abs().powf(-0.3) / 10.0).max(0.0));
        let terms = x.iter().zip(&quantized).zip(shrunk).map(|((x, q), e)| q - (x - e) * scale);
        zero = terms.sum::<f64>() / x.len() as f64;
        let error = errors.iter().map(|e| e.abs()).sum::<f64>() / x.len() as f64;
        if step == 20 || error >= best - 2.0 * unit {
            stops.push(zero);
        }
        if error >= best + 2.0 * unit {
            break;
        }
        best = best.min(error);
    }
    (scale, stops)
}

/// How far, in codes, the zero point of a pair is from those of the transcription.
fn zero_from_transcription(pair: GroupFit<f32>, values: &[f32], bits: u8) -> f64 {
    let (scale, stops) = hqq_float64(values, bits);
    assert!((f64::from(pair.scale) * scale - 1.0).abs() < 1e-6);
    stops.into_iter().map(|zero| (f64::from(pair.minimum) * scale + zero).abs()).fold(f64::INFINITY, f64::min)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn minmax_errs_by_half_a_step_at_most(
        (single, half, brain) in (groups::<f32>(), groups::<f16>(), groups::<bf16>()),
        bits in prop::sample::select(vec![2u8, 4, 8]),
    ) {
        stays_within_half_a_step::<f32>(&single, bits)?;
        stays_within_half_a_step::<f16>(&half, bits)?;
        stays_within_half_a_step::<bf16>(&brain, bits)?;
    }

    #[test]
    fn constant_groups_are_exact(
        value in any::<f32>().prop_filter("finite", |x| x.is_finite()),
        bits in prop::sample::select(vec![2u8, 4, 8]),
    ) {
        for fit in [Fit::MinMax, Fit::Hqq] {
            let mut codes = [7u8; 32];
            let pair = fit_group::<f32>(fit, &[value; 32], bits, &mut codes);
            prop_assert_eq!(codes, [0; 32]);
            prop_assert_eq!(pair.scale, 1.0);
            prop_assert_eq!(pair.value(0), value);
        }
    }

    #[test]
    fn a_group_too_narrow_for_a_scale_is_stored_as_its_minimum(step in 1u16..5, bits in prop::sample::select(vec![4u8, 8])) {
        // Neighbouring subnormal halves: their distance over 15 or 255 rounds to zero.
        let values: Vec<f32> = (0..16).map(|i| f16::from_bits(100 + (i % 2) * step).to_f32()).collect();
        let mut codes = [1u8; 16];
        let pair = fit_group::<f16>(Fit::MinMax, &values, bits, &mut codes);
        prop_assert_eq!((pair.scale.to_f32(), pair.minimum.to_f32()), (1.0, values[0]));
        prop_assert_eq!(codes, [0; 16]);
    }

    #[test]
    fn fits_stay_finite_for_any_finite_input(
        values in prop::collection::vec(any::<f32>().prop_filter("finite", |x| x.is_finite()), 16),
        bits in prop::sample::select(vec![2u8, 4, 8]),
    ) {
        let mut codes = [0; 16];
        let pair = fit_group::<f32>(Fit::MinMax, &values, bits, &mut codes);
        prop_assert!(pair.scale.is_finite() && pair.minimum.is_finite() && pair.scale > 0.0);
        prop_assert!(codes.iter().all(|code| u32::from(*code) < 1 << bits));
    }
}

/// Groups that reach from one end of the type to the other, whose width is beyond f32 for `bf16` and `f32`.
fn extremes_have_finite_pairs<P: Real>() {
    let mut rng = StdRng::seed_from_u64(2);
    for bits in [2u8, 4, 8] {
        for fit in [Fit::MinMax, Fit::Hqq] {
            for _ in 0..50 {
                let mut values: Vec<f32> =
                    (0..16).map(|_| P::narrow(P::LARGEST * rng.random_range(-1.0f32..1.0)).widen()).collect();
                (values[3], values[8]) = (P::LARGEST, -P::LARGEST);
                let mut codes = [0; 16];
                let pair = fit_group::<P>(fit, &values, bits, &mut codes);
                let (scale, minimum) = (pair.scale.widen(), pair.minimum.widen());
                assert!(scale.is_finite() && scale > 0.0 && minimum.is_finite(), "{fit:?} {bits}: {scale} {minimum}");
                assert!(codes[3] > codes[8], "{fit:?} {bits}: {codes:?}");
                if fit == Fit::MinMax {
                    assert_eq!((codes[8], codes[3]), (0, u8::MAX >> (8 - bits)));
                }
            }
        }
    }
}

#[test]
fn groups_from_end_to_end_of_a_type_have_finite_pairs() {
    extremes_have_finite_pairs::<f16>();
    extremes_have_finite_pairs::<bf16>();
    extremes_have_finite_pairs::<f32>();
}

#[test]
fn hqq_zero_points_are_those_of_a_float64_transcription() {
    let mut rng = StdRng::seed_from_u64(11);
    // With 8 bits the shrinkage acts on few groups, with 2 on nearly all. The worst are groups whose error all but stays, which stop a step
    // sooner or later.
    for (bits, median, nearly_all, worst) in [(8u8, 3e-5, 1e-3, 0.1), (4, 3e-5, 4e-3, 0.1), (2, 1e-4, 4e-3, 0.1)] {
        let mut off = Vec::new();
        for size in [16, 32, 64, 128] {
            for round in 0..100 {
                // Sizes around 1, where shrinking matters, and far from it.
                let size_of = 2f32.powi(round % 9 - 4);
                let values: Vec<f32> = (0..size).map(|_| heavy_tailed(&mut rng) * size_of).collect();
                let mut codes = vec![0; size];
                let pair = fit_group::<f32>(Fit::Hqq, &values, bits, &mut codes);
                off.push(zero_from_transcription(pair, &values, bits));
            }
        }
        off.sort_by(f64::total_cmp);
        let found = (off[200], off[395], off[399]);
        assert!(found.0 < median && found.1 < nearly_all && found.2 < worst, "{bits} bits: {found:?}");
    }
}

#[test]
fn hqq_codes_are_the_nearest_by_the_pair_itself() {
    let mut rng = StdRng::seed_from_u64(12);
    for bits in [2u8, 4, 8] {
        let values: Vec<f32> = (0..64).map(|_| heavy_tailed(&mut rng)).collect();
        let mut codes = vec![0; 64];
        let pair = fit_group::<f32>(Fit::Hqq, &values, bits, &mut codes);
        for (x, code) in values.iter().zip(&codes) {
            let at = ((x - pair.minimum) / pair.scale).clamp(0.0, f32::from(u8::MAX >> (8 - bits)));
            assert!((at - f32::from(*code)).abs() <= 0.5 + 1e-3, "{bits} bits: {x} at {at} has code {code}");
        }
    }
}

/// A number from Student's t distribution with 3 degrees of freedom: some values are far out, as in real keys.
fn heavy_tailed(rng: &mut StdRng) -> f32 {
    let mut normal = || -> f64 { (0..12).map(|_| rng.random_range(0.0..1.0)).sum::<f64>() - 6.0 };
    let spread = ((0..3).map(|_| normal().powi(2)).sum::<f64>() / 3.0).sqrt();
    (normal() / spread) as f32
}

#[test]
fn hqq_fits_heavy_tails_better_than_minmax() {
    for (bits, size) in [(2u8, 16), (2, 64), (4, 64)] {
        let mut rng = StdRng::seed_from_u64(5);
        let mut error = [0.0f64; 2];
        for _ in 0..500 {
            let values: Vec<f32> = (0..size).map(|_| heavy_tailed(&mut rng)).collect();
            for (error, fit) in error.iter_mut().zip([Fit::MinMax, Fit::Hqq]) {
                let mut codes = vec![0; size];
                let pair = fit_group::<f32>(fit, &values, bits, &mut codes);
                let errors = values.iter().zip(&codes).map(|(x, c)| f64::from(x - pair.value(*c)).abs().powf(0.7));
                *error += errors.sum::<f64>() / size as f64;
            }
        }
        assert!(error[1] < error[0], "{bits} bits, groups of {size}: HQQ {} min-max {}", error[1], error[0]);
    }
}

fn random_rows<P: Real>(geometry: &TileGeometry, rng: &mut StdRng) -> Vec<P> {
    (0..geometry.tokens * geometry.channels).map(|_| P::narrow(heavy_tailed(rng))).collect()
}

/// Encodes a random tile and compares each number read back with its own group fitted by itself, groups gathered by
/// `group_index`: a second road to the same numbers.
fn tile_matches_its_groups<P: Real + std::fmt::Debug>(spec: &QuantSpec, head_dim: usize) {
    let geometry = TileGeometry::new(spec, head_dim, P::DTYPE).unwrap();
    let fit = match spec.scheme {
        Scheme::Grouped { fit, .. } => fit,
        _ => Fit::MinMax,
    };
    let mut rng = StdRng::seed_from_u64(3);
    let mut codec = TileCodec::<P>::new(geometry, fit);
    let mut tile = vec![0xaa; geometry.bytes()];
    let sides = Side::BOTH.map(|side| (side, random_rows::<P>(&geometry, &mut rng)));
    for (side, rows) in &sides {
        codec.encode(*side, rows.chunks(head_dim), &mut tile);
    }
    for (side, rows) in &sides {
        let side_geometry = *geometry.side(*side);
        let mut back = vec![f32::NAN; rows.len()];
        codec.decode(*side, &tile, 0..geometry.tokens, &mut back);
        let mut expected = vec![P::zero(); rows.len()];
        for group in 0..side_geometry.group_count() {
            let members: Vec<usize> =
                (0..rows.len()).filter(|i| side_geometry.group_index(i / head_dim, i % head_dim) == group).collect();
            let values: Vec<f32> = members.iter().map(|i| rows[*i].widen()).collect();
            let mut codes = vec![0; values.len()];
            if let Some(groups) = side_geometry.groups {
                assert_eq!(members.len(), groups.group);
                let pair = fit_group::<P>(fit, &values, groups.bits, &mut codes);
                members.iter().zip(&codes).for_each(|(i, code)| expected[*i] = pair.value(*code));
            } else {
                let scale = fp8::fit::<P>(&values, &mut codes);
                members.iter().zip(&codes).for_each(|(i, code)| expected[*i] = fp8::value(*code, scale));
            }
        }
        let expected: Vec<f32> = expected.iter().map(|x| x.widen()).collect();
        assert_eq!(back, expected, "{} {side:?}", spec.name);
        // Any range of tokens reads the same.
        let mut part = vec![0.0; 17 * head_dim];
        codec.decode(*side, &tile, 30..47, &mut part);
        assert_eq!(part, back[30 * head_dim..47 * head_dim]);
    }
}

#[test]
fn tiles_read_back_what_each_group_was_fitted_to() {
    let variants = ["int4-hqq,group=128", "int2-kivi,k-bits=8,v-group=16", "int8-hqq,k=token,k-group=16,v-bits=2"];
    for name in PRESETS.iter().skip(1).map(|preset| preset.name).chain(variants) {
        let spec: QuantSpec = name.parse().unwrap();
        tile_matches_its_groups::<f32>(&spec, 64);
        tile_matches_its_groups::<bf16>(&spec, 128);
        tile_matches_its_groups::<f16>(&spec, 128);
    }
    for name in ["int8-hqq", "int4-hqq", "int2-hqq", "fp8"] {
        tile_matches_its_groups::<f32>(&name.parse().unwrap(), 8);
    }
}

#[test]
fn tile_sizes_are_those_of_the_formats() {
    let bytes = |name: &str, head_dim, dtype| {
        let geometry = TileGeometry::new(&name.parse().unwrap(), head_dim, dtype).unwrap();
        (geometry.code_bytes(), geometry.parameter_bytes())
    };
    use candle_core::DType;
    // 2 sides · 64 tokens · 128 channels · bits/8; and per group two numbers of 2 bytes.
    assert_eq!(bytes("int4-hqq", 128, DType::F16), (8192, 2 * 128 * 4));
    assert_eq!(bytes("int2-hqq", 128, DType::BF16), (4096, 2 * 128 * 4 * 4));
    assert_eq!(bytes("int8-hqq,group=128", 64, DType::F16), (2 * 128 * 64, 2 * 64 * 4));
    assert_eq!(bytes("int4-hqq-token", 64, DType::F32), (4096, 2 * 64 * 8));
    assert_eq!(bytes("fp8", 128, DType::F16), (16384, 32));
}
