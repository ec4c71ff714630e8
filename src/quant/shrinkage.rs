//! The shrinkage of HQQ's errors in the refinement of a zero point, defined operation by operation, so that a CUDA kernel gives the same
//! bits (`kernels/include/kvprof/shrinkage.cuh`).
//!
//! Errors d are measured in units of 2^-16 of a code; one of them moves the zero point by min(|d|, K·|d|^−0.3), K = S^1.3/10. Where
//! S is so large that no error of half a code or less reaches K·|d|^−0.3, the shrinkage does not act on them. Where it acts, the power of an error
//! of up to half a code is a polynomial of degree 4 in |d| + 1/2, fitted with the least largest relative error between 0.17·S, where the two are
//! equal, and 1/2; for smaller |d| it is larger than |d|, as the power is. What it makes of an error is off by less than 0.001 of a
//! code, by less than 0.0002 for S of 0.75 or more.

use super::power::power;

/// Errors e in units of x below this are smaller than |e|^−0.3/10 by a thousandth or more (equal at 0.1^(1/1.3) = 0.1701).
const SHRINKS_TO_ZERO: f32 = 0.17;

/// Bits of the coefficients of m^0, m^1 …, m = |d| + 1/2, for S in (2, 3], (1.5, 2], (1, 1.5], (0.75, 1] and so on.
const POLYNOMIALS: [[u32; 5]; 12] = [
    [0x4115_4d6b, 0xc1d9_cdd0, 0x4211_1f15, 0xc1b4_60b7, 0x40ac_8c28],
    [0x4140_69c3, 0xc21c_a7f3, 0x4260_542f, 0xc214_7a10, 0x4116_807c],
    [0x418c_c402, 0xc282_5354, 0x42ca_ced8, 0xc290_2e6e, 0x419b_e1da],
    [0x41ba_67aa, 0xc2b9_c6a9, 0x4317_982b, 0xc2e0_6a5c, 0x41fb_7733],
    [0x420b_4bc5, 0xc316_c15b, 0x4381_ca4a, 0xc348_fa10, 0x426a_414b],
    [0x4239_0e63, 0xc351_a643, 0x43ba_019c, 0xc393_ab87, 0x42af_e892],
    [0x4288_f0cf, 0xc3a3_1f4a, 0x4415_a8a6, 0xc3f4_5579, 0x4315_0feb],
    [0x42b3_3766, 0xc3db_7299, 0x444d_243a, 0xc42a_13af, 0x4352_4cfd],
    [0x4300_d412, 0xc422_982f, 0x449b_3487, 0xc482_ec59, 0x43a4_4d1e],
    [0x4324_954b, 0xc453_39ef, 0x44cc_02d6, 0xc4ad_c71a, 0x43db_e69c],
    [0x4364_2c9a, 0xc495_2a8b, 0x4511_fe32, 0xc4fb_76c6, 0x4420_9998],
    [0x438d_fb89, 0xc4bb_9626, 0x4538_fcca, 0xc520_5125, 0x444d_df46],
];

/// In units of 2^-16.
pub(super) const HALF_A_CODE: i32 = 1 << 15;

/// Added to a number below 2^22 this leaves the nearest integer in the low bits of the sum.
const ROUNDING_SHIFT: f32 = 12_582_912.0;

/// min(|d|, K·|d|^−0.3) of the errors of one group.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shrinkage {
    /// K in units of 2^-16 of a code.
    strength: f32,
    /// What it does to errors of half a code or less; `None` where it does not act on them.
    pub fine: Option<FineShrinkage>,
}

/// The coefficients of K·|d|^−0.3 + [`ROUNDING_SHIFT`] in |d| + 1/2.
#[derive(Debug, Clone, Copy)]
pub(super) struct FineShrinkage([f32; 5]);

impl Shrinkage {
    /// For the inverse scale S of a group.
    pub fn new(inverse_scale: f32) -> Self {
        let strength = inverse_scale * power(1.0 / inverse_scale) * 6553.6;
        let fine = (0.5 > SHRINKS_TO_ZERO * inverse_scale).then(|| {
            // The bits of a float fall by 2^22 from 3 to 2, to 1.5, to 1 and so on.
            let bin = (3f32.to_bits() - inverse_scale.to_bits()) >> 22;
            let polynomial = POLYNOMIALS[(bin as usize).min(POLYNOMIALS.len() - 1)];
            let mut coefficients = polynomial.map(|bits| f32::from_bits(bits) * strength);
            coefficients[0] += ROUNDING_SHIFT;
            FineShrinkage(coefficients)
        });
        Shrinkage { strength, fine }
    }

    /// Of an error of any `size`, in units of 2^-16 of a code.
    pub fn of(&self, size: i32) -> i32 {
        match self.fine {
            _ if size >= HALF_A_CODE => {
                let size = size as f32;
                (power(size / 65536.0) * self.strength).min(size).round_ties_even() as i32
            }
            Some(fine) => fine.of(size),
            None => size,
        }
    }
}

impl FineShrinkage {
    /// Of an error of less than half a code.
    #[inline(always)]
    pub fn of(&self, size: i32) -> i32 {
        // The error's two bytes below the exponent of 1/2.
        let m = f32::from_bits(0.5f32.to_bits() | (size as u32) << 8);
        let [c0, c1, c2, c3, c4] = self.0;
        let power = c4.mul_add(m, c3).mul_add(m, c2).mul_add(m, c1).mul_add(m, c0);
        size.min((power.to_bits() & 0xffff) as i32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In codes, the difference to min(|d|, K·|d|^−0.3) over all errors of `sizes`.
    fn worst(inverse_scale: f32, sizes: std::ops::Range<i32>) -> f64 {
        let shrinkage = Shrinkage::new(inverse_scale);
        let strength = f64::from(inverse_scale).powf(1.3) / 10.0;
        let off = |size: i32| {
            let exact = f64::from(size) / 65536.0;
            let exact = exact.min(strength * exact.powf(-0.3));
            (f64::from(shrinkage.of(size)) / 65536.0 - exact).abs()
        };
        sizes.map(off).fold(0.0, f64::max)
    }

    #[test]
    fn errors_up_to_half_a_code_shrink_as_stated() {
        for step in 0..=200 {
            let inverse_scale = 2.9411 * 0.96f32.powi(step);
            let allowed = if inverse_scale >= 0.75 { 2e-4 } else { 1e-3 };
            let worst = worst(inverse_scale, 1..HALF_A_CODE);
            assert!(worst < allowed, "S {inverse_scale}: {worst}");
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
