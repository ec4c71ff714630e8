//! Two sides: what may be said of the difference between two sets of measurements.

use super::interval::resample;
use super::{Estimate, Z95, mean, median, wilson};
use crate::base::rng::SplitMix64;

/// A relative change with its 95 % interval, all as fractions (0.01 = 1 %).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Change {
    /// `new / base − 1`.
    pub value: f64,
    /// Interval at 95 %; `None` where nothing is known about the spread.
    pub interval: Option<(f64, f64)>,
}

/// Repeats a side from which a bootstrap tells how sure a median is: of two, its 95 % interval holds the truth two times in three, of
/// three, nine times in ten.
const REPEATS: usize = 3;

/// Relative change of the median from `base` to `new`, repeated independently, with the percentile bootstrap's interval: for
/// times with a long tail, of which a mean says little. `None` when a side is empty or the base's median is not positive; no interval
/// of fewer than three repeats a side.
pub fn ratio_of_medians(base: &[f64], new: &[f64]) -> Option<Change> {
    let ratio = |base: &[f64], new: &[f64]| {
        let (base, new) = (median(base)?, median(new)?);
        (base > 0.0).then(|| new / base - 1.0)
    };
    let value = ratio(base, new)?;
    let mut rng = SplitMix64::new(0);
    let interval = (base.len() >= REPEATS && new.len() >= REPEATS)
        .then(|| resample(|| ratio(&rng.resample(base), &rng.resample(new))))
        .flatten();
    Some(Change { value, interval })
}

/// Interval at 95 % of the relative change whose logarithm is `log`; `None` for numbers that are not finite.
pub fn change_of_log(log: Estimate) -> Option<(f64, f64)> {
    let (low, high) = log.interval();
    (low.is_finite() && high.is_finite()).then(|| (low.exp_m1(), high.exp_m1()))
}

/// Most sections of [`section_means`]: enough to pair two runs by, and few numbers in a file.
const SECTIONS: usize = 128;

/// Means of equally long (to a value) sections of `values`, in order: as many as there are values but at most 128. Two runs over the same
/// items are paired by them where a file does not hold every item.
pub fn section_means(values: &[f64]) -> Vec<f64> {
    let count = values.len().min(SECTIONS);
    let section = |i: usize| &values[values.len() * i / count..values.len() * (i + 1) / count];
    (0..count).filter_map(|i| mean(section(i))).collect()
}

/// Difference of two success rates on the same `trials` items, of which `lost` succeeded only before and `gained` only
/// after, with its 95 % interval (Agresti and Min 2005: half an item added to each cell, then Wald's interval).
pub fn paired_rates(lost: usize, gained: usize, trials: usize) -> Option<(f64, (f64, f64))> {
    if trials == 0 || lost.saturating_add(gained) > trials {
        return None;
    }
    let difference = (gained as f64 - lost as f64) / trials as f64;
    let (n, b, c) = (trials as f64 + 2.0, lost as f64 + 0.5, gained as f64 + 0.5);
    let centre = (c - b) / n;
    let half = Z95 * (b + c - (c - b).powi(2) / n).max(0.0).sqrt() / n;
    Some((difference, ((centre - half).max(-1.0), (centre + half).min(1.0))))
}

/// Fewest items of which the interval of [`paired_rates`] excludes a fall of more than `fall` (0.02: two points) if every item comes out as
/// before; `None` where no number does.
pub fn items_to_exclude(fall: f64) -> Option<usize> {
    // Without a change the interval is ±Z95 / (n + 2).
    let items = (Z95 / fall).ceil() - 2.0;
    (fall > 0.0 && items <= u32::MAX.into()).then_some(items.max(1.0) as usize)
}

/// Outcomes of the same items under test and under the reference.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PairTable {
    /// Both succeeded.
    pub both: usize,
    /// Only the reference succeeded.
    pub lost: usize,
    /// Only the one under test succeeded.
    pub gained: usize,
    /// Neither succeeded.
    pub neither: usize,
}

impl PairTable {
    /// Counts pairs of (success under test, success of the reference).
    pub fn of(pairs: impl IntoIterator<Item = (bool, bool)>) -> Self {
        let mut table = PairTable::default();
        for pair in pairs {
            match pair {
                (true, true) => table.both += 1,
                (false, true) => table.lost += 1,
                (true, false) => table.gained += 1,
                (false, false) => table.neither += 1,
            }
        }
        table
    }

    /// Items.
    pub fn items(&self) -> usize {
        self.both + self.lost + self.gained + self.neither
    }

    /// Successes under test.
    pub fn successes(&self) -> usize {
        self.both + self.gained
    }

    /// Successes of the reference.
    pub fn reference_successes(&self) -> usize {
        self.both + self.lost
    }

    /// `successes / items`; 0 for no items.
    pub fn rate(&self) -> f64 {
        self.successes() as f64 / self.items().max(1) as f64
    }

    /// The rate less the reference's.
    pub fn delta(&self) -> f64 {
        self.rate() - self.reference_successes() as f64 / self.items().max(1) as f64
    }

    /// Wilson interval of the rate at 95 %.
    pub fn interval(&self) -> (f64, f64) {
        wilson(self.successes(), self.items())
    }
}

/// McNemar's exact two-sided p: the chance, were a change in either direction equally likely, of a split of the
/// `lost + gained` discordant pairs at least as uneven as this one.
pub fn mcnemar_exact(lost: usize, gained: usize) -> f64 {
    let n = lost + gained;
    // C(n, k)/2^n by logarithms: neither factor need fit a float.
    let mut log_term = -(n as f64) * std::f64::consts::LN_2;
    let mut tail = log_term.exp();
    for k in 1..=lost.min(gained) {
        log_term += ((n - k + 1) as f64).ln() - (k as f64).ln();
        tail += log_term.exp();
    }
    (2.0 * tail).min(1.0)
}

/// Difference `new − base` of two rates measured on different items, with its 95 % interval (Newcombe 1998, method 10: from
/// the Wilson intervals of the two).
pub fn independent_rates(base: (f64, (f64, f64)), new: (f64, (f64, f64))) -> (f64, (f64, f64)) {
    let ((before, (before_low, before_high)), (after, (after_low, after_high))) = (base, new);
    let difference = after - before;
    let low = difference - (after - after_low).hypot(before_high - before);
    let high = difference + (after_high - after).hypot(before - before_low);
    (difference, (low, high))
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn so_many_items_exclude_a_fall_and_one_less_does_not() {
        let low = |items: usize| paired_rates(0, 0, items).unwrap().1.0;
        for fall in [0.005, 0.02, 0.1] {
            let items = items_to_exclude(fall).unwrap();
            assert!(low(items) >= -fall && low(items - 1) < -fall, "{fall}: {items}");
        }
        // 1.96 / (1 + 2) is 0.65.
        assert_eq!((items_to_exclude(0.7), items_to_exclude(0.0), items_to_exclude(-0.1)), (Some(1), None, None));
    }

    #[test]
    fn sections_are_of_equal_length_and_few() {
        let values: Vec<f64> = (0..300).map(f64::from).collect();
        let sections = section_means(&values);
        assert_eq!(sections.len(), SECTIONS);
        assert_eq!((sections[0], sections[SECTIONS - 1]), (0.5, 298.0), "two values, and three");
        assert_eq!(section_means(&values[..3]), [0.0, 1.0, 2.0]);
        assert_eq!(section_means(&[]), Vec::<f64>::new());
    }

    #[test]
    fn a_ratio_of_medians_ignores_the_tail_and_holds_the_true_ratio() {
        let base: Vec<f64> = (0..40).map(|i| 1.0 + f64::from(i % 5) * 0.01).collect();
        let mut new: Vec<f64> = base.iter().map(|v| v * 0.5).collect();
        new[7] = 100.0;
        let change = ratio_of_medians(&base, &new).unwrap();
        let (low, high) = change.interval.unwrap();
        assert!((change.value + 0.5).abs() < 1e-12, "{change:?}");
        assert!(low <= -0.5 && high >= -0.5 && high - low < 0.02, "{low} {high}");
        for (base, new) in [([1.0, 1.1].as_slice(), [2.0, 2.1, 2.2].as_slice()), (&[1.0, 1.1, 1.2], &[2.0, 2.1])] {
            assert_eq!(ratio_of_medians(base, new).unwrap().interval, None, "two say too little");
        }
        assert_eq!(ratio_of_medians(&[], &[2.0]), None);
        assert_eq!(ratio_of_medians(&[0.0], &[2.0]), None);
    }

    #[test]
    fn a_log_and_its_error_become_a_relative_change() {
        let log = |value, error| Estimate { value, error, blocks: 0 };
        let (low, high) = change_of_log(log(2f64.ln(), 0.0)).unwrap();
        assert!((low - 1.0).abs() < 1e-12 && (high - 1.0).abs() < 1e-12);
        let (low, high) = change_of_log(log(0.0, 0.1)).unwrap();
        assert!((low - (-0.1 * Z95).exp_m1()).abs() < 1e-12 && (high - (0.1 * Z95).exp_m1()).abs() < 1e-12);
        assert_eq!(change_of_log(log(f64::NAN, 0.1)), None);
    }

    #[test]
    fn independent_rates_have_the_published_interval() {
        // 56/70 against 48/80 (Newcombe 1998, table II, a): 0.0524 to 0.3339.
        let of = |s: usize, n: usize| (s as f64 / n as f64, wilson(s, n));
        let (difference, (low, high)) = independent_rates(of(48, 80), of(56, 70));
        assert!((difference - 0.2).abs() < 1e-12);
        assert!((low - 0.0524).abs() < 1e-4 && (high - 0.3339).abs() < 1e-4, "{low} {high}");
    }

    #[test]
    fn mcnemar_agrees_with_the_binomial_by_hand() {
        assert_eq!(mcnemar_exact(0, 0), 1.0);
        assert_eq!(mcnemar_exact(3, 3), 1.0);
        assert!((mcnemar_exact(0, 5) - 2.0 / 32.0).abs() < 1e-12);
        // 2·(1 + 10 + 45)/1024
        assert!((mcnemar_exact(2, 8) - 112.0 / 1024.0).abs() < 1e-12);
        assert_eq!(mcnemar_exact(8, 2), mcnemar_exact(2, 8));
        let many = mcnemar_exact(4000, 4100);
        assert!(many > 0.2 && many < 0.3, "{many}");
    }

    #[test]
    fn a_table_counts_each_kind_of_pair() {
        let table = PairTable::of([(true, true), (true, true), (false, true), (true, false), (false, false)]);
        assert_eq!(table, PairTable { both: 2, lost: 1, gained: 1, neither: 1 });
        assert_eq!((table.items(), table.successes(), table.reference_successes()), (5, 3, 3));
        assert_eq!((table.rate(), table.delta()), (0.6, 0.0));
        assert_eq!(PairTable::default().interval(), (0.0, 1.0));
    }
}
