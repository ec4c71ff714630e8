//! The shrinkage of HQQ's errors in the refinement of a zero point, defined operation by operation, so that a CUDA kernel gives the same
//! bits (`kernels/include/kvprof/shrinkage.cuh`).
//!
//! Errors d are measured in units of 2^-16 of a code; one of them moves the zero point by sign(d)·min(|d|, K·|d|^−0.3), K = S^1.3/10. Where
//! S is so large that no error of half a code or less reaches K·|d|^−0.3, the shrinkage does not act on them. Where it acts, the curve up to
//! half a code is taken as a [`Polygon`]: what a group moves by is then a weighted sum of three integers, each of which a GPU adds up
//! two elements at a time. What it makes of one error is off by less than 0.0023 of a code (0.001 for S of 1.5 or more), as much to either side of
//! zero, so that most of it cancels in the mean of a group.

use super::power::power;

/// Errors e in units of x below this are smaller than |e|^−0.3/10 by a thousandth or more (equal at 0.1^(1/1.3) = 0.1701).
const SHRINKS_TO_ZERO: f32 = 0.17;

/// In units of 2^-16.
pub(super) const HALF_A_CODE: i32 = 1 << 15;

/// min(|d|, K·|d|^−0.3) of the errors of one group.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shrinkage {
    /// S.
    inverse_scale: f32,
    /// What it does to errors of half a code or less; `None` where it does not act on them.
    pub polygon: Option<Polygon>,
}

/// min(|d|, K·|d|^−0.3) up to half a code, as three lines: the first is |d|, up to 0.17·S, where the power is as large; the corners and 1/2 are in geometric
/// progression, so that of a power each line is of one shape.
#[derive(Debug, Clone, Copy)]
pub(super) struct Polygon {
    /// Between the lines, in units of 2^-16 of a code.
    corners: [i32; 2],
    /// By how much the slope changes there.
    bends: [f32; 2],
}

/// Slopes of the second and the third line: coefficients of r, r² and r³, r being the ratio of a corner to the next. Fitted to the power with the least
/// squares of what a line is off by, over all S up to 0.5/0.17.
const SLOPES: [[f32; 3]; 2] = [
    [f32::from_bits(0xbf24_3f16), f32::from_bits(0x3f16_a539), f32::from_bits(0xbe77_e2fb)],
    [f32::from_bits(0xbb89_2052), f32::from_bits(0xbe73_c5ca), f32::from_bits(0xbda3_0544)],
];

impl Shrinkage {
    /// For the inverse scale S of a group.
    pub fn new(inverse_scale: f32) -> Self {
        let acts = 0.5 > SHRINKS_TO_ZERO * inverse_scale;
        Shrinkage { inverse_scale, polygon: acts.then(|| Polygon::new(inverse_scale)) }
    }

    /// What the power makes of an error of half a code or more, `size` in units of 2^-16 of a code.
    pub fn of_large(&self, size: i32) -> i32 {
        // K in units of 2^-16 of a code: few groups have such errors.
        let strength = self.inverse_scale * power(1.0 / self.inverse_scale) * 6553.6;
        let size = size as f32;
        (power(size / 65536.0) * strength).min(size).round_ties_even() as i32
    }
}

impl Polygon {
    fn new(inverse_scale: f32) -> Self {
        let ratio = (2.0 * SHRINKS_TO_ZERO * inverse_scale).sqrt();
        let [second, third] = SLOPES.map(|[c1, c2, c3]| c3.mul_add(ratio, c2).mul_add(ratio, c1) * ratio);
        let corner = |at: f32| ((at * HALF_A_CODE as f32).round_ties_even() as i32).clamp(1, HALF_A_CODE - 1);
        Polygon { corners: [corner(ratio * ratio), corner(ratio)], bends: [second - 1.0, third - second] }
    }

    /// How far a signed error is beyond either corner.
    #[inline(always)]
    pub fn beyond(&self, error: i32) -> [i32; 2] {
        self.corners.map(|corner| error - error.clamp(-corner, corner))
    }

    /// What is added to a group's sum of errors, given the sums of what they are beyond the corners.
    pub fn bend(&self, beyond: [i32; 2]) -> i32 {
        let [first, second] = beyond.map(|sum| sum as f32);
        self.bends[0].mul_add(first, self.bends[1] * second).round_ties_even() as i32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In codes, what is made of an error less min(|d|, K·|d|^−0.3), for all errors of `sizes`.
    fn off(inverse_scale: f32, sizes: std::ops::Range<i32>) -> impl Iterator<Item = f64> {
        let shrinkage = Shrinkage::new(inverse_scale);
        let strength = f64::from(inverse_scale).powf(1.3) / 10.0;
        sizes.map(move |size| {
            let moved = match shrinkage.polygon {
                _ if size >= HALF_A_CODE => shrinkage.of_large(size),
                Some(polygon) => size + polygon.bend(polygon.beyond(size)),
                None => size,
            };
            let exact = f64::from(size) / 65536.0;
            f64::from(moved) / 65536.0 - exact.min(strength * exact.powf(-0.3))
        })
    }

    fn worst(inverse_scale: f32, sizes: std::ops::Range<i32>) -> f64 {
        off(inverse_scale, sizes).map(f64::abs).fold(0.0, f64::max)
    }

    #[test]
    fn errors_up_to_half_a_code_shrink_as_stated() {
        for step in 0..=200 {
            let inverse_scale = 2.9411 * 0.96f32.powi(step);
            let allowed = if inverse_scale >= 1.5 { 1e-3 } else { 2.3e-3 };
            let worst = worst(inverse_scale, 1..HALF_A_CODE);
            assert!(worst < allowed, "S {inverse_scale}: {worst}");
            let mean = off(inverse_scale, 1..HALF_A_CODE).sum::<f64>() / f64::from(HALF_A_CODE);
            assert!(mean.abs() < 2.5e-4, "S {inverse_scale}: {mean} on average");
        }
    }

    #[test]
    fn errors_of_either_sign_shrink_alike() {
        for inverse_scale in [2.9f32, 1.2, 0.3, 1e-3, 1e-30] {
            let polygon = Polygon::new(inverse_scale);
            for size in (0..HALF_A_CODE).step_by(7) {
                let moved = |error| error + polygon.bend(polygon.beyond(error));
                assert_eq!(moved(-size), -moved(size), "S {inverse_scale}, {size}");
            }
        }
    }

    #[test]
    fn where_the_shrinkage_does_not_act_errors_stay() {
        for inverse_scale in [2.9413f32, 3.0, 255.0, 2e4] {
            assert!(worst(inverse_scale, 0..HALF_A_CODE) < 1e-9, "S {inverse_scale}");
        }
    }

    #[test]
    fn larger_errors_shrink_by_the_power() {
        for inverse_scale in [1e-30f32, 0.01, 0.9, 3.0, 7.0, 2e4] {
            let worst = worst(inverse_scale, HALF_A_CODE..20 << 16);
            assert!(worst < 1e-4, "S {inverse_scale}: {worst}");
        }
    }
}
