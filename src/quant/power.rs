//! x^−0.3 in f32, defined operation by operation, so that a CUDA kernel gives the same bits
//! (`kernels/include/kvprof/power.cuh`).
//!
//! With x = 2^k·m and m in [1, 2): x^−0.3 = 2^(−0.3·k) · m^−0.3. The first factor is a table of correctly rounded numbers, the
//! second a polynomial of degree 5 in fused multiply-adds. The relative error is below 6e-6.

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

/// 2^(−0.3·k), correctly rounded.
const fn power_of_binade(k: i32) -> f32 {
    let tenths = -3 * k;
    let whole = tenths.div_euclid(10);
    f32::from_bits(TENTH_POWERS[tenths.rem_euclid(10) as usize].to_bits().wrapping_add_signed(whole << 23))
}

/// x^−0.3 of a positive, normal x.
pub(super) fn power(x: f32) -> f32 {
    let bits = x.to_bits();
    let m = f32::from_bits(bits & 0x007f_ffff | 0x3f80_0000);
    let [c0, c1, c2, c3, c4, c5] = POLYNOMIAL;
    let power = c5.mul_add(m, c4).mul_add(m, c3).mul_add(m, c2).mul_add(m, c1).mul_add(m, c0);
    power * power_of_binade((bits >> 23) as i32 - 127)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_are_right_to_six_millionths_over_all_normal_numbers() {
        // About 4 million numbers, spread over all mantissas and exponents.
        for bits in (f32::MIN_POSITIVE.to_bits()..=f32::MAX.to_bits()).step_by(503) {
            let x = f32::from_bits(bits);
            let relative_error = (f64::from(power(x)) / f64::from(x).powf(-0.3) - 1.0).abs();
            assert!(relative_error < 6e-6, "{x:e}: {:e}", power(x));
        }
    }
}
