//! Whether a cache keeps to a bound on quality and on speed.

use std::collections::BTreeSet;

use crate::base::stats::{items_to_exclude, ratio_of_medians};
use crate::report::number::{self, Digits};
use crate::report::quality::{Quality, Score};
use crate::report::run::Run;
use crate::report::study::Row;

/// How much may be lost; [`judge`] says what that is held against.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bound {
    /// Largest rise of the perplexity, as a fraction. Where the file has an interval, its upper end must keep to it.
    pub ppl_rise: f64,
    /// Largest fall of a score (needle, MMLU, MATH), as a fraction of all items.
    pub score_fall: f64,
    /// Largest fall of the tokens decoded a second, as a fraction of those of the unquantized cache at the same context and batch; `None`: any.
    pub slowdown: Option<f64>,
}

impl Default for Bound {
    fn default() -> Self {
        Bound { ppl_rise: 0.01, score_fall: 0.02, slowdown: None }
    }
}

impl Bound {
    /// The bound in words.
    pub fn words(&self) -> String {
        let slowdown = self.slowdown.map(|most| format!(", and decoding is at most {} % slower", percent(most)));
        format!(
            "perplexity rises by at most {} % (the upper end of its 95 % interval where there is one), and no score falls by more than \
             {} points as far as that is told from chance{}",
            percent(self.ppl_rise),
            percent(self.score_fall),
            slowdown.unwrap_or_default()
        )
    }
}

/// A share in per cent, as somebody gave it.
fn percent(share: f64) -> String {
    number::shown(number::round(share * 100.0, 6), Digits::Exact)
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

/// Holds `quality` against `bound`, for which there are two rules.
///
/// **Perplexity** comes from thousands of tokens, so that a bound on it can be shown to hold: the upper end of its interval must keep to it,
/// and what is not shown breaks it.
///
/// **A score** comes from as many items as somebody had time for, and of few items a fall can be neither shown nor ruled out: 5 needles
/// move by 20 points at a time, and even if every item comes out as before, it takes 96 for the interval to exclude a fall of 2 points
/// ([`items_to_exclude`]). Held to the rule of perplexity no cache would pass, held to the bare difference one needle would decide. So a
/// score breaks the bound where it fell by more than that and its paired 95 % interval ([`paired_rates`](crate::base::stats::paired_rates))
/// excludes 0, and [`doubts`] says what it leaves open. Where a file does not tell pairs, the fall counts as it is.
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
        if exceeds(delta, bound) && told_from_chance(score) {
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

/// Whether a change of a score is a fall past the bound; sums of binary fractions may miss it by a rounding error.
fn exceeds(delta: f64, bound: &Bound) -> bool {
    delta < -bound.score_fall - 1e-12
}

/// Whether the interval of a fall, where there is one, excludes 0.
fn told_from_chance(score: &Score) -> bool {
    score.delta_interval.is_none_or(|(_, high)| high < 0.0)
}

/// What the scores of `run`, which keep to `bound`, leave open: those whose interval reaches past it, and how many items of such a score could
/// rule that out where more than were tried are needed even if none changes.
pub(super) fn doubts(run: &Run, bound: &Bound) -> Vec<String> {
    let doubtful = scores(&run.quality).filter(|(_, score)| !score.of_nothing()).filter_map(|(name, score)| {
        let (delta, (low, _)) = score.delta.zip(score.delta_interval)?;
        exceeds(low, bound).then(|| {
            let items = match name {
                "needle" => number::counted(score.trials, "needle"),
                "MMLU" => number::counted(score.trials, "MMLU question"),
                _ => number::counted(score.trials, "MATH problem"),
            };
            let points = percent(bound.score_fall);
            let doubt = match exceeds(delta, bound) {
                true => format!(
                    "{items} cannot tell the fall of {} points from chance",
                    number::shown(-delta * 100.0, Digits::Fixed(1))
                ),
                false => format!("{items} cannot show that no more than {points} points are lost"),
            };
            let more = items_to_exclude(bound.score_fall).filter(|needed| *needed > score.trials);
            let more = more.and_then(|needed| asking_for(run, name, needed));
            format!("{doubt}{}.", more.map_or_else(String::new, |more| format!("; {more} could")))
        })
    });
    doubtful.collect()
}

/// The flag that asks for at least `items` items of the score called `name`, where those of `run` were tried.
fn asking_for(run: &Run, name: &str, items: usize) -> Option<String> {
    match name {
        "needle" => {
            let trials = run.result.benchmarks.needle_in_haystack_trials.as_ref()?;
            let places: BTreeSet<_> = trials.iter().map(|t| (t.context_length, t.depth_percent.to_bits())).collect();
            (!places.is_empty()).then(|| format!("--needle-trials {}", items.div_ceil(places.len())))
        }
        "MMLU" => Some(format!("--mmlu-questions {items}")),
        _ => Some(format!("--math-problems {items}")),
    }
}

/// How `row` decodes, in words, where it is slower than `bound` allows against `full`, the unquantized cache at the same context and batch, and
/// that is told from noise (the interval of the medians' ratio; without three repeats of each it counts as it is). `None` too where it cannot be told:
/// see [`speeds`].
pub(super) fn too_slow(row: &Row<'_>, full: &Row<'_>, bound: &Bound) -> Option<String> {
    let (new, old) = speeds(row, full)?;
    let runs = |row: &Row<'_>| row.measured.and_then(|m| m.decode_runs_ms.as_ref()).map(|runs| runs.raw.clone());
    let change = runs(full).zip(runs(row)).and_then(|(full, row)| ratio_of_medians(&full, &row));
    let told = change.and_then(|change| change.interval).is_none_or(|(low, _)| low > 0.0);
    (1.0 - new / old > bound.slowdown? + 1e-12 && told).then(|| {
        let [a, b] = [new, old].map(|v| number::significant(v, 3));
        format!("decodes at {a} instead of {b} tokens/s ({})", number::shown(new / old - 1.0, Digits::SignedPercent(0)))
    })
}

/// Tokens a second of both, where one can be held against the other.
pub(super) fn speeds(row: &Row<'_>, full: &Row<'_>) -> Option<(f64, f64)> {
    let rates = row.decode_rate().zip(full.decode_rate()).filter(|(_, old)| *old > 0.0);
    rates.filter(|_| within_memory(&(row, full)))
}

/// Whether neither spilled to the host's memory: times and energy of those that did are the host link's.
pub(super) fn within_memory((row, full): &(&Row<'_>, &Row<'_>)) -> bool {
    !row.spilled() && !full.spilled()
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
    use crate::base::stats::{Estimate, paired_rates};

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

    /// Of `trials` of which the unquantized cache had every one, those that were lost.
    fn lost(lost: usize, trials: usize) -> Score {
        let (delta, interval) = paired_rates(lost, 0, trials).unwrap();
        let successes = trials - lost;
        let rate = successes as f64 / trials as f64;
        Score { successes, trials, rate, delta: Some(delta), delta_interval: Some(interval), ..Score::default() }
    }

    #[test]
    fn a_fall_that_chance_explains_does_not_break_the_bound() {
        let judged = |lost_of: (usize, usize)| {
            let needle = Some(lost(lost_of.0, lost_of.1));
            judge(&Quality { needle, ..quality(0.0, None) }, &Bound::default())
        };
        // By hand, of Agresti and Min's interval: (−3 + 1.96 √(4 − 9/7)) / 7 = 0.03, (−4 + 1.96 √(5 − 16/7)) / 7 = −0.11.
        assert!(matches!(judged((3, 5)), Verdict::Keeps(_)));
        assert!(matches!(judged((4, 5)), Verdict::Breaks(_)));
        // (−6 + 1.96 √(7 − 36/202)) / 202 = −0.004.
        assert!(matches!(judged((6, 200)), Verdict::Breaks(_)), "a fall of 3 points, told from chance");
        assert!(matches!(judged((6, 1000)), Verdict::Keeps(_)), "told from chance, and within the bound");
    }

    #[test]
    fn what_a_score_leaves_open_is_told_with_how_many_items_could_tell() {
        use crate::report::study::Study;
        use crate::schema::{NeedleTrial, bare_result};
        let doubts = |needle: Score, places: usize, bound: Bound| {
            let mut result = bare_result();
            result.kv_quant.enabled = true;
            let trial = |context_length| NeedleTrial { context_length, ..Default::default() };
            // Two trials at each place are of one place.
            result.benchmarks.needle_in_haystack_trials = Some((0..places).chain(0..places).map(trial).collect());
            let mut run = Study::of(vec![("a.json".into(), result)]).runs.remove(0);
            run.quality = Quality { needle: Some(needle), ..Quality::default() };
            super::doubts(&run, &bound).join(" ")
        };
        let usual = Bound::default();
        // 1.96 / 98 is 2 points: 96 needles, which at five places are 20 each.
        let five = "5 needles cannot show that no more than 2 points are lost; --needle-trials 20 could.";
        assert_eq!(doubts(lost(0, 5), 5, usual), five);
        let three = "5 needles cannot tell the fall of 60.0 points from chance; --needle-trials 20 could.";
        assert_eq!(doubts(lost(3, 5), 5, usual), three);
        assert_eq!(doubts(lost(0, 96), 5, usual), "");
        // Of more than 96 how many it takes depends on how many change.
        assert_eq!(doubts(lost(1, 100), 5, usual), "100 needles cannot show that no more than 2 points are lost.");
        let none = Bound { score_fall: 0.0, ..usual };
        assert_eq!(doubts(lost(0, 5), 5, none), "5 needles cannot show that no more than 0 points are lost.");
        assert_eq!(doubts(Score { delta_interval: None, ..lost(0, 5) }, 5, usual), "");
    }
}
