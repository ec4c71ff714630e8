//! Scores of a text, token by token, in order: neighbours are alike.
//!
//! A hard passage is hard for hundreds of tokens, and what a cache costs goes by passages too. Standard errors of tokens taken as independent are
//! up to three times too small (`benches/NOTES_QUALITY.md`). So a text is cut into blocks so long that their means hardly depend on one
//! another (batch means), and as they are few, intervals use Student's t. Of a short text, whose blocks are shorter, they remain
//! too narrow.

use super::interval::wilson_of;
use super::{Z95, mean, percentile, standard_error};

/// Tokens of a block, where the text has so many for each of [`FEWEST_BLOCKS`].
const LEAST_BLOCK: usize = 512;
const FEWEST_BLOCKS: usize = 4;
/// More say no more about the error, and longer ones are less alike.
const MOST_BLOCKS: usize = 64;

/// A number that was measured on a text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The mean over all tokens.
    pub value: f64,
    /// Standard error of `value`.
    pub error: f64,
    /// Blocks whose means `error` is of; 0 where tokens were taken as independent, as in older files.
    pub blocks: usize,
}

impl Estimate {
    /// Of `values`, one for each token in the order of the text; `None` for fewer than four.
    pub fn of(values: &[f64]) -> Option<Self> {
        Self::of_blocks(values, blocks(values.len()))
    }

    /// Of the means of `sections` of equal length of a text of `tokens`.
    pub fn of_sections(sections: &[f64], tokens: usize) -> Option<Self> {
        Self::of_blocks(sections, blocks(tokens.max(sections.len())))
    }

    fn of_blocks(values: &[f64], blocks: usize) -> Option<Self> {
        let count = values.len();
        let block = |i: usize| mean(&values[count * i / blocks..count * (i + 1) / blocks]);
        let means = (0..blocks).map(block).collect::<Option<Vec<f64>>>()?;
        Some(Estimate { value: mean(values)?, error: standard_error(&means)?, blocks })
    }

    /// This less `other`, which is taken as independent of it.
    pub fn less(&self, other: Self) -> Self {
        let blocks = [self.blocks, other.blocks].into_iter().filter(|blocks| *blocks > 0).min().unwrap_or(0);
        Estimate { value: self.value - other.value, error: self.error.hypot(other.error), blocks }
    }

    /// At 95 %.
    pub fn interval(&self) -> (f64, f64) {
        let half = deviate(self.blocks) * self.error;
        (self.value - half, self.value + half)
    }
}

/// Blocks that a text of so many tokens is cut into: a power of two, so that sections of the text make them up too.
pub fn blocks(tokens: usize) -> usize {
    1 << (tokens / LEAST_BLOCK).clamp(FEWEST_BLOCKS, MOST_BLOCKS).ilog2()
}

/// Deviate of a two-sided 95 % interval about a mean of `blocks`: Student's t, or where tokens were taken as independent, the normal one.
fn deviate(blocks: usize) -> f64 {
    match blocks {
        0 => Z95,
        1..8 => 3.182_446_305,
        8..16 => 2.364_624_252,
        16..32 => 2.131_449_546,
        32..64 => 2.039_513_446,
        _ => 1.998_340_543,
    }
}

/// Mean of `new[i] − base[i]` over tokens: what the two share cancels. `None` when the sides differ in number or are fewer than four.
pub fn mean_difference(base: &[f64], new: &[f64]) -> Option<Estimate> {
    Estimate::of(&differences(base, new)?)
}

/// The same over sections of one text of `tokens`.
pub fn section_difference(base: &[f64], new: &[f64], tokens: usize) -> Option<Estimate> {
    Estimate::of_sections(&differences(base, new)?, tokens)
}

fn differences(base: &[f64], new: &[f64]) -> Option<Vec<f64>> {
    (base.len() == new.len()).then(|| base.iter().zip(new).map(|(a, b)| b - a).collect())
}

/// ln(mean of `new` / mean of `base`) over sections of one text of `tokens`, with its error (delta method): what the sections share cancels.
/// `None` when the sides differ in number, are fewer than four, or a mean is not positive.
pub fn section_log_ratio(base: &[f64], new: &[f64], tokens: usize) -> Option<Estimate> {
    let shares = |values: &[f64]| {
        let mean = mean(values).filter(|mean| *mean > 0.0)?;
        Some((values.iter().map(|value| value / mean).collect::<Vec<f64>>(), mean.ln()))
    };
    let ((before, base), (after, new)) = (shares(base)?, shares(new)?);
    Some(Estimate { value: new - base, ..section_difference(&before, &after, tokens)? })
}

/// Interval at 95 % of the root of the mean of `squares`, one for each token in the order of the text.
pub fn root_mean_square_interval(squares: &[f64]) -> Option<(f64, f64)> {
    let (low, high) = Estimate::of(squares)?.interval();
    Some((low.max(0.0).sqrt(), high.sqrt()))
}

/// Interval at 95 % of the share of tokens, in the order of the text, that `hold`: Wilson's, of as many independent tokens as would have the
/// error that blocks have, but no more than there are.
pub fn share_interval(hold: &[bool]) -> Option<(f64, f64)> {
    let shares: Vec<f64> = hold.iter().map(|hold| f64::from(u8::from(*hold))).collect();
    let share = Estimate::of(&shares)?;
    let tokens = shares.len() as f64;
    let independent = share.value * (1.0 - share.value) / share.error.powi(2);
    Some(wilson_of(share.value, if independent < tokens { independent } else { tokens }, deviate(share.blocks)))
}

/// Interval at 95 % of the `p`-th percentile (0…100) of `values`, one for each token in the order of the text, by order statistics: the ranks
/// that the share of tokens below it reaches.
pub fn percentile_interval(values: &[f64], p: f64) -> Option<(f64, f64)> {
    let at = percentile(values, p)?;
    let below: Vec<f64> = values.iter().map(|value| f64::from(u8::from(*value <= at))).collect();
    let share = Estimate::of(&below)?;
    let (n, q) = (values.len() as f64, p / 100.0);
    let half = deviate(share.blocks) * share.error.max((q * (1.0 - q) / n).sqrt());
    let at = |share: f64| percentile(values, (100.0 * share).clamp(0.0, 100.0));
    Some((at(q - half)?, at(q + half)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::SplitMix64;

    /// Noise that a token keeps `memory` of from the one before, of unit variance.
    fn noise(rng: &mut SplitMix64, tokens: usize, memory: f64) -> Vec<f64> {
        let unit = |bits: u64| (bits >> 11) as f64 / (1u64 << 53) as f64;
        let mut normal = || (0..12).map(|_| unit(rng.next_u64())).sum::<f64>() - 6.0;
        let mut last = normal();
        (0..tokens)
            .map(|_| {
                last = memory * last + (1.0 - memory * memory).sqrt() * normal();
                last
            })
            .collect()
    }

    /// In how many of `texts` the interval holds the mean of all texts, 0.
    fn held(tokens: usize, memory: f64, texts: usize) -> usize {
        let mut rng = SplitMix64::new(7);
        (0..texts)
            .filter(|_| {
                let (low, high) = Estimate::of(&noise(&mut rng, tokens, memory)).unwrap().interval();
                low <= 0.0 && high >= 0.0
            })
            .count()
    }

    #[test]
    fn intervals_hold_the_mean_of_texts_whose_tokens_are_alike() {
        // Were tokens independent, errors would be (1 + 0.98)/(1 − 0.98), its root, ten times too small.
        for (tokens, memory) in [(4096, 0.0), (4096, 0.98), (32768, 0.98), (1000, 0.9)] {
            let held = held(tokens, memory, 200);
            assert!((180..=199).contains(&held), "{tokens} tokens, memory {memory}: {held} of 200");
        }
    }

    #[test]
    fn sections_give_the_interval_of_their_tokens() {
        let values = noise(&mut SplitMix64::new(3), 8192, 0.95);
        let sections = super::super::section_means(&values);
        let (all, some) = (Estimate::of(&values).unwrap(), Estimate::of_sections(&sections, values.len()).unwrap());
        assert_eq!(all.blocks, 16);
        assert!((all.value - some.value).abs() < 1e-12 && (all.error - some.error).abs() < 1e-12, "{all:?} {some:?}");
    }

    #[test]
    fn blocks_are_long_and_as_many_as_the_text_has_room_for() {
        for (tokens, expected) in [(4, 4), (2047, 4), (4095, 4), (4096, 8), (32768, 64), (1 << 20, 64)] {
            assert_eq!(blocks(tokens), expected, "{tokens} tokens");
        }
        assert_eq!(Estimate::of(&[1.0, 2.0, 3.0]), None, "three tokens make no four blocks");
    }

    #[test]
    fn what_two_sides_share_is_no_spread() {
        let base = noise(&mut SplitMix64::new(5), 4096, 0.9);
        let new: Vec<f64> = base.iter().map(|x| x + 0.25).collect();
        let difference = mean_difference(&base, &new).unwrap();
        assert!((difference.value - 0.25).abs() < 1e-12 && difference.error < 1e-12, "{difference:?}");
        assert_eq!(mean_difference(&base, &new[1..]), None);

        let (base, new) = ([1.0, 2.0, 6.0, 3.0], [2.0, 4.0, 12.0, 6.0]);
        let ratio = section_log_ratio(&base, &new, 16).unwrap();
        assert!((ratio.value - 2f64.ln()).abs() < 1e-12 && ratio.error < 1e-12, "{ratio:?}");
        assert_eq!(section_log_ratio(&[0.0; 4], &new, 16), None);
    }

    #[test]
    fn a_difference_is_as_sure_as_the_side_of_fewer_blocks() {
        let of = |blocks| Estimate { value: 1.0, error: 3.0, blocks };
        let blocks = |a, b| of(a).less(of(b)).blocks;
        assert_eq!((blocks(64, 4), blocks(0, 4), blocks(4, 0), blocks(0, 0)), (4, 4, 4, 0));
        assert!((of(8).less(Estimate { error: 4.0, ..of(8) }).error - 5.0).abs() < 1e-12);
    }

    #[test]
    fn intervals_are_as_wide_as_student_says_of_so_few_blocks() {
        // t at 97.5 % of 3, 7, 15, 31 and 63 degrees of freedom, as any table of it has them; the normal one where blocks are unknown.
        for (blocks, t) in [(0, 1.960), (4, 3.182), (8, 2.365), (16, 2.131), (32, 2.040), (64, 1.998)] {
            let (low, high) = Estimate { value: 5.0, error: 1.0, blocks }.interval();
            assert!((high - 5.0 - t).abs() < 5e-4 && (5.0 - low - t).abs() < 5e-4, "{blocks} blocks: {low} {high}");
        }
    }

    #[test]
    fn blocks_that_agree_by_chance_are_no_surer_than_independent_tokens() {
        // Each block holds as many: no spread at all between blocks.
        let (low, high) = share_interval(&[true, false].repeat(32)).unwrap();
        // Wilson's interval of 32 in 64 with z = 3.1824, by hand.
        assert!((low - 0.3152).abs() < 1e-4 && (high - 0.6848).abs() < 1e-4, "{low} {high}");
        let eighths: Vec<f64> = (0..64).map(|i| f64::from(i % 8)).collect();
        // A half and 3.1824·√(¼/64) to either side: 30 and 70 % of 0…7.
        assert_eq!(percentile_interval(&eighths, 50.0), Some((2.0, 5.0)));
    }

    #[test]
    fn a_root_mean_square_is_not_less_than_nothing() {
        let (low, high) = root_mean_square_interval(&[0.0, 0.0, 0.0, 4.0]).unwrap();
        // 1 ± 3.1824·1
        assert!(low == 0.0 && (high - 4.1824f64.sqrt()).abs() < 1e-4, "{low} {high}");
    }

    #[test]
    fn shares_and_percentiles_lie_in_their_intervals_which_alike_tokens_widen() {
        let width = |memory: f64| {
            let values = noise(&mut SplitMix64::new(11), 16384, memory);
            let (low, high) = percentile_interval(&values, 90.0).unwrap();
            let at = percentile(&values, 90.0).unwrap();
            assert!(low < at && at < high, "{low} {at} {high}");
            let hold: Vec<bool> = values.iter().map(|x| *x > 1.0).collect();
            let share = hold.iter().filter(|hold| **hold).count() as f64 / 16384.0;
            let (less, more) = share_interval(&hold).unwrap();
            assert!(less < share && share < more, "{less} {share} {more}");
            (high - low, more - less)
        };
        let ((alone, share), (alike, same)) = (width(0.0), width(0.98));
        assert!(alike > 3.0 * alone && same > 3.0 * share, "{alone} {alike} {share} {same}");
        assert_eq!(share_interval(&[true; 64]).unwrap().1, 1.0);
        assert_eq!(root_mean_square_interval(&[4.0; 8]), Some((2.0, 2.0)));
    }
}
