//! Quantiles of Student's t.

use super::Z95;

/// Two-sided 95 % quantile of Student's t with `freedom` degrees of freedom (need not be whole), by bisection on the
/// distribution function; the normal quantile for an infinite or meaningless number of degrees.
pub fn student95(freedom: f64) -> f64 {
    if !freedom.is_finite() || freedom <= 0.0 {
        return Z95;
    }
    // P(|T| > t) = I_x(ν/2, ½) with x = ν/(ν + t²).
    let tail = |t: f64| incomplete_beta(freedom / (freedom + t * t), freedom / 2.0, 0.5);
    let (mut low, mut high) = (Z95, Z95 * 2.0);
    while tail(high) > 0.05 && high < 1e9 {
        high *= 2.0;
    }
    for _ in 0..100 {
        let middle = 0.5 * (low + high);
        if tail(middle) > 0.05 { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

/// Regularized incomplete beta function I_x(a, b), 0 ≤ x ≤ 1, by its continued fraction (modified Lentz method).
fn incomplete_beta(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return x.clamp(0.0, 1.0);
    }
    // The fraction converges fast only below the mean; the other side by symmetry.
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - incomplete_beta(1.0 - x, b, a);
    }
    let front = (a * x.ln() + b * (-x).ln_1p() + ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b)).exp() / a;
    let floor = |v: f64| if v.abs() < 1e-300 { 1e-300 } else { v };
    let (mut c, mut d) = (1.0, 1.0 / floor(1.0 - (a + b) * x / (a + 1.0)));
    let mut fraction = d;
    for m in 1..300 {
        let m = m as f64;
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let mut step = 1.0;
        for term in [even, odd] {
            d = 1.0 / floor(1.0 + term * d);
            c = floor(1.0 + term / c);
            step = c * d;
            fraction *= step;
        }
        if (step - 1.0).abs() < 1e-15 {
            break;
        }
    }
    front * fraction
}

/// Natural logarithm of the gamma function for x > 0: Stirling's series, after shifting x past 8.
fn ln_gamma(x: f64) -> f64 {
    let (mut x, mut shift) = (x, 0.0);
    while x < 8.0 {
        shift -= x.ln();
        x += 1.0;
    }
    let square = x * x;
    let series = (1.0 / 12.0 - (1.0 / 360.0 - (1.0 / 1260.0 - 1.0 / (1680.0 * square)) / square) / square) / x;
    shift + (x - 0.5) * x.ln() - x + 0.5 * (2.0 * std::f64::consts::PI).ln() + series
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn student_quantiles_agree_with_the_tables() {
        for (freedom, expected) in
            [(1.0, 12.706_205), (2.0, 4.302_653), (4.0, 2.776_445), (8.0, 2.306_004), (30.0, 2.042_272)]
        {
            assert!((student95(freedom) - expected).abs() < 1e-5, "{freedom}: {}", student95(freedom));
        }
        assert!((student95(1e9) - Z95).abs() < 1e-6);
    }
}
