//! Codes of 2, 4 or 8 bits into bytes, low bits first: code i is bits `i·b mod 8` and up of byte `i·b / 8`.

/// Packs codes of `bits` bits into `bytes`, which has room for exactly as many.
pub fn pack(codes: &[u8], bits: usize, bytes: &mut [u8]) {
    debug_assert_eq!(codes.len() * bits, bytes.len() * 8);
    for (byte, codes) in bytes.iter_mut().zip(codes.chunks_exact(8 / bits)) {
        *byte = codes.iter().rev().fold(0, |byte, code| if bits == 8 { *code } else { byte << bits | code });
    }
}

/// Unpacks `bytes` into codes of `bits` bits, of which `codes` has room for exactly as many.
#[inline]
pub fn unpack(bytes: &[u8], bits: usize, codes: &mut [u8]) {
    debug_assert_eq!(codes.len() * bits, bytes.len() * 8);
    match bits {
        8 => codes.copy_from_slice(bytes),
        4 => {
            for (codes, byte) in codes.chunks_exact_mut(2).zip(bytes) {
                codes[0] = byte & 15;
                codes[1] = byte >> 4;
            }
        }
        _ => {
            for (codes, byte) in codes.chunks_exact_mut(4).zip(bytes) {
                codes[0] = byte & 3;
                codes[1] = byte >> 2 & 3;
                codes[2] = byte >> 4 & 3;
                codes[3] = byte >> 6;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn unpacking_undoes_packing(bits in prop::sample::select(vec![2usize, 4, 8]), codes in prop::collection::vec(any::<u8>(), 0..200)) {
            let whole_bytes = codes.len() / 4 * 4;
            let codes: Vec<u8> = codes[..whole_bytes].iter().map(|code| code >> (8 - bits)).collect();
            let mut bytes = vec![0xa5; codes.len() * bits / 8];
            pack(&codes, bits, &mut bytes);
            let mut back = vec![0xff; codes.len()];
            unpack(&bytes, bits, &mut back);
            prop_assert_eq!(back, codes);
        }
    }

    #[test]
    fn low_bits_come_first() {
        let mut byte = [0];
        pack(&[1, 2, 3, 0], 2, &mut byte);
        assert_eq!(byte, [0b00_11_10_01]);
        pack(&[0xa, 0x5], 4, &mut byte);
        assert_eq!(byte, [0x5a]);
    }
}
