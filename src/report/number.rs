//! Numbers for people. Everything else writes them in full.

/// How people see a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Digits {
    /// As few digits as give the same number back.
    Exact,
    /// This many decimals.
    Fixed(usize),
    /// This many significant digits.
    Significant(usize),
    /// As a percentage with this many decimals.
    Percent(usize),
    /// The same, with its sign.
    SignedPercent(usize),
    /// This many decimals, with its sign.
    Signed(usize),
    /// A difference of shares in points with this many decimals, with its sign.
    Points(usize),
}

/// `value` rounded to `decimals`, half to even on the exact binary value, as Python's `round` does.
pub fn round(value: f64, decimals: usize) -> f64 {
    format!("{value:.decimals$}").parse().unwrap_or(value)
}

/// `value` as `digits` asks, with a true minus sign and without a negative zero.
pub fn shown(value: f64, digits: Digits) -> String {
    let text = match digits {
        Digits::Exact => format!("{value}"),
        Digits::Fixed(n) => format!("{value:.n$}"),
        Digits::Signed(n) => return signed(format!("{value:.n$}")),
        Digits::Points(n) => return signed(format!("{:.n$} pt", value * 100.0)),
        Digits::Percent(n) => format!("{:.n$} %", value * 100.0),
        Digits::SignedPercent(n) => return signed(format!("{:.n$} %", value * 100.0)),
        Digits::Significant(n) => significant(value, n),
    };
    minus(&text)
}

fn signed(text: String) -> String {
    let nonzero = text.chars().any(|c| ('1'..='9').contains(&c));
    if text.starts_with('-') || !nonzero { minus(&text) } else { format!("+{text}") }
}

fn minus(text: &str) -> String {
    let nonzero = text.chars().any(|c| ('1'..='9').contains(&c));
    match text.strip_prefix('-') {
        Some(rest) if nonzero => format!("−{rest}"),
        Some(rest) => rest.to_string(),
        None => text.to_string(),
    }
}

/// At least `n` significant digits, without an exponent between 1e-6 and 1e15.
pub fn significant(value: f64, n: usize) -> String {
    if value == 0.0 || !value.is_finite() {
        return format!("{value}");
    }
    // Rounding first: 9.996 with three digits is 10.0.
    let rounded: f64 = format!("{value:.*e}", n.saturating_sub(1)).parse().unwrap_or(value);
    let exponent = rounded.abs().log10().floor() as i32;
    if !(-6..15).contains(&exponent) {
        return format!("{value:.*e}", n.saturating_sub(1));
    }
    let decimals = (n as i32 - 1 - exponent).max(0) as usize;
    format!("{value:.decimals$}")
}

/// Bytes for people, in powers of 1024.
pub fn bytes(value: f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = value;
    let mut unit = 0;
    while value.abs() >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    let text = if unit == 0 || value.fract() == 0.0 { format!("{value}") } else { significant(value, 3) };
    format!("{text} {}", units[unit])
}

/// `1 file`, `2 files`.
pub fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// A count of tokens for people: 4096 → `4k`, 1500 → `1500`.
pub fn tokens(count: usize) -> String {
    if count >= 1024 && count.is_multiple_of(1024) { format!("{}k", count / 1024) } else { count.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_that_of_the_thesis_scripts() {
        for (value, decimals, expected) in
            [(4.55, 1, 4.5), (8.65, 1, 8.7), (8.55, 1, 8.6), (4.05, 1, 4.0), (0.03, 1, 0.0), (441.302, 1, 441.3)]
        {
            assert_eq!(round(value, decimals), expected, "{value}");
        }
    }

    #[test]
    fn people_see_a_sign_and_no_negative_zero() {
        assert_eq!(shown(-0.00001, Digits::Signed(3)), "0.000");
        assert_eq!(shown(0.0425, Digits::SignedPercent(1)), "+4.2 %");
        assert_eq!(shown(-0.25, Digits::SignedPercent(0)), "−25 %");
        assert_eq!(shown(0.05, Digits::Points(1)), "+5.0 pt");
        assert_eq!(shown(9.996, Digits::Significant(3)), "10.0");
        assert_eq!(shown(0.000123456, Digits::Significant(3)), "0.000123");
        assert_eq!(shown(123456.7, Digits::Significant(3)), "123457");
        assert_eq!(bytes(536_870_912.0), "512 MiB");
        assert_eq!(bytes(1500.0), "1.46 KiB");
        assert_eq!((tokens(32768).as_str(), tokens(1500).as_str()), ("32k", "1500"));
    }
}
