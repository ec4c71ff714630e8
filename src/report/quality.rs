//! What a run says about quality, held against the unquantized cache.

use std::collections::BTreeMap;

use super::scoring;
use crate::base::stats::{Estimate, change_of_log, paired_rates, wilson};
use crate::schema::{Accuracy, Kld, Needle, NeedleTrial, Perplexity, RunResult};

/// A rate of successes, and what became of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Score {
    /// Successes.
    pub successes: usize,
    /// Trials.
    pub trials: usize,
    /// `successes / trials`.
    pub rate: f64,
    /// Interval of the rate at 95 %.
    pub interval: (f64, f64),
    /// Rate less the reference's on the same items; none for the unquantized cache.
    pub delta: Option<f64>,
    /// Paired interval of `delta` at 95 %, where the pairs are known.
    pub delta_interval: Option<(f64, f64)>,
    /// Trials that were to be made, where the run was stopped before the last.
    pub stopped_before: Option<usize>,
}

impl Score {
    /// Whether the unquantized cache had no success, so that quantization could not lower the rate.
    pub fn of_nothing(&self) -> bool {
        self.trials > 0 && self.rate - self.delta.unwrap_or(0.0) <= 0.0
    }
}

/// Quality of one run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Quality {
    /// Perplexity of the unquantized cache.
    pub ppl_reference: Option<f64>,
    /// Perplexity through the quantized cache; `None` for an unquantized run.
    pub ppl_quantized: Option<f64>,
    /// Standard error of the perplexity of this run's own cache.
    pub ppl_error: Option<f64>,
    /// ln(quantized / reference).
    pub ln_ratio: Option<f64>,
    /// The same with its standard error, from paired differences, where the file has one.
    pub ln_ratio_estimate: Option<Estimate>,
    /// Divergence of distributions.
    pub kld: Option<Kld>,
    /// Needle in a haystack.
    pub needle: Option<Score>,
    /// MMLU.
    pub mmlu: Option<Score>,
    /// MATH.
    pub math: Option<Score>,
    /// Least share of key reads that came from codes, over the blocks that record it.
    pub quantized_read_fraction: Option<f64>,
}

impl Quality {
    /// Quality of `result`; what it does not record about its reference is taken from `reference`, the unquantized run of the
    /// same model and backend, where the tokens scored are the same.
    pub fn of(result: &RunResult, reference: Option<&RunResult>) -> Self {
        let blocks = &result.benchmarks;
        let other = reference.map(|r| &r.benchmarks);
        let before = other.filter(|_| result.kv_quant.enabled);
        let quantized = blocks.perplexity_quantized.as_ref().filter(|_| result.kv_quant.enabled);
        let recorded = quantized.and_then(|q| q.reference_value).or(blocks.perplexity.as_ref().map(|p| p.value));
        let alike = reference.is_some_and(|r| scoring::ppl(r) == scoring::ppl(result));
        let elsewhere = other.and_then(|b| b.perplexity.as_ref()).filter(|_| alike);
        let ppl_reference = recorded.or(elsewhere.map(|p| p.value));
        let ppl_quantized = quantized.map(|q| q.value);
        let computed =
            ppl_quantized.zip(ppl_reference).filter(|(q, r)| *q > 0.0 && *r > 0.0).map(|(q, r)| (q / r).ln());
        let fractions = [
            quantized.and_then(|q| q.quantized_read_fraction),
            blocks.needle_in_haystack.as_ref().and_then(|n| n.quantized_read_fraction),
            blocks.mmlu.as_ref().and_then(|a| a.quantized_read_fraction),
            blocks.math.as_ref().and_then(|a| a.quantized_read_fraction),
        ];
        let empty = Vec::new();
        let trials = blocks.needle_in_haystack_trials.as_ref().unwrap_or(&empty);
        let same_needles = reference.is_some_and(|r| scoring::needle(r) == scoring::needle(result));
        let other_trials = before.filter(|_| same_needles).and_then(|b| b.needle_in_haystack_trials.as_ref());
        let other_trials = other_trials.unwrap_or(&empty);
        // A cache is not held against itself.
        let of_quantized = |score: Score| match result.kv_quant.enabled {
            true => score,
            false => Score { delta: None, delta_interval: None, ..score },
        };
        Quality {
            ppl_reference,
            ppl_quantized,
            ppl_error: result.own_perplexity().and_then(|p| p.standard_error),
            ln_ratio: quantized.and_then(|q| q.ln_ratio).or(computed),
            ln_ratio_estimate: quantized.and_then(Perplexity::ln_ratio_estimate),
            kld: result.divergence().cloned(),
            needle: blocks.needle_in_haystack.as_ref().map(|n| of_quantized(needle(n, trials, other_trials))),
            mmlu: blocks.mmlu.as_ref().map(|a| of_quantized(accuracy(a, before.and_then(|b| b.mmlu.as_ref())))),
            math: blocks.math.as_ref().map(|a| of_quantized(accuracy(a, before.and_then(|b| b.math.as_ref())))),
            quantized_read_fraction: fractions.into_iter().flatten().reduce(f64::min),
        }
    }

    /// Whether anything was measured.
    pub fn any(&self) -> bool {
        self.ppl_reference.is_some()
            || self.needle.is_some()
            || self.mmlu.is_some()
            || self.math.is_some()
            || self.kld.is_some()
    }

    /// Perplexity of this run's own cache.
    pub fn ppl(&self) -> Option<f64> {
        self.ppl_quantized.or(self.ppl_reference)
    }

    /// Perplexity less the reference's; `None` for an unquantized run.
    pub fn delta_ppl(&self) -> Option<f64> {
        Some(self.ppl_quantized? - self.ppl_reference?)
    }

    /// 95 % interval of [`Quality::delta_ppl`], from the paired error of the log-ratio.
    pub fn delta_ppl_interval(&self) -> Option<(f64, f64)> {
        let (low, high) = self.relative_interval()?;
        let reference = self.ppl_reference?;
        Some((low * reference, high * reference))
    }

    /// Relative rise of the perplexity (0.01 = 1 %).
    pub fn relative_rise(&self) -> Option<f64> {
        self.ln_ratio.map(f64::exp_m1)
    }

    /// 95 % interval of [`Quality::relative_rise`].
    pub fn relative_interval(&self) -> Option<(f64, f64)> {
        change_of_log(self.ln_ratio_estimate?)
    }
}

fn score(successes: usize, trials: usize) -> Score {
    let rate = if trials == 0 { 0.0 } else { successes as f64 / trials as f64 };
    Score { successes, trials, rate, interval: wilson(successes, trials), ..Score::default() }
}

fn needle(block: &Needle, trials: &[NeedleTrial], reference: &[NeedleTrial]) -> Score {
    let mut score = score(block.successes, block.total_trials);
    let recorded = block.paired.lost.zip(block.paired.gained).filter(|_| block.reference_successes.is_some());
    let pairs = recorded.map(|(lost, gained)| (lost, gained, block.total_trials)).or_else(|| {
        let pairs = needle_pairs(trials, reference);
        (!pairs.is_empty()).then(|| {
            let count = |before: bool, after: bool| pairs.iter().filter(|p| **p == (before, after)).count();
            (count(true, false), count(false, true), pairs.len())
        })
    });
    if let Some((difference, interval)) = pairs.and_then(|(lost, gained, n)| paired_rates(lost, gained, n)) {
        (score.delta, score.delta_interval) = (Some(difference), Some(interval));
    }
    score
}

/// Outcomes (before, after) of the trials that both sides made: the same context, depth, number and repetition.
pub fn needle_pairs(trials: &[NeedleTrial], reference: &[NeedleTrial]) -> Vec<(bool, bool)> {
    let key = |t: &NeedleTrial| (t.context_length, t.depth_percent.to_bits(), t.needle.clone(), t.trial.unwrap_or(0));
    let before: BTreeMap<_, bool> = reference.iter().map(|t| (key(t), t.success)).collect();
    let own = |t: &NeedleTrial| t.reference_success.filter(|_| reference.is_empty());
    trials.iter().filter_map(|t| Some((own(t).or_else(|| before.get(&key(t)).copied())?, t.success))).collect()
}

fn accuracy(block: &Accuracy, reference: Option<&Accuracy>) -> Score {
    let mut score = score(block.correct, block.questions);
    score.stopped_before = block.stopped_before();
    let pairs = block
        .paired
        .lost
        .zip(block.paired.gained)
        .and_then(|(lost, gained)| paired_rates(lost, gained, block.questions));
    let unpaired =
        reference.filter(|r| scoring::questions(r) == scoring::questions(block)).map(|r| block.accuracy - r.accuracy);
    score.delta = pairs.map(|(difference, _)| difference).or(block.paired.delta).or(unpaired);
    score.delta_interval = pairs.map(|(_, interval)| interval);
    score
}
