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
//! −mean(d − We·S) = −mean(sign(d)·min(|d|, K·|d|^−0.3)) with K = S^1.3/10 ([`Shrinkage`]). So the same numbers come of half the
//! operations and with less rounding: no term is larger than an error.
//!
//! # In fixed point
//!
//! Positions t, errors d and means are integers in units of 2^-16 of a code. Sums of integers are the same in any order, and where
//! no code is clamped an error is the low half of a position, as a signed number: so a GPU can work on two elements at a time and add
//! them up as it likes, and still find the zero point that is found here.

use super::fit::{GroupFit, constant, extremes};
use super::real::Real;
use super::shrinkage::{HALF_A_CODE, Polygon, Shrinkage};

/// Most refinements of a zero point.
const ITERATIONS: usize = 20;

/// Largest inverse scale, so that nearly constant groups stay finite.
const MAX_INVERSE_SCALE: f32 = 2e4;

/// Zero points from here on are coarser than a sixteenth of a code and stay as they are. No group of 16-bit floats has one: its width is
/// 1/2047 of its largest number or more.
const FARTHEST_ZERO: f32 = 1048576.0;

/// Elements of the largest group there is.
const LARGEST_GROUP: usize = 128;

/// Positions that begin within this of the first and the last code, and have moved by less than half a code less this, need no clamping.
const SLACK: i32 = 1 << 9;

/// Fits one group and writes its codes.
///
/// With S = min((2^b − 1)/(max − min), 2e4), z starts at −min·S. Positions at that z, fma(x, S, z), are taken to units of 2^-16 of a
/// code (2^-14 where b is 8), and up to 20 times d = t − clamp(⌊t + 1/2⌋), z ← z − mean(sign(d)·min(|d|, K·|d|^−0.3)), until
/// the mean of |d| no longer falls, or z stays; z keeps what it has by then. Means are rounded to units, halves up. Then
/// c = clamp(rint(fma(x, S, z))), s = 1/S and m = −z/S, in f32, s and m rounded to `P` (m to a finite number). A constant group has
/// s = 1, c = 0 and m = x.
///
/// `values` are 16 to 128 finite numbers of type `P`, a power of two of them, widened; `codes` has the same length.
pub fn fit<P: Real>(values: &[f32], bits: u8, codes: &mut [u8]) -> GroupFit<P> {
    let last_code = u8::MAX >> (8 - bits);
    let levels = f32::from(last_code);
    let (min, max) = extremes(values);
    if max == min {
        return constant(min, codes);
    }
    // Only opposite extremes of f32 itself can overflow here.
    let range = (max - min).min(f32::MAX);
    let inverse_scale = (levels / range).min(MAX_INVERSE_SCALE);
    let mut zero = -min * inverse_scale;
    if zero.abs() < FARTHEST_ZERO {
        let mut positions = [0; LARGEST_GROUP];
        let positions = &mut positions[..values.len()];
        take_positions(values, inverse_scale, zero, bits, positions);
        let group =
            Group { positions, last_code: i32::from(u8::MAX >> (8 - bits)), shrinkage: Shrinkage::new(inverse_scale) };
        zero += group.refine() as f32 / 65536.0;
    }
    for (code, x) in codes.iter_mut().zip(values) {
        *code = x.mul_add(inverse_scale, zero).round_ties_even().clamp(0.0, levels) as u8;
    }
    // A zero point between codes may put the minimum past the extreme of the type.
    let minimum = (-zero / inverse_scale).clamp(-P::LARGEST, P::LARGEST);
    GroupFit { scale: P::narrow(1.0 / inverse_scale), minimum: P::narrow(minimum) }
}

/// Where the elements lie among the codes, in units of 2^-16.
fn take_positions(values: &[f32], inverse_scale: f32, zero: f32, bits: u8, positions: &mut [i32]) {
    // `origin` + t is a float whose last place is 2^-16, or with 8 bits 2^-14, whatever t.
    let (origin, shift) = if bits == 8 { (768.0f32, 2) } else { (192.0, 0) };
    let first = zero + origin;
    for (position, x) in positions.iter_mut().zip(values) {
        *position = (x.mul_add(inverse_scale, first).to_bits() as i32 - origin.to_bits() as i32) << shift;
    }
}

/// What a refinement found: sums over a group, in units of 2^-16 of a code.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Sums {
    /// Of d; of what the power makes of it where |d| is half a code or more.
    errors: i32,
    /// Of |d|.
    sizes: i32,
    /// Of what d is beyond the corners of the shrinkage.
    beyond: [i32; 2],
}

impl Sums {
    #[inline(always)]
    fn add(&mut self, error: i32, polygon: Option<Polygon>) {
        self.errors = self.errors.wrapping_add(error);
        self.sizes = self.sizes.wrapping_add(error.abs());
        if let Some(polygon) = polygon {
            let [first, second] = polygon.beyond(error);
            self.beyond[0] += first;
            self.beyond[1] += second;
        }
    }
}

/// A group whose zero point is refined.
struct Group<'a> {
    /// At the first zero point.
    positions: &'a [i32],
    last_code: i32,
    shrinkage: Shrinkage,
}

impl Group<'_> {
    /// What to add to the zero point, in units.
    fn refine(&self) -> i32 {
        let count = self.positions.len() as i32;
        let mean = |sum: i32| sum.wrapping_add(count / 2).div_euclid(count);
        let range = -SLACK..=(self.last_code << 16) + SLACK;
        let inside = self.positions.iter().all(|position| range.contains(position));
        let (mut shift, mut least_error) = (0i32, i32::MAX);
        for _ in 0..ITERATIONS {
            let sums =
                if inside && shift.abs() < HALF_A_CODE - SLACK { self.unclamped_sums(shift) } else { self.sums(shift) };
            let bend = self.shrinkage.polygon.map_or(0, |polygon| polygon.bend(sums.beyond));
            let (step, error) = (mean(sums.errors.wrapping_add(bend)), mean(sums.sizes));
            shift -= step;
            // A zero point that stays would only repeat this step and then stop.
            if error >= least_error || step == 0 {
                break;
            }
            least_error = error;
        }
        shift
    }

    /// At a zero point, whatever the positions.
    fn sums(&self, shift: i32) -> Sums {
        let mut sums = Sums::default();
        for position in self.positions {
            let at = position + shift;
            let error = at - (((at + HALF_A_CODE) >> 16).clamp(0, self.last_code) << 16);
            if (-HALF_A_CODE..HALF_A_CODE).contains(&error) {
                sums.add(error, self.shrinkage.polygon);
            } else {
                sums.sizes = sums.sizes.wrapping_add(error.abs());
                sums.errors = sums.errors.wrapping_add(error.signum() * self.shrinkage.of_large(error.abs()));
            }
        }
        sums
    }

    /// The same where no code is clamped.
    fn unclamped_sums(&self, shift: i32) -> Sums {
        let mut sums = Sums::default();
        let errors = self.positions.iter().map(|position| i32::from((position + shift) as i16));
        if let Some(polygon) = self.shrinkage.polygon {
            errors.for_each(|error| sums.add(error, Some(polygon)));
        } else {
            errors.for_each(|error| sums.add(error, None));
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    #[test]
    fn means_are_rounded_to_units_halves_up() {
        // No error of so large an S shrinks: the zero point moves by the mean error, ½ or −½ of a unit.
        let moved = |error: i32| {
            let mut positions = [0; 16];
            positions[..8].fill(error);
            Group { positions: &positions, last_code: 15, shrinkage: Shrinkage::new(1e4) }.refine()
        };
        assert_eq!((moved(1), moved(-1)), (-1, 0));
    }

    #[test]
    fn a_group_that_is_nearly_constant_has_the_finest_scale_there_is() {
        // Sixteen steps of 2^-20 are less than a third of 1/2e4: one code, at their mean.
        let values: Vec<f32> = (0..16).map(|i| i as f32 / 1048576.0).collect();
        for bits in [2, 4, 8] {
            let mut codes = [1; 16];
            let pair = fit::<f32>(&values, bits, &mut codes);
            assert_eq!((pair.scale, codes), (1.0 / 2e4, [0; 16]), "{bits} bits");
            let mean = 7.5 / 1048576.0;
            assert!((pair.minimum - mean).abs() < 2.0 / 65536.0 / 2e4, "{bits} bits: {}", pair.minimum);
        }
    }

    #[test]
    fn sums_without_clamping_are_the_general_ones() {
        let mut rng = StdRng::seed_from_u64(4);
        let edge = HALF_A_CODE - SLACK - 1;
        for (bits, inverse_scale) in [(8u8, 40.0f32), (4, 3.5), (4, 2.9), (4, 0.6), (2, 1.2), (2, 1e-3)] {
            let last_code = i32::from(u8::MAX >> (8 - bits));
            for round in 0..200 {
                let mut positions: Vec<i32> = (0..64).map(|_| rng.random_range(0..=last_code << 16)).collect();
                (positions[0], positions[1]) = (-SLACK, (last_code << 16) + SLACK);
                let group = Group { positions: &positions, last_code, shrinkage: Shrinkage::new(inverse_scale) };
                let shift = match round {
                    0 => -edge,
                    1 => edge,
                    _ => rng.random_range(-edge..=edge),
                };
                assert_eq!(group.unclamped_sums(shift), group.sums(shift), "{bits} bits, S {inverse_scale}, {shift}");
            }
        }
    }
}
