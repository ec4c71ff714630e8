//! Min-max fit: the scale and the minimum straight from the extremes of the group (KIVI; optimum-quanto's affine mode).

use super::fit::{GroupFit, constant, extremes};
use super::real::Real;

/// Fits one group and writes its codes.
///
/// s = (max − min)/(2^b − 1) rounded to `P`, m = min, c = clamp(rint((x − m)/s), 0, 2^b − 1) with the rounded s. All else is
/// f32; rint is half to even. Where max − min is beyond f32, max − min stands for its largest number, and x, m and s are halved
/// before (x − m)/s, which is exact. A constant group, or one whose s rounds to zero, has s = 1, c = 0 and m = min.
///
/// `values` are finite numbers of type `P`, widened; `codes` has the same length.
pub fn fit<P: Real>(values: &[f32], bits: u8, codes: &mut [u8]) -> GroupFit<P> {
    let levels = f32::from(u8::MAX >> (8 - bits));
    let (min, max) = extremes(values);
    let range = (max - min).min(f32::MAX);
    let scale = P::narrow(range / levels);
    if max == min || scale.widen() == 0.0 {
        return constant(min, codes);
    }
    // Only opposite extremes of f32 itself can overflow.
    let unit = if (max - min).is_finite() { 1.0 } else { 0.5 };
    let (low, step) = (min * unit, scale.widen() * unit);
    for (code, x) in codes.iter_mut().zip(values) {
        *code = ((x * unit - low) / step).round_ties_even().clamp(0.0, levels) as u8;
    }
    GroupFit { scale, minimum: P::narrow(min) }
}
