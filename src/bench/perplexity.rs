//! Perplexity of a text, read through the cache (docs/EVALUATION.md, protocol `streaming`).
//!
//! Windows of `ppl_window` tokens are fed in chunks of 64; every token after the first `ppl_burn_in` of its window is scored.
//! The reference and the quantized cache see identical tokens, chunks and scored positions, so their difference is paired.

use std::time::Instant;

use candle_core::{D, DType, Tensor};

use super::feed::{CHUNK, begin_of_text, feed, quantized_read_fraction, require_quantized_reads};
use super::text::Text;
use super::{Benchmark, Block, Context};
use crate::base::stats;
use crate::quant::QuantSpec;
use crate::schema::Perplexity;
use crate::{Error, Result};

/// `--benchmarks ppl`.
pub struct PerplexityBenchmark;

/// Windows over a text and the tokens of them that are scored.
struct Plan {
    window: usize,
    burn_in: usize,
    /// Token ids, one window each; the last may be shorter.
    windows: Vec<Vec<u32>>,
    /// All windows together score so many.
    scored: usize,
}

impl Benchmark for PerplexityBenchmark {
    fn name(&self) -> &'static str {
        "ppl"
    }

    fn version(&self) -> u32 {
        1
    }

    fn run(&self, context: &mut Context<'_>, keep: &mut dyn FnMut(Block) -> Result<()>) -> Result<()> {
        let text = Text::load(context.settings, context.subject)?;
        let plan = Plan::new(context, &text)?;
        let key = format!("{}|{}|{}|{}", text.source.sha256, plan.window, plan.burn_in, plan.scored);

        let started = Instant::now();
        let reference_nll = match context.references.token_nll.get(&key) {
            Some(nll) => nll.clone(),
            None => {
                let (nll, _) = score(context, &QuantSpec::none(), &plan)?;
                context.references.token_nll.insert(key, nll.clone());
                nll
            }
        };
        let mut reference = summarize(&reference_nll, &plan, &text);
        reference.version = Some(self.version());
        reference.elapsed_s = Some(started.elapsed().as_secs_f64());
        reference.quantized_read_fraction = Some(0.0);
        if !context.spec.is_quantized() {
            return keep(Block::Perplexity { reference, quantized: None });
        }

        let started = Instant::now();
        let (nll, fraction) = score(context, context.spec, &plan)?;
        require_quantized_reads(context, "ppl", fraction)?;
        let mut quantized = summarize(&nll, &plan, &text);
        let differences: Vec<f64> =
            nll.iter().zip(&reference_nll).map(|(q, r)| f64::from(*q) - f64::from(*r)).collect();
        quantized.version = Some(self.version());
        quantized.quantized_read_fraction = Some(fraction);
        quantized.reference_value = Some(reference.value);
        quantized.delta = Some(quantized.value - reference.value);
        quantized.ln_ratio = stats::mean(&differences);
        quantized.ln_ratio_standard_error = Some(stats::sd(&differences) / (differences.len() as f64).sqrt());
        quantized.elapsed_s = Some(started.elapsed().as_secs_f64());
        keep(Block::Perplexity { reference, quantized: Some(quantized) })
    }
}

impl Plan {
    fn new(context: &Context<'_>, text: &Text) -> Result<Self> {
        let (settings, spec) = (context.settings, context.spec);
        let limit = context.subject.config().max_positions;
        let window = settings.ppl_window.unwrap_or(limit.min(4096));
        if window > limit {
            return Err(Error::usage(format!(
                "--ppl-window {window} is longer than the model allows ({limit} tokens)"
            )));
        }
        // All quantizations of a run must score the same tokens, so the burn-in may not depend on this one's window
        // unless it is longer than the default.
        let least = spec.residual + spec.block_tokens();
        let burn_in = settings.ppl_burn_in.unwrap_or(least.max(256).min(window / 2));
        if burn_in + 1 >= window {
            return Err(Error::usage(format!(
                "--ppl-burn-in {burn_in} leaves no token of a window of {window} to score"
            )));
        }
        let begin = begin_of_text(context.subject)?;
        let room = window - usize::from(begin.is_some());
        let per_window = window - burn_in.max(1);
        let wanted = settings.ppl_tokens.div_ceil(per_window);
        let mut windows = Vec::new();
        let mut scored = 0;
        for piece in text.tokens(context.subject)?.chunks(room).take(wanted) {
            let mut ids: Vec<u32> = begin.into_iter().chain(piece.iter().copied()).collect();
            let left = settings.ppl_tokens - scored;
            ids.truncate(burn_in.max(1) + left);
            if ids.len() <= burn_in.max(1) {
                break;
            }
            scored += ids.len() - burn_in.max(1);
            windows.push(ids);
        }
        if scored == 0 {
            return Err(Error::usage(format!(
                "ppl: the text {} is shorter than the burn-in of {burn_in} tokens; lower --ppl-burn-in or give a longer text",
                text.source.name
            )));
        }
        Ok(Plan { window, burn_in, windows, scored })
    }

    fn first_scored(&self) -> usize {
        self.burn_in.max(1)
    }
}

/// Negative log-likelihood (nats) of each scored token, and the share of key reads that came from codes.
fn score(context: &Context<'_>, spec: &QuantSpec, plan: &Plan) -> Result<(Vec<f32>, f64)> {
    let mut cache = context.new_cache(spec, 1, plan.window, CHUNK)?;
    let total: usize = plan.windows.iter().map(Vec::len).sum();
    context.progress.start(&format!("ppl {}", spec.name), total as u64);
    let first = plan.first_scored();
    let mut nll = Vec::with_capacity(plan.scored);
    let (mut from_codes, mut all) = (0u64, 0u64);
    for window in &plan.windows {
        cache.reset();
        // The logits of token i predict token i + 1.
        let wanted = |at: usize, length: usize| at + length > first - 1 && at + 1 < window.len();
        feed(context, cache.as_mut(), window, wanted, |at, logits| {
            let from = at.max(first - 1);
            let to = (at + logits.dim(0)?).min(window.len() - 1);
            if from < to {
                let rows = logits.narrow(0, from - at, to - from)?;
                nll.extend(token_nll(&rows, &window[from + 1..to + 1])?);
            }
            Ok(())
        })?;
        let reads = cache.key_reads();
        from_codes += reads.from_codes;
        all += reads.total;
    }
    context.progress.finish();
    debug_assert_eq!(nll.len(), plan.scored);
    if let Some(at) = nll.iter().position(|v| !v.is_finite()) {
        return Err(Error::NotFinite(format!("ppl: the log-likelihood of scored token {at} is not finite")));
    }
    Ok((nll, if all == 0 { quantized_read_fraction(cache.as_ref()) } else { from_codes as f64 / all as f64 }))
}

/// −log softmax(logits)\[target\] of each row; `logits` is `[T, V]`.
fn token_nll(logits: &Tensor, targets: &[u32]) -> Result<Vec<f32>> {
    let logits = logits.to_dtype(DType::F32)?;
    let targets = Tensor::new(targets, logits.device())?.unsqueeze(1)?;
    let chosen = logits.gather(&targets, 1)?.squeeze(1)?;
    let normalizer = logits.log_sum_exp(D::Minus1)?;
    Ok((normalizer - chosen)?.to_vec1()?)
}

fn summarize(nll: &[f32], plan: &Plan, text: &Text) -> Perplexity {
    let values: Vec<f64> = nll.iter().map(|&v| f64::from(v)).collect();
    let mean = stats::mean(&values).unwrap_or(f64::NAN);
    let value = mean.exp();
    Perplexity {
        dataset: text.source.name.clone(),
        tokens: values.len(),
        value,
        protocol: Some("streaming".into()),
        window: Some(plan.window),
        chunk: Some(CHUNK),
        burn_in: Some(plan.burn_in),
        nll: Some(mean),
        // exp is linear over so small an interval.
        standard_error: Some(value * stats::sd(&values) / (values.len() as f64).sqrt()),
        data: Some(text.source.clone()),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn token_nll_of_known_logits() {
        let logits = Tensor::new(&[[0f32, 0.0, 0.0, 0.0], [0.0, 100.0, 0.0, 0.0]], &Device::Cpu).unwrap();
        let nll = token_nll(&logits, &[2, 1]).unwrap();
        assert!((nll[0] - 4f32.ln()).abs() < 1e-6 && nll[1].abs() < 1e-6, "{nll:?}");
    }
}
