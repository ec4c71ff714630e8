//! Bytes in hexadecimal: how digests are written in result files and names.

/// `bytes` as two lower-case hexadecimal digits each.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_bytes_keep_their_leading_zero() {
        assert_eq!(hex(&[0, 10, 171, 255]), "000aabff");
        assert_eq!(hex(&[]), "");
    }
}
