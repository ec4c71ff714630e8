//! Perplexity of a text, read through the cache.
//!
//! The reference and the quantized cache see identical tokens and scored positions, so that their difference is paired.

use super::data::Files;
use super::feed::{CHUNK, require_quantized_reads};
use super::pass::{self, Scores};
use super::settings::Protocol;
use super::windows::Plan;
use super::{Benchmark, Block, Context, Readings, Request, Settings, text};
use crate::Result;
use crate::base::stats::{self, Estimate};
use crate::quant::QuantSpec;
use crate::schema::{Benchmarks, Perplexity};

/// `--benchmarks ppl`.
pub struct PerplexityBenchmark;

impl Benchmark for PerplexityBenchmark {
    fn name(&self) -> &'static str {
        "ppl"
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
        let reference_scores = scores(context, &plan, &QuantSpec::none())?;
        let mut reference = summarize(&reference_scores, &plan);
        reference.version = Some(self.version());
        let mut keep = |reference, perplexity_quantized| {
            let blocks = Benchmarks { perplexity: Some(reference), perplexity_quantized, ..Default::default() };
            keep(Block::Score { name: self.name(), blocks: Box::new(blocks), complete: true })
        };
        if !context.spec.is_quantized() {
            return keep(reference, None);
        }
        let tested = scores(context, &plan, context.spec)?;
        require_quantized_reads(context, "ppl", tested.reads)?;
        let mut quantized = summarize(&tested, &plan);
        quantized.version = Some(self.version());
        quantized.reference_value = Some(reference.value);
        quantized.delta = Some(quantized.value - reference.value);
        quantized.ln_ratio = quantized.nll.zip(reference.nll).map(|(after, before)| after - before);
        let difference = stats::mean_difference(&as_f64(&reference_scores.nll), &as_f64(&tested.nll));
        quantized.ln_ratio_standard_error = difference.map(|difference| difference.error);
        keep(reference, Some(quantized))
    }
}

/// The scores of a cache of `spec`, measured now unless a benchmark before has done so (`kld` leaves those of both caches).
pub(super) fn scores(context: &mut Context<'_>, plan: &Plan, spec: &QuantSpec) -> Result<Scores> {
    let key = key(context, plan, spec);
    if let Some(known) = context.references.scores.get(&key) {
        return Ok(known.clone());
    }
    let measured = pass::single(context, plan, spec)?;
    context.references.scores.insert(key, measured.clone());
    Ok(measured)
}

/// Under what name the scores of a cache are kept.
pub(super) fn key(context: &Context<'_>, plan: &Plan, spec: &QuantSpec) -> String {
    format!(
        "{}|{}|{}",
        plan.key,
        context.attention.name(),
        if spec.is_quantized() { spec.name.as_str() } else { "none" }
    )
}

fn as_f64(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v)).collect()
}

fn summarize(scores: &Scores, plan: &Plan) -> Perplexity {
    let values = as_f64(&scores.nll);
    let mean = stats::mean(&values).unwrap_or(f64::NAN);
    let value = mean.exp();
    let estimate = Estimate::of(&values);
    Perplexity {
        dataset: plan.source.name.clone(),
        tokens: values.len(),
        value,
        protocol: Some(plan.protocol.name().into()),
        window: Some(plan.window),
        chunk: Some(match plan.protocol {
            Protocol::Streaming => CHUNK,
            Protocol::TwoPhase => plan.max_chunk(),
        }),
        burn_in: Some(plan.burn_in),
        nll: Some(mean),
        by_section: stats::section_means(&values),
        // exp is linear over so small an interval.
        standard_error: estimate.map(|nll| value * nll.error),
        blocks: estimate.map(|nll| nll.blocks),
        quantized_read_fraction: Some(scores.reads.share()),
        data: Some(plan.source.clone()),
        elapsed_s: Some(scores.elapsed_s),
        ..Default::default()
    }
}
