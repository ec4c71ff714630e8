//! Sizes as people write them.

const UNITS: [(&str, f64); 10] = [
    ("KiB", 1024.0),
    ("MiB", 1048576.0),
    ("GiB", 1073741824.0),
    ("TiB", 1099511627776.0),
    ("KB", 1e3),
    ("MB", 1e6),
    ("GB", 1e9),
    ("TB", 1e12),
    ("G", 1073741824.0),
    ("B", 1.0),
];

/// `24GiB`, `80 GB` or `1.5TiB`, as bytes. `G` alone is GiB, as drivers and card names mean it; a number alone is refused, since who
/// writes 24 means no bytes.
pub fn parse(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let unit = UNITS.iter().find(|(unit, _)| text.len() > unit.len() && ends_with(text, unit));
    let bytes = unit.and_then(|(unit, factor)| {
        let value: f64 = text[..text.len() - unit.len()].trim().parse().ok()?;
        (value > 0.0 && value * factor < u64::MAX as f64).then_some((value * factor) as u64)
    });
    bytes.ok_or_else(|| "give a size with its unit, such as 24GiB or 80GB".into())
}

fn ends_with(text: &str, unit: &str) -> bool {
    text.get(text.len() - unit.len()..).is_some_and(|end| end.eq_ignore_ascii_case(unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_they_are_meant() {
        for (text, bytes) in
            [("24GiB", 24 << 30), ("80 GB", 80_000_000_000), ("1.5gib", 3 << 29), ("16G", 16 << 30), ("7B", 7)]
        {
            assert_eq!(parse(text).unwrap(), bytes, "{text}");
        }
        for text in ["", "GiB", "-1GiB", "many", "1e40TB", "é", "0", "24"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
