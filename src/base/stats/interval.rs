//! Intervals at 95 % of one set of measurements.

use super::{Z95, percentile};

/// Resamples of a bootstrap: the ends of a 95 % interval then rest on fifty of them each.
const RESAMPLES: usize = 2000;

/// Wilson score interval of `successes` out of `trials` at 95 %; (0, 1) when there were no trials.
pub fn wilson(successes: usize, trials: usize) -> (f64, f64) {
    if trials == 0 {
        return (0.0, 1.0);
    }
    wilson_of(successes as f64 / trials as f64, trials as f64, Z95)
}

/// The same of a share `p` of `n` trials, with `z` the deviate of the interval.
pub(super) fn wilson_of(p: f64, n: f64, z: f64) -> (f64, f64) {
    let centre = p + z * z / (2.0 * n);
    let half = z * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + z * z / n;
    // At the ends the bound is the end itself, which rounding would miss.
    let low = if p == 0.0 { 0.0 } else { ((centre - half) / scale).max(0.0) };
    let high = if p == 1.0 { 1.0 } else { ((centre + half) / scale).min(1.0) };
    (low, high)
}

/// The interval that the middle 95 % of many draws of a statistic span; `None` if one of them is undefined.
pub(super) fn resample(mut draw: impl FnMut() -> Option<f64>) -> Option<(f64, f64)> {
    let draws = (0..RESAMPLES).map(|_| draw()).collect::<Option<Vec<f64>>>()?;
    Some((percentile(&draws, 2.5)?, percentile(&draws, 97.5)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wilson_agrees_with_a_published_value() {
        // 81 of 263: (0.2553, 0.3662) in Newcombe (1998), table I.
        let (low, high) = wilson(81, 263);
        assert!((low - 0.2553).abs() < 5e-5 && (high - 0.3662).abs() < 5e-5, "{low} {high}");
    }

    #[test]
    fn all_and_none_reach_the_ends_exactly() {
        for trials in 1..200 {
            let (all, none) = (wilson(trials, trials), wilson(0, trials));
            assert_eq!((all.1, none.0), (1.0, 0.0), "{trials} trials");
            assert!(all.0 > 0.0 && none.1 < 1.0, "{all:?} {none:?}");
        }
    }
}
