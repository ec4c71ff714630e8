//! Intervals of differences: what `compare` and the report say about two runs.

use super::stats::{mean, sd};

/// Two-sided 95 % quantile of the normal distribution.
pub const Z95: f64 = 1.959_963_984_540_054;

/// A relative change with its 95 % interval, all as fractions (0.01 = 1 %).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Change {
    /// `new / base − 1`.
    pub value: f64,
    /// Interval at 95 %; `None` where nothing is known about the spread.
    pub interval: Option<(f64, f64)>,
}

/// Relative change of the mean from `base` to `new`, positive measurements repeated independently: Welch's interval of the
/// difference of logarithms. `None` when a side is empty or holds a value that is not positive.
pub fn ratio_of_repeats(base: &[f64], new: &[f64]) -> Option<Change> {
    if base.iter().chain(new).any(|v| !v.is_finite() || *v <= 0.0) {
        return None;
    }
    let logs = |values: &[f64]| values.iter().map(|v| v.ln()).collect::<Vec<_>>();
    let (a, b) = (logs(base), logs(new));
    let centre = mean(&b)? - mean(&a)?;
    let interval = (a.len() > 1 && b.len() > 1).then(|| {
        let (va, vb) = (sd(&a).powi(2) / a.len() as f64, sd(&b).powi(2) / b.len() as f64);
        let spread = va + vb;
        if spread == 0.0 {
            return (centre.exp_m1(), centre.exp_m1());
        }
        let freedom = spread * spread / (va * va / (a.len() - 1) as f64 + vb * vb / (b.len() - 1) as f64);
        let half = student95(freedom) * spread.sqrt();
        ((centre - half).exp_m1(), (centre + half).exp_m1())
    });
    Some(Change { value: centre.exp_m1(), interval })
}

/// Difference of two success rates on the same `trials` items, of which `lost` succeeded only before and `gained` only
/// after, with its 95 % interval (Agresti and Min 2005: half an item added to each cell, then Wald's interval).
pub fn paired_rates(lost: usize, gained: usize, trials: usize) -> Option<(f64, (f64, f64))> {
    if trials == 0 || lost + gained > trials {
        return None;
    }
    let difference = (gained as f64 - lost as f64) / trials as f64;
    let (n, b, c) = (trials as f64 + 2.0, lost as f64 + 0.5, gained as f64 + 0.5);
    let centre = (c - b) / n;
    let half = Z95 * (b + c - (c - b).powi(2) / n).max(0.0).sqrt() / n;
    Some((difference, ((centre - half).max(-1.0), (centre + half).min(1.0))))
}

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

    #[test]
    fn repeats_that_double_change_by_a_hundred_percent() {
        let change = ratio_of_repeats(&[10.0, 10.0], &[20.0, 20.0]).unwrap();
        assert!((change.value - 1.0).abs() < 1e-12 && change.interval.is_some());
        let noisy = ratio_of_repeats(&[9.0, 10.0, 11.0], &[18.0, 20.0, 22.0]).unwrap();
        let (low, high) = noisy.interval.unwrap();
        assert!(low < noisy.value && noisy.value < high && low > 0.5 && high < 1.7, "{low} {high}");
        assert_eq!(ratio_of_repeats(&[1.0], &[2.0]).unwrap().interval, None);
        assert_eq!(ratio_of_repeats(&[], &[2.0]), None);
        assert_eq!(ratio_of_repeats(&[0.0, 1.0], &[2.0]), None);
    }

    #[test]
    fn paired_rates_follow_the_published_formula() {
        // Agresti and Min's form by hand: n = 102, b = 8.5, c = 2.5.
        let (difference, (low, high)) = paired_rates(8, 2, 100).unwrap();
        let half = Z95 * (11.0f64 - 36.0 / 102.0).sqrt() / 102.0;
        assert_eq!(difference, -0.06);
        assert!((low - (-6.0 / 102.0 - half)).abs() < 1e-12 && (high - (-6.0 / 102.0 + half)).abs() < 1e-12);
        assert!(low < 0.0 && high > 0.0);
        assert_eq!(paired_rates(1, 0, 0), None);
    }
}
