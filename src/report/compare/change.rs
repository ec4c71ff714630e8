//! A change from one side to the other, and how sure it is.

use std::collections::BTreeMap;

use crate::base::stats::{self, Estimate};
use crate::report::quality::{Quality, Score, needle_pairs};
use crate::report::run::Run;
use crate::schema::{Accuracy, Benchmarks, QuestionItem};

/// A change; none where a side has no number; why not, where the two sides turn out to be of different things.
pub type Outcome = Result<Option<Delta>, String>;

/// A change.
#[derive(Debug, Clone, PartialEq)]
pub struct Delta {
    /// Before.
    pub base: f64,
    /// After.
    pub new: f64,
    /// `new / base − 1`, or `new − base` for a metric in points.
    pub change: f64,
    /// Interval of `change` at 95 %.
    pub interval: Option<(f64, f64)>,
    /// Why two rates were not compared item by item, where they were not.
    pub unpaired: Option<&'static str>,
    /// What it amounts to.
    pub verdict: Verdict,
}

/// Remark on rates that were not compared item by item.
const UNPAIRED: &str = "rates that were not compared item by item, since a file does not hold what became of each";

/// What a change amounts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Better, and the interval says so (or the metric is exact).
    Better,
    /// Worse, and the interval says so (or the metric is exact).
    Worse,
    /// The interval includes no change, or nothing changed.
    Same,
    /// Better, but how much by chance is not known.
    MaybeBetter,
    /// Worse, but how much by chance is not known.
    MaybeWorse,
}

impl Verdict {
    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Verdict::Better => "better",
            Verdict::Worse => "worse",
            Verdict::Same => "no clear change",
            Verdict::MaybeBetter => "better? (spread unknown)",
            Verdict::MaybeWorse => "worse? (spread unknown)",
        }
    }
}

fn verdict(change: f64, interval: Option<(f64, f64)>, less_is_better: bool) -> Verdict {
    let better = (change < 0.0) == less_is_better;
    match interval {
        _ if change == 0.0 => Verdict::Same,
        Some((low, high)) if low <= 0.0 && high >= 0.0 => Verdict::Same,
        Some(_) if better => Verdict::Better,
        Some(_) => Verdict::Worse,
        None if better => Verdict::MaybeBetter,
        None => Verdict::MaybeWorse,
    }
}

/// The relative change from `base` to `new`, and never that of another statistic than the two shown: `interval` must be of their
/// ratio. `None` without a positive base.
pub(super) fn relative(base: f64, new: f64, interval: Option<(f64, f64)>, less_is_better: bool) -> Option<Delta> {
    if base <= 0.0 || !base.is_finite() || !new.is_finite() {
        return None;
    }
    let change = new / base - 1.0;
    Some(Delta { base, new, change, interval, unpaired: None, verdict: verdict(change, interval, less_is_better) })
}

/// A relative change of numbers that have no spread.
pub(super) fn exact(base: f64, new: f64, less_is_better: bool) -> Option<Delta> {
    let change = new / base - 1.0;
    relative(base, new, Some((change, change)), less_is_better)
}

/// Change of the perplexity, paired as far as the files allow: an unquantized base against the reference inside the new file, token by
/// token; other runs section by section of the text that both read; without the sections, as older files are, two quantized runs through
/// their common reference (taken as independent, which is on the safe side); else unpaired.
pub(super) fn perplexity(before: &Run, after: &Run) -> Option<Delta> {
    let (a, b) = (before.result.own_perplexity()?, after.result.own_perplexity()?);
    let (qa, qb) = (&before.quality, &after.quality);
    let close = |x: Option<f64>, y: f64| x.is_some_and(|x| (x / y - 1.0).abs() < 1e-6);
    let by_token = match (before.quantized(), after.quantized()) {
        (false, true) if close(qb.ppl_reference, a.value) => qb.ln_ratio_estimate,
        (true, false) if close(qa.ppl_reference, b.value) => {
            qa.ln_ratio_estimate.map(|log| Estimate { value: -log.value, ..log })
        }
        _ => None,
    };
    let value = (b.value / a.value).ln();
    let by_section = || Some(Estimate { value, ..stats::section_difference(&a.by_section, &b.by_section, a.tokens)? });
    let through_reference = || {
        close(qa.ppl_reference, qb.ppl_reference?).then_some(())?;
        Some(qb.ln_ratio_estimate?.less(qa.ln_ratio_estimate?))
    };
    let unpaired = || Some(b.log_estimate()?.less(a.log_estimate()?));
    let change = by_token.or_else(by_section).or_else(through_reference).or_else(unpaired);
    relative(a.value, b.value, change.and_then(stats::change_of_log), true)
}

/// Change of the mean divergence, section by section of the text that both read. Without the sections, as older files are, nothing is
/// known of how sure it is: the two are not independent.
pub(super) fn divergence(a: &Run, b: &Run) -> Option<Delta> {
    let (before, after) = (a.quality.kld.as_ref()?, b.quality.kld.as_ref()?);
    let log = stats::section_log_ratio(&before.by_section, &after.by_section, before.tokens);
    let value = (after.mean / before.mean).ln();
    relative(before.mean, after.mean, log.and_then(|log| stats::change_of_log(Estimate { value, ..log })), true)
}

/// Change of the share of needles found, trial by trial.
pub(super) fn needle(a: &Run, b: &Run) -> Outcome {
    let trials = |run: &Run| run.result.benchmarks.needle_in_haystack_trials.clone().unwrap_or_default();
    let (before, after) = (trials(a), trials(b));
    let pairs = needle_pairs(&after, &before);
    let known = (!before.is_empty() && !after.is_empty()).then_some((before.len().max(after.len()), pairs));
    score([a, b], |q| q.needle.as_ref(), "needles", known)
}

/// Change of an accuracy, question by question.
pub(super) fn questions(
    sides: [&Run; 2],
    block: fn(&Benchmarks) -> Option<&Accuracy>,
    of: fn(&Quality) -> Option<&Score>,
) -> Outcome {
    let items = |run: &Run| block(&run.result.benchmarks).map_or(Vec::new(), |block| block.items.clone());
    let [before, after] = sides.map(items);
    let outcomes: BTreeMap<_, bool> =
        before.iter().map(|item| ((&item.id, &item.expected, item.shots), item.outcome.correct)).collect();
    let pair =
        |item: &QuestionItem| Some((*outcomes.get(&(&item.id, &item.expected, item.shots))?, item.outcome.correct));
    let pairs: Vec<(bool, bool)> = after.iter().filter_map(pair).collect();
    let known = (!before.is_empty() && !after.is_empty()).then_some((before.len().max(after.len()), pairs));
    score(sides, of, "questions", known)
}

/// Change of a rate from the pairs (before, after) of the `items` that each side had; without these, as of independent rates.
fn score(
    sides: [&Run; 2],
    of: fn(&Quality) -> Option<&Score>,
    what: &str,
    known: Option<(usize, Vec<(bool, bool)>)>,
) -> Outcome {
    let [Some(a), Some(b)] = sides.map(|run| of(&run.quality)) else { return Ok(None) };
    if a.trials == 0 || b.trials == 0 {
        return Ok(None);
    }
    let paired = match known {
        Some((items, pairs)) if pairs.len() < items => {
            return Err(format!("other {what}: {} of {items} on both sides", pairs.len()));
        }
        Some((items, pairs)) => {
            let count = |before, after| pairs.iter().filter(|p| **p == (before, after)).count();
            stats::paired_rates(count(true, false), count(false, true), items)
        }
        None => None,
    };
    let unpaired = paired.is_none().then_some(UNPAIRED);
    let (change, interval) =
        paired.unwrap_or_else(|| stats::independent_rates((a.rate, a.interval), (b.rate, b.interval)));
    let verdict = verdict(change, Some(interval), false);
    Ok(Some(Delta { base: a.rate, new: b.rate, change, interval: Some(interval), unpaired, verdict }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_needs_an_interval_that_excludes_no_change() {
        assert_eq!(verdict(-0.1, Some((-0.2, -0.05)), true), Verdict::Better);
        assert_eq!(verdict(-0.1, Some((-0.2, -0.05)), false), Verdict::Worse);
        assert_eq!(verdict(-0.1, Some((-0.2, 0.05)), true), Verdict::Same);
        assert_eq!(verdict(0.1, None, true), Verdict::MaybeWorse);
        assert_eq!(verdict(0.0, None, true), Verdict::Same);
    }
}
