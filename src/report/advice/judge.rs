//! Whether a cache keeps to a bound on quality.

use crate::report::number::{self, Digits};
use crate::report::quality::{Quality, Score};

/// How much quality may be lost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bound {
    /// Largest rise of the perplexity, as a fraction. Where the file has an interval, its upper end must keep to it.
    pub ppl_rise: f64,
    /// Largest fall of a score (needle, MMLU, MATH), as a fraction of all items.
    pub score_fall: f64,
}

impl Default for Bound {
    fn default() -> Self {
        Bound { ppl_rise: 0.01, score_fall: 0.02 }
    }
}

impl Bound {
    /// The bound in words.
    pub fn words(&self) -> String {
        let percent = |v: f64| number::shown(v * 100.0, Digits::Exact);
        format!(
            "perplexity rises by at most {} % (the upper end of its 95 % interval where there is one), and no score falls by more than \
             {} points",
            percent(self.ppl_rise),
            percent(self.score_fall)
        )
    }
}

/// Whether a cache keeps to the bound.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// It does; with what was measured, in words.
    Keeps(String),
    /// It does not; with what breaks the bound.
    Breaks(String),
    /// Nothing was measured that tells.
    Unknown,
}

/// Holds `quality` against `bound`.
pub fn judge(quality: &Quality, bound: &Bound) -> Verdict {
    let (mut measured, mut broken) = (Vec::new(), Vec::new());
    if let Some(rise) = quality.relative_rise() {
        let worst = quality.relative_interval().map_or(rise, |(_, high)| high);
        let shown = |v| number::shown(v, Digits::SignedPercent(2));
        let interval = quality
            .relative_interval()
            .map_or_else(String::new, |(low, high)| format!(" (95 %: {} to {})", shown(low), shown(high)));
        let words = format!("perplexity {}{interval}", shown(rise));
        if worst > bound.ppl_rise {
            broken.push(words.clone())
        }
        measured.push(words);
    }
    for (name, score) in scores(quality).filter(|(_, score)| !score.of_nothing()) {
        let Some(delta) = score.delta else { continue };
        let words = score_words(name, score, delta);
        if delta < -bound.score_fall - 1e-12 {
            broken.push(words.clone())
        }
        measured.push(words);
    }
    match (measured.is_empty(), broken.is_empty()) {
        (true, _) => Verdict::Unknown,
        (_, true) => Verdict::Keeps(measured.join("; ")),
        (_, false) => Verdict::Breaks(broken.join("; ")),
    }
}

pub(super) fn scores(quality: &Quality) -> impl Iterator<Item = (&'static str, &Score)> {
    let scores = [("needle", &quality.needle), ("MMLU", &quality.mmlu), ("MATH", &quality.math)];
    scores.into_iter().filter_map(|(name, score)| Some((name, score.as_ref()?)))
}

fn score_words(name: &str, score: &Score, delta: f64) -> String {
    let points = number::shown(delta * 100.0, Digits::Signed(1));
    let stopped = score.stopped_before.map_or_else(String::new, |planned| format!(", stopped before {planned}"));
    format!("{name} {points} points ({} of {}{stopped})", score.successes, score.trials)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::stats::Estimate;

    fn quality(rise: f64, error: Option<f64>) -> Quality {
        let value = rise.ln_1p();
        let ln_ratio_estimate = error.map(|error| Estimate { value, error, blocks: 0 });
        Quality { ln_ratio: Some(value), ln_ratio_estimate, ..Quality::default() }
    }

    #[test]
    fn the_upper_end_of_the_interval_decides() {
        let bound = Bound::default();
        assert!(matches!(judge(&quality(0.009, None), &bound), Verdict::Keeps(_)));
        assert!(matches!(judge(&quality(0.009, Some(0.002)), &bound), Verdict::Breaks(_)));
        assert!(matches!(judge(&quality(0.011, None), &bound), Verdict::Breaks(_)));
        assert_eq!(judge(&Quality::default(), &bound), Verdict::Unknown);
    }

    #[test]
    fn a_score_may_fall_to_the_bound_and_no_further() {
        let with = |delta: f64| Quality {
            needle: Some(Score { delta: Some(delta), ..Score::default() }),
            ..quality(0.0, None)
        };
        assert!(matches!(judge(&with(-0.02), &Bound::default()), Verdict::Keeps(_)));
        let Verdict::Breaks(words) = judge(&with(-0.05), &Bound::default()) else { panic!("kept") };
        assert!(words.contains("needle") && !words.contains("perplexity"), "{words}");
        let nothing = Score { trials: 15, delta: Some(0.0), ..Score::default() };
        let quality = Quality { needle: Some(nothing), ..Quality::default() };
        assert_eq!(judge(&quality, &Bound::default()), Verdict::Unknown, "what cannot fall says nothing");
        let stopped = Score { successes: 5, trials: 12, stopped_before: Some(200), ..Score::default() };
        assert_eq!(score_words("MMLU", &stopped, 0.0), "MMLU 0.0 points (5 of 12, stopped before 200)");
    }
}
