//! Half-quadratic quantization: the scale from the extremes, the zero point refined against a sparse error model.
//!
//! Follows mobiusml/hqq `core/quantize.py` and `core/optimize.py` with p = 0.7 and β = 10 fixed (upstream unpacks κ and leaves
//! it unused). Upstream stops on the mean error of the whole tensor; here each group stops on its own, so that a fit depends
//! on nothing outside its group.
//!
//! # In codes
//!
//! Everything here is measured in codes, not in the unit of x: with t = x·S + z, Wq = clamp(rint(t)) and d = t − Wq, the
//! error is e = x − (Wq − z)/S = d/S. What the refinement
//! `z ← mean(Wq − (x − We)·S)`, `We = sign(e)·max(|e| − |e|^−0.3/10, 0)` adds to z is then
//! −mean(d − We·S) = −mean(sign(d)·min(|d|, K·|d|^−0.3)) with K = S^1.3/10. So the same numbers come of half the
//! operations and with less rounding: no term is larger than an error. The power is that of `quant/power.rs`.

use super::fit::{GroupFit, Sum4, constant, extremes};
use super::power::{ScaledPower, power};
use super::real::Real;

/// Most refinements of a zero point.
const ITERATIONS: usize = 20;

/// Largest inverse scale, so that nearly constant groups stay finite.
const MAX_INVERSE_SCALE: f32 = 2e4;

/// Errors e below this are smaller than |e|^−0.3/10 by a thousandth or more (the two are equal at 0.1^(1/1.3) = 0.1701), so that
/// the power need not be known.
const SHRINKS_TO_ZERO: f32 = 0.17;

/// From this inverse scale on, K is large enough for that to hold for errors below 2^−27 too, whose power is that of larger ones
/// ([`ScaledPower::of`]).
const LEAST_SHORTCUT: f32 = 1e-5;

/// Fits one group and writes its codes.
///
/// With S = min((2^b − 1)/(max − min), 2e4), z starts at −min·S and is refined up to 20 times:
/// t = x·S + z, d = t − clamp(rint(t)), z ← z − mean(sign(d)·min(|d|, K·|d|^−0.3)), K = S·(1/S)^−0.3·0.1; it stops as soon as
/// Σ|d| no longer falls, or z stays, and keeps the z it has by then. Then c = clamp(rint(x·S + z)), s = 1/S and m = −z/S. All
/// in f32, each operation rounded by itself, rint half to even, s and m rounded to `P` (m to a finite number). A constant
/// group has s = 1, c = 0 and m = x.
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
        *code = quantize(*x * inverse_scale + zero, levels) as u8;
    }
    // A zero point between codes may put the minimum past the extreme of the type.
    let minimum = (-zero / inverse_scale).clamp(-P::LARGEST, P::LARGEST);
    GroupFit { scale: P::narrow(1.0 / inverse_scale), minimum: P::narrow(minimum) }
}

fn refine(values: &[f32], inverse_scale: f32, mut zero: f32, levels: f32) -> f32 {
    let strength = inverse_scale * power(1.0 / inverse_scale) * 0.1;
    let limit = ScaledPower::new(strength);
    let unlimited_below = if inverse_scale < LEAST_SHORTCUT { 0.0 } else { SHRINKS_TO_ZERO * inverse_scale };
    let mut least_error = f32::INFINITY;
    for _ in 0..ITERATIONS {
        let (mut moves, mut errors) = (Sum4::default(), Sum4::default());
        for (index, x) in values.iter().enumerate() {
            let at = x * inverse_scale + zero;
            let error = at - quantize(at, levels);
            let size = error.abs();
            let step = if size < unlimited_below { size } else { size.min(limit.of(size)) };
            moves.add(index, step.copysign(error));
            errors.add(index, size);
        }
        let (before, error) = (zero, errors.total());
        zero -= moves.mean(values.len());
        // A zero point that stays would only repeat this step and then stop.
        if error >= least_error || zero == before {
            break;
        }
        least_error = error;
    }
    zero
}

#[inline(always)]
fn quantize(at: f32, levels: f32) -> f32 {
    at.round_ties_even().clamp(0.0, levels)
}
