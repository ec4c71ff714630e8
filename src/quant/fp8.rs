//! 8-bit floats: E4M3 (4 exponent bits with bias 7, 3 mantissa bits, no infinities), one scale for a head's block of tokens.

use super::real::Real;

/// The largest E4M3 number.
pub const MAX: f32 = 448.0;

/// Fits the keys or the values of one block and writes their codes.
///
/// The scale is absmax/448 rounded to `P`, or 1 where that is zero; the code of x is x/scale as the nearest E4M3 number, ties
/// to even, saturating. `values` are finite numbers of type `P`, widened; `codes` has the same length.
pub fn fit<P: Real>(values: &[f32], codes: &mut [u8]) -> P {
    let absmax = values.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    let mut scale = P::narrow(absmax / MAX);
    if scale.widen() == 0.0 {
        scale = P::narrow(1.0);
    }
    for (code, x) in codes.iter_mut().zip(values) {
        *code = encode(x / scale.widen());
    }
    scale
}

/// The value of a code: one multiplication in f32, rounded to `P`.
#[inline]
pub fn value<P: Real>(code: u8, scale: P) -> P {
    P::narrow(decode(code) * scale.widen())
}

/// The nearest E4M3 number, ties to even, saturating at ±448.
pub fn encode(x: f32) -> u8 {
    let sign = if x.is_sign_negative() { 0x80 } else { 0 };
    let size = x.abs().min(MAX);
    // Numbers of one binade are equally far apart; those below 2^-6 share the distance of the first.
    let exponent = (size.to_bits() >> 23) as i32 - 127;
    let exponent = exponent.max(-6);
    let steps = (size * power_of_two(3 - exponent)).round_ties_even() as u8;
    // A normal number's steps are 8 to 16: 8 is the implicit leading bit, 16 carries into the exponent.
    sign | (((exponent + 6) as u8) * 8 + steps)
}

/// The number that a code stands for; the two NaN codes (0x7f, 0xff), which [`encode`] never makes, read as ±480.
#[inline]
pub fn decode(code: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(code >> 3 & 15), f32::from(code & 7));
    let size = match exponent {
        0 => mantissa * power_of_two(-9),
        _ => (8.0 + mantissa) * power_of_two(exponent - 10),
    };
    if code & 0x80 == 0 { size } else { -size }
}

#[inline(always)]
fn power_of_two(exponent: i32) -> f32 {
    f32::from_bits(((exponent + 127) as u32) << 23)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_decodes_and_encodes_to_itself() {
        for code in (0..=0xffu8).filter(|code| code & 0x7f != 0x7f) {
            assert_eq!(encode(decode(code)), code, "{code:#x}");
        }
    }

    #[test]
    fn known_numbers_have_their_published_codes() {
        for (x, code) in [(0.0, 0x00), (1.0, 0x38), (-1.0, 0xb8), (448.0, 0x7e), (0.015625, 0x08), (0.001953125, 0x01)]
        {
            assert_eq!(encode(x), code, "{x}");
        }
    }

    #[test]
    fn numbers_between_two_codes_go_to_the_nearer_and_ties_to_the_even() {
        let numbers: Vec<f32> = (0..0x7fu8).map(decode).collect();
        for (code, pair) in numbers.windows(2).enumerate() {
            let (low, high) = (pair[0], pair[1]);
            let middle = (low + high) / 2.0;
            let even = if code % 2 == 0 { code } else { code + 1 };
            assert_eq!(usize::from(encode(middle)), even);
            assert_eq!(usize::from(encode(middle - (high - low) / 64.0)), code);
            assert_eq!(usize::from(encode(middle + (high - low) / 64.0)), code + 1);
        }
        assert_eq!(encode(1e9), 0x7e);
        assert_eq!(encode(-1e9), 0xfe);
    }

    #[test]
    fn zeros_have_scale_one_and_extremes_are_exact() {
        let mut codes = [1u8; 3];
        assert_eq!(fit::<f32>(&[0.0; 3], &mut codes), 1.0);
        assert_eq!(codes, [0; 3]);
        let scale = fit::<f32>(&[7.0, -3.0, 0.0], &mut codes);
        assert_eq!(value(codes[0], scale), 7.0);
        assert!((value(codes[1], scale) + 3.0).abs() <= 3.0 / 16.0);
    }
}
