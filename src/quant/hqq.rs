//! Half-quadratic quantization: the scale from the extremes, the zero point refined against a sparse error model.
//!
//! Follows mobiusml/hqq `core/quantize.py` and `core/optimize.py` with p = 0.7 and β = 10 fixed (upstream unpacks κ and leaves
//! it unused). Upstream stops on the mean error of the whole tensor; here each group stops on its own, so that a fit depends
//! on nothing outside its group.

use super::fit::{GroupFit, Sum4, constant, extremes};
use super::real::Real;

/// Most refinements of a zero point.
const ITERATIONS: usize = 20;

/// Largest inverse scale, so that nearly constant groups stay finite.
const MAX_INVERSE_SCALE: f32 = 2e4;

/// Errors below this shrink to exactly zero (0.1^(1/1.3) = 0.1701), so that the power is rarely computed.
const SHRINKS_TO_ZERO: f32 = 0.17;

/// Fits one group and writes its codes.
///
/// With S = min((2^b − 1)/(max − min), 2e4), z starts at −min·S and is refined up to 20 times:
/// Wq = clamp(rint(x·S + z)), Wr = (Wq − z)/S, e = x − Wr, We = sign(e)·max(|e| − |e|^−0.3/10, 0), z = mean(Wq − (x − We)·S); it
/// stops as soon as mean|e| no longer falls, and keeps the z it has by then. Then c = clamp(rint(x·S + z)), s = 1/S and
/// m = −z/S. All in f32 (the power in f64, rounded), rint half to even, s and m rounded to `P`. A constant group has s = 1,
/// c = 0 and m = x.
///
/// `values` are finite numbers of type `P`, widened; `codes` has the same length.
pub fn fit<P: Real>(values: &[f32], bits: u8, codes: &mut [u8]) -> GroupFit<P> {
    let levels = f32::from(u8::MAX >> (8 - bits));
    let (min, max) = extremes(values);
    if max == min {
        return constant(min, codes);
    }
    // Only opposite extremes of f32 itself can overflow here.
    let range = (max - min).min(f32::MAX);
    let inverse_scale = (levels / range).min(MAX_INVERSE_SCALE);
    let zero = refine(values, inverse_scale, -min * inverse_scale, levels);
    for (code, x) in codes.iter_mut().zip(values) {
        *code = quantize(*x, inverse_scale, zero, levels) as u8;
    }
    GroupFit { scale: P::narrow(1.0 / inverse_scale), minimum: P::narrow(-zero / inverse_scale) }
}

fn refine(values: &[f32], inverse_scale: f32, mut zero: f32, levels: f32) -> f32 {
    let mut best = f32::INFINITY;
    for _ in 0..ITERATIONS {
        let (mut zeros, mut errors) = (Sum4::default(), Sum4::default());
        for (index, x) in values.iter().enumerate() {
            let quantized = quantize(*x, inverse_scale, zero, levels);
            let error = x - (quantized - zero) / inverse_scale;
            zeros.add(index, quantized - (x - shrink(error)) * inverse_scale);
            errors.add(index, error.abs());
        }
        let (before, error) = (zero, errors.mean(values.len()));
        zero = zeros.mean(values.len());
        // A zero point that stays would only repeat this step and then stop.
        if error >= best || zero == before {
            break;
        }
        best = error;
    }
    zero
}

#[inline(always)]
fn quantize(x: f32, inverse_scale: f32, zero: f32, levels: f32) -> f32 {
    (x * inverse_scale + zero).round_ties_even().clamp(0.0, levels)
}

/// The proximal operator of |e|^0.7: sign(e)·max(|e| − |e|^(p−1)/β, 0).
#[inline(always)]
fn shrink(error: f32) -> f32 {
    let size = error.abs();
    if size < SHRINKS_TO_ZERO {
        return 0.0;
    }
    let power = f64::from(size).powf(-0.3) as f32;
    (size - power / 10.0).max(0.0).copysign(error)
}
