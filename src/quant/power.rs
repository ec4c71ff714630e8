//! x^−0.3 in f32, defined operation by operation, so that a CUDA kernel gives the same bits
//! (`kernels/include/kvprof/power.cuh`).
//!
//! With x = 2^k·m and m in [1, 2): x^−0.3 = 2^(−0.3·k) · m^−0.3. The first factor is a table of correctly rounded numbers, the
//! second a polynomial of degree 5 in fused multiply-adds. The relative error is below 6e-6; the
//! errors of HQQ that the power limits are half a code at most, so a step of its zero point is off by less than 3e-6 of a code.

/// Coefficients of m^−0.3 on [1, 2), of m^0 first: the least largest relative error, then rounded to f32.
const POLYNOMIAL: [f32; 6] = [
    f32::from_bits(0x3fd8_5eaa),
    f32::from_bits(0xbfaf_ac83),
    f32::from_bits(0x3f8a_0e81),
    f32::from_bits(0xbf04_31fb),
    f32::from_bits(0x3e09_c2cf),
    f32::from_bits(0xbc70_165e),
];

/// 2^(i/10).
const TENTH_POWERS: [f32; 10] = [
    1.0,
    f32::from_bits(0x3f89_2fdf),
    f32::from_bits(0x3f93_088c),
    f32::from_bits(0x3f9d_9624),
    f32::from_bits(0x3fa8_e5a3),
    f32::from_bits(0x3fb5_04f3),
    f32::from_bits(0x3fc2_0300),
    f32::from_bits(0x3fcf_efc6),
    f32::from_bits(0x3fde_dc67),
    f32::from_bits(0x3fee_db40),
];

/// 2^(−0.3·k) for the 32 binades from 2^−27 to 2^4, each at its biased exponent modulo 32.
const BINADES: [f32; 32] = {
    let mut binades = [0.0; 32];
    let mut exponent = 100;
    while exponent < 132 {
        binades[exponent % 32] = power_of_binade(exponent as i32 - 127);
        exponent += 1;
    }
    binades
};

/// 2^(−0.3·k), correctly rounded.
const fn power_of_binade(k: i32) -> f32 {
    let tenths = -3 * k;
    let whole = tenths.div_euclid(10);
    f32::from_bits(TENTH_POWERS[tenths.rem_euclid(10) as usize].to_bits().wrapping_add_signed(whole << 23))
}

/// m^−0.3 times the factor in the coefficients, m being the mantissa of `x`.
#[inline(always)]
fn power_of_mantissa(x: f32, coefficients: &[f32; 6]) -> f32 {
    let m = f32::from_bits(x.to_bits() & 0x007f_ffff | 0x3f80_0000);
    let [c0, c1, c2, c3, c4, c5] = *coefficients;
    c5.mul_add(m, c4).mul_add(m, c3).mul_add(m, c2).mul_add(m, c1).mul_add(m, c0)
}

/// x^−0.3 of a positive, normal x.
#[inline]
pub(super) fn power(x: f32) -> f32 {
    power_of_mantissa(x, &POLYNOMIAL) * power_of_binade((x.to_bits() >> 23) as i32 - 127)
}

/// `factor`·x^−0.3 for many x.
#[derive(Debug, Clone, Copy)]
pub(super) struct ScaledPower {
    coefficients: [f32; 6],
}

impl ScaledPower {
    pub fn new(factor: f32) -> Self {
        ScaledPower { coefficients: POLYNOMIAL.map(|c| c * factor) }
    }

    /// Of an x in [0, 2^5). One below 2^−27 takes the power of an x that is 2^32 times larger.
    #[inline(always)]
    pub fn of(&self, x: f32) -> f32 {
        power_of_mantissa(x, &self.coefficients) * BINADES[(x.to_bits() >> 23) as usize % 32]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relative_error(found: f32, x: f32, factor: f64) -> f64 {
        (f64::from(found) / (factor * f64::from(x).powf(-0.3)) - 1.0).abs()
    }

    #[test]
    fn powers_are_right_to_six_millionths_over_all_normal_numbers() {
        // About 4 million numbers, spread over all mantissas and exponents.
        for bits in (f32::MIN_POSITIVE.to_bits()..=f32::MAX.to_bits()).step_by(503) {
            let x = f32::from_bits(bits);
            assert!(relative_error(power(x), x, 1.0) < 6e-6, "{x:e}: {:e}", power(x));
        }
    }

    #[test]
    fn scaled_powers_are_right_where_errors_lie() {
        for factor in [1e-3f32, 0.1, 7.0, 3.9e4] {
            let scaled = ScaledPower::new(factor);
            for bits in (2f32.powi(-27).to_bits()..32f32.to_bits()).step_by(101) {
                let x = f32::from_bits(bits);
                assert!(relative_error(scaled.of(x), x, f64::from(factor)) < 6e-6, "{factor} · {x:e}^-0.3");
            }
        }
    }

    #[test]
    fn the_power_of_zero_is_positive_and_finite() {
        let power = ScaledPower::new(0.5).of(0.0);
        assert!(power > 0.0 && power.is_finite());
    }
}
