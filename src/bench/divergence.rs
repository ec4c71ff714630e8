//! How far a quantized cache's predictions lie from the unquantized cache's (`kld`).
//!
//! Both caches are alive over one set of weights and read the text in step. The scores of both are kept, so that `ppl` after
//! `kld` costs nothing.

use super::data::Files;
use super::feed::require_quantized_reads;
use super::pass::{self, PairScores, Scores};
use super::prediction::Pair;
use super::windows::Plan;
use super::{Benchmark, Block, Context, Readings, Request, Settings, perplexity, text};
use crate::Result;
use crate::base::stats::{self, Estimate, percentile_interval, root_mean_square_interval, share_interval};
use crate::cache::KeyReads;
use crate::quant::QuantSpec;
use crate::schema::{Benchmarks, Kld, KldBin, KldIntervals};

/// Bins by position in the window.
const BINS: usize = 8;

/// `--benchmarks kld`.
pub struct DivergenceBenchmark;

impl Benchmark for DivergenceBenchmark {
    fn name(&self) -> &'static str {
        "kld"
    }

    fn version(&self) -> u32 {
        1
    }

    fn prepare(&self, request: &Request<'_>, readings: &mut Readings) -> Result<Option<String>> {
        let Request { subject, settings, quant } = *request;
        Ok(Plan::of(subject, settings, quant, readings)?.scored_without_codes(quant))
    }

    fn local_files(&self, settings: &Settings, model: &str) -> Vec<Files> {
        text::local_files(text::default_name(settings, model), settings)
    }

    fn run(&self, context: &mut Context<'_>, keep: &mut dyn FnMut(Block) -> Result<()>) -> Result<()> {
        let plan = Plan::of(context.subject, context.settings, context.spec, context.readings)?;
        let scores = match context.spec.is_quantized() {
            true => pass::pair(context, &plan, context.spec)?,
            false => from_itself(perplexity::scores(context, &plan, context.spec)?, &plan),
        };
        require_quantized_reads(context, "kld", scores.reads)?;
        remember(context, &plan, &scores);
        let mut block = summarize(&scores, &plan);
        block.version = Some(self.version());
        let blocks = Benchmarks { kld: Some(block), ..Default::default() };
        keep(Block::Score { name: self.name(), blocks: Box::new(blocks), complete: true })
    }
}

/// The unquantized cache beside itself, from which it does not diverge: one reading tells what two would.
fn from_itself(scores: Scores, plan: &Plan) -> PairScores {
    let pair = |&nll: &f32| Pair { kl: 0.0, same_top: true, reference_nll: nll, nll };
    PairScores {
        pairs: scores.nll.iter().map(pair).collect(),
        positions: plan.windows.iter().flat_map(|window| plan.burn_in..window.len()).collect(),
        reads: scores.reads,
        elapsed_s: scores.elapsed_s,
    }
}

/// Leaves both caches' scores for `ppl`. The first reference stays, so that all quantizations are compared with the same.
fn remember(context: &mut Context<'_>, plan: &Plan, scores: &PairScores) {
    let half = scores.elapsed_s / 2.0;
    let [reference_key, key] = [&QuantSpec::none(), context.spec].map(|spec| perplexity::key(context, plan, spec));
    let known = &mut context.references.scores;
    let reference = scores.pairs.iter().map(|p| p.reference_nll).collect();
    known.entry(reference_key).or_insert(Scores { nll: reference, reads: KeyReads::default(), elapsed_s: half });
    let nll = scores.pairs.iter().map(|p| p.nll).collect();
    known.entry(key).or_insert(Scores { nll, reads: scores.reads, elapsed_s: half });
}

fn summarize(scores: &PairScores, plan: &Plan) -> Kld {
    let pairs = &scores.pairs;
    let kl = divergences(pairs);
    let same = pairs.iter().filter(|p| p.same_top).count();
    let at = |p: f64| stats::percentile(&kl, p);
    let estimate = Estimate::of(&kl);
    Kld {
        tokens: pairs.len(),
        mean: stats::mean(&kl).unwrap_or(f64::NAN),
        standard_error: estimate.map(|mean| mean.error),
        blocks: estimate.map(|mean| mean.blocks),
        median: at(50.0),
        p90: at(90.0),
        p99: at(99.0),
        p999: at(99.9),
        max: largest(&kl),
        rms_delta_p: root_mean_square(pairs),
        top1_agreement: Some(same as f64 / pairs.len().max(1) as f64),
        intervals: intervals(&kl, pairs),
        by_position: bins(scores, plan),
        by_section: stats::section_means(&kl),
        quantized_read_fraction: Some(scores.reads.share()),
        protocol: Some(plan.protocol.name().into()),
        window: Some(plan.window),
        burn_in: Some(plan.burn_in),
        data: Some(plan.source.clone()),
        elapsed_s: Some(scores.elapsed_s),
        ..Default::default()
    }
}

/// Intervals over `pairs` and their divergences `kl`, in the order of the text.
fn intervals(kl: &[f64], pairs: &[Pair]) -> Option<KldIntervals> {
    let squares: Vec<f64> = pairs.iter().map(squared_delta).collect();
    let same: Vec<bool> = pairs.iter().map(|pair| pair.same_top).collect();
    let mean = Estimate::of(kl)?.interval();
    Some(KldIntervals {
        mean: (mean.0.max(0.0), mean.1),
        median: percentile_interval(kl, 50.0)?,
        p90: percentile_interval(kl, 90.0)?,
        p99: percentile_interval(kl, 99.0)?,
        rms_delta_p: root_mean_square_interval(&squares)?,
        top1_agreement: share_interval(&same)?,
    })
}

/// Bins of equal width over the scored part of a window; empty ones are left out.
fn bins(scores: &PairScores, plan: &Plan) -> Vec<KldBin> {
    let scored = plan.window - plan.burn_in;
    let edge = |i: usize| plan.burn_in + scored * i / BINS;
    let mut bins: Vec<Vec<Pair>> = vec![Vec::new(); BINS];
    for (pair, position) in scores.pairs.iter().zip(&scores.positions) {
        let bin = (0..BINS).rfind(|&i| edge(i) <= *position).unwrap_or(0);
        bins[bin].push(*pair);
    }
    let bins = bins.into_iter().enumerate().filter(|(_, pairs)| !pairs.is_empty());
    bins.map(|(i, pairs)| {
        let kl = divergences(&pairs);
        let at = |p: f64| stats::percentile(&kl, p);
        KldBin {
            from: edge(i),
            to: edge(i + 1),
            tokens: pairs.len(),
            mean: stats::mean(&kl).unwrap_or(f64::NAN),
            standard_error: Estimate::of(&kl).map(|mean| mean.error),
            median: at(50.0),
            p90: at(90.0),
            p99: at(99.0),
            p999: at(99.9),
            max: largest(&kl),
            rms_delta_p: root_mean_square(&pairs),
            top1_agreement: Some(pairs.iter().filter(|p| p.same_top).count() as f64 / pairs.len() as f64),
        }
    })
    .collect()
}

fn divergences(pairs: &[Pair]) -> Vec<f64> {
    pairs.iter().map(|p| f64::from(p.kl)).collect()
}

fn largest(kl: &[f64]) -> Option<f64> {
    kl.iter().copied().reduce(f64::max)
}

fn root_mean_square(pairs: &[Pair]) -> Option<f64> {
    let squares: Vec<f64> = pairs.iter().map(squared_delta).collect();
    stats::mean(&squares).map(f64::sqrt)
}

/// Square of the change of the true token's probability.
fn squared_delta(pair: &Pair) -> f64 {
    (f64::from(-pair.nll).exp() - f64::from(-pair.reference_nll).exp()).powi(2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::settings::Protocol;

    fn plan(window: usize, burn_in: usize) -> Plan {
        Plan {
            protocol: Protocol::Streaming,
            window,
            burn_in,
            windows: Vec::new(),
            portions: Vec::new(),
            scored: 0,
            key: String::new(),
            source: Default::default(),
        }
    }

    fn pair(kl: f32, same_top: bool) -> Pair {
        Pair { kl, same_top, reference_nll: 2f32.ln(), nll: 4f32.ln() }
    }

    #[test]
    fn every_scored_token_falls_into_the_bin_of_its_position() {
        let scores = PairScores {
            pairs: (0..90).map(|i| pair(i as f32, true)).collect(),
            positions: (10..100).collect(),
            ..Default::default()
        };
        let bins = bins(&scores, &plan(100, 10));
        assert_eq!(bins.len(), BINS);
        assert_eq!((bins[0].from, bins[BINS - 1].to), (10, 100));
        assert_eq!(bins.iter().map(|b| b.tokens).sum::<usize>(), 90);
        assert!(bins.iter().all(|b| b.tokens == b.to - b.from));
        assert!(bins.windows(2).all(|b| b[0].to == b[1].from && b[0].mean < b[1].mean));
    }

    #[test]
    fn the_spread_of_each_bin_is_that_of_its_own_tokens() {
        // 2000 tokens at place 10, of divergences 0 to 1999, and one of 5000 at the last place.
        let scores = PairScores {
            pairs: (0..2000).chain([5000]).map(|i| pair(i as f32, true)).collect(),
            positions: [10; 2000].into_iter().chain([99]).collect(),
            ..Default::default()
        };
        let bins = bins(&scores, &plan(100, 10));
        let spread = |bin: &KldBin| [bin.median, bin.p90, bin.p99, bin.p999, bin.max].map(Option::unwrap);
        for (value, expected) in spread(&bins[0]).into_iter().zip([999.5, 1799.1, 1979.01, 1997.001, 1999.0]) {
            assert!((value - expected).abs() < 1e-6, "{value} for {expected}");
        }
        assert_eq!(spread(&bins[1]), [5000.0; 5]);
    }

    #[test]
    fn one_token_has_a_mean_and_no_spread() {
        let scores = PairScores { pairs: vec![pair(0.1, true)], positions: vec![10], ..Default::default() };
        let block = summarize(&scores, &plan(100, 10));
        assert!((block.mean - 0.1).abs() < 1e-6 && block.rms_delta_p.is_some());
        assert_eq!((block.standard_error, block.intervals), (None, None));
        assert_eq!(block.by_position[0].standard_error, None);
    }

    #[test]
    fn summary_of_known_divergences() {
        let scores = PairScores {
            pairs: vec![pair(0.1, true), pair(0.2, true), pair(0.3, true), pair(0.4, false)],
            positions: vec![10, 11, 12, 13],
            ..Default::default()
        };
        let block = summarize(&scores, &plan(100, 10));
        assert!((block.mean - 0.25).abs() < 1e-6 && (block.max.unwrap() - 0.4).abs() < 1e-6);
        assert_eq!(block.top1_agreement, Some(0.75));
        // ½ became ¼ everywhere.
        assert!((block.rms_delta_p.unwrap() - 0.25).abs() < 1e-6);
        let intervals = block.intervals.unwrap();
        assert!(intervals.mean.0 < 0.25 && intervals.mean.1 > 0.25);
        assert_eq!(block.by_position.len(), 1);
        // 0.1 ± 3.18·0.1: a divergence is not negative.
        let pairs = vec![pair(0.0, true), pair(0.0, true), pair(0.0, true), pair(0.4, false)];
        let intervals = summarize(&PairScores { pairs, ..scores }, &plan(100, 10)).intervals.unwrap();
        assert!(intervals.mean.0 == 0.0 && (intervals.mean.1 - 0.4182).abs() < 1e-4, "{intervals:?}");
    }
}
