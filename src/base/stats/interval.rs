//! Intervals at 95 % of one set of measurements.

use super::{Z95, mean, percentile, standard_error};

/// Resamples of a bootstrap: the ends of a 95 % interval then rest on fifty of them each.
const RESAMPLES: usize = 2000;

/// Wilson score interval of `successes` out of `trials` at 95 %; (0, 1) when there were no trials.
pub fn wilson(successes: usize, trials: usize) -> (f64, f64) {
    if trials == 0 {
        return (0.0, 1.0);
    }
    let (n, z) = (trials as f64, Z95);
    let p = successes as f64 / n;
    let centre = p + z * z / (2.0 * n);
    let half = z * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + z * z / n;
    // At the ends the bound is the end itself, which rounding would miss.
    let low = if successes == 0 { 0.0 } else { ((centre - half) / scale).max(0.0) };
    let high = if successes == trials { 1.0 } else { ((centre + half) / scale).min(1.0) };
    (low, high)
}

/// Interval of the mean of many independent `values`, by the normal distribution; `None` for fewer than two.
pub fn normal_interval(values: &[f64]) -> Option<(f64, f64)> {
    let (mean, error) = (mean(values)?, standard_error(values)?);
    Some((mean - Z95 * error, mean + Z95 * error))
}

/// Root of the mean of many independent `squares`, with its interval where there are at least two; `None` when empty.
pub fn root_mean_square(squares: &[f64]) -> Option<(f64, Option<(f64, f64)>)> {
    let interval = normal_interval(squares).map(|(low, high)| (low.max(0.0).sqrt(), high.sqrt()));
    Some((mean(squares)?.sqrt(), interval))
}

/// Interval of the `p`-th percentile (0…100) of `values` sorted in ascending order, by order statistics: the ranks that a binomial
/// count of values below it reaches, by its normal approximation. `None` when empty.
pub fn percentile_interval(sorted: &[f64], p: f64) -> Option<(f64, f64)> {
    let last = sorted.len().checked_sub(1)?;
    let (n, q) = (sorted.len() as f64, p / 100.0);
    let half = Z95 * (n * q * (1.0 - q)).sqrt();
    let at = |rank: f64| sorted[(rank.max(0.0) as usize).min(last)];
    Some((at((n * q - half).floor()), at((n * q + half).ceil())))
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

    #[test]
    fn percentile_intervals_hold_the_percentile_and_shrink() {
        let values = |n: usize| -> Vec<f64> { (0..n).map(|i| i as f64 / n as f64).collect() };
        let (low, high) = percentile_interval(&values(100), 90.0).unwrap();
        assert!(low < 0.9 && high > 0.9 && low > 0.8, "{low} {high}");
        let (closer_low, closer_high) = percentile_interval(&values(10_000), 90.0).unwrap();
        assert!(closer_high - closer_low < (high - low) / 5.0);
        assert_eq!(percentile_interval(&[0.5], 99.0), Some((0.5, 0.5)));
        assert_eq!(percentile_interval(&[], 99.0), None);
    }

    #[test]
    fn a_root_mean_square_lies_in_its_interval() {
        let (root, interval) = root_mean_square(&[1.0, 4.0, 9.0, 16.0]).unwrap();
        let (low, high) = interval.unwrap();
        assert!((root - 7.5f64.sqrt()).abs() < 1e-12 && low < root && root < high);
        assert_eq!(root_mean_square(&[4.0]), Some((2.0, None)));
        assert_eq!(root_mean_square(&[]), None);
    }
}
