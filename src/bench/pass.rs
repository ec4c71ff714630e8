//! Reading windows of text through one cache, or through two side by side, and scoring what is predicted.

use std::time::Instant;

use candle_core::{IndexOp, Tensor};

use super::Context;
use super::prediction::{Pair, compare, nll};
use super::windows::Plan;
use crate::cache::{KeyReads, KvCache};
use crate::model::LogitsOf;
use crate::quant::QuantSpec;
use crate::{Error, Result};

/// What one cache predicted of a text.
#[derive(Debug, Clone, Default)]
pub struct Scores {
    /// Negative log-likelihood of each scored token, nats, in order of the text.
    pub nll: Vec<f32>,
    /// Key reads.
    pub reads: KeyReads,
    /// Wall time, seconds.
    pub elapsed_s: f64,
}

/// What two caches predicted of the same text.
#[derive(Debug, Clone, Default)]
pub struct PairScores {
    /// Each scored token, in order of the text.
    pub pairs: Vec<Pair>,
    /// Place of each in its window, tokens from 0.
    pub positions: Vec<usize>,
    /// Key reads of the cache under test.
    pub reads: KeyReads,
    /// Wall time, seconds.
    pub elapsed_s: f64,
}

/// Scores the plan's tokens through a cache of `spec`.
///
/// # Errors
/// When a likelihood is not finite, or the model or cache fails.
pub fn single(context: &Context<'_>, plan: &Plan, spec: &QuantSpec) -> Result<Scores> {
    let started = Instant::now();
    let mut per_window = vec![Vec::new(); plan.windows.len()];
    let reads = read(context, plan, &[spec], &spec.name, &mut |window, logits, targets| {
        per_window[window].extend(nll(&logits[0], targets)?);
        Ok(())
    })?;
    let nll = per_window.concat();
    check(plan, nll.len(), nll.iter().position(|v| !v.is_finite()))?;
    Ok(Scores { nll, reads: reads[0], elapsed_s: started.elapsed().as_secs_f64() })
}

/// Scores the plan's tokens through an unquantized cache and one of `spec`, both fed the same portions.
///
/// # Errors
/// As [`single`].
pub fn pair(context: &Context<'_>, plan: &Plan, spec: &QuantSpec) -> Result<PairScores> {
    let started = Instant::now();
    let mut per_window = vec![Vec::new(); plan.windows.len()];
    let specs = [&QuantSpec::none(), spec];
    let reads = read(context, plan, &specs, &format!("{} beside none", spec.name), &mut |window, logits, targets| {
        per_window[window].extend(compare(&logits[0], &logits[1], targets)?);
        Ok(())
    })?;
    let positions = per_window.iter().flat_map(|pairs| (0..pairs.len()).map(|i| plan.burn_in + i)).collect();
    let pairs = per_window.concat();
    let bad = |p: &Pair| !(p.kl.is_finite() && p.nll.is_finite() && p.reference_nll.is_finite());
    check(plan, pairs.len(), pairs.iter().position(bad))?;
    Ok(PairScores { pairs, positions, reads: reads[1], elapsed_s: started.elapsed().as_secs_f64() })
}

fn check(plan: &Plan, scored: usize, not_finite: Option<usize>) -> Result<()> {
    if scored != plan.scored {
        let message = format!("{scored} of {} planned tokens were scored; this is a defect of kvprof", plan.scored);
        return Err(Error::Invalid(message));
    }
    match not_finite {
        Some(at) => Err(Error::NotFinite(format!("the likelihood of scored token {at} is not finite; try --dtype bf16 or f32"))),
        None => Ok(()),
    }
}

/// Sees, for a window by index, the logits `[R, V]` of each cache and the tokens that the R rows predict.
type Each<'a> = dyn FnMut(usize, &[Tensor], &[u32]) -> Result<()> + 'a;

/// Feeds all windows to a cache of each spec, in step.
fn read(context: &Context<'_>, plan: &Plan, specs: &[&QuantSpec], label: &str, each: &mut Each<'_>) -> Result<Vec<KeyReads>> {
    let total: usize = plan.windows.iter().map(Vec::len).sum();
    context.progress.start(&format!("ppl {label}"), total as u64);
    let mut reads = vec![KeyReads::default(); specs.len()];
    let mut caches: Vec<Box<dyn KvCache>> = Vec::new();
    for batch in plan.batches(side_by_side(context, plan, specs.len())) {
        if caches.first().is_none_or(|cache| cache.shape().batch != batch.len()) {
            // The old buffers go before the new ones come.
            caches.clear();
            for spec in specs {
                caches.push(context.new_cache(spec, batch.len(), plan.window, plan.max_chunk())?);
            }
        }
        caches.iter_mut().for_each(|cache| cache.reset());
        read_batch(context, plan, &batch, &mut caches, each)?;
        for (sum, cache) in reads.iter_mut().zip(&caches) {
            sum.from_codes += cache.key_reads().from_codes;
            sum.total += cache.key_reads().total;
        }
    }
    context.progress.finish();
    Ok(reads)
}

/// Windows that are read side by side: what the settings say, or on a GPU as many as keep one portion's logits under a
/// gigabyte, up to 16. A CPU gains nothing from more than one.
fn side_by_side(context: &Context<'_>, plan: &Plan, caches: usize) -> usize {
    const LOGIT_BYTES: usize = 1 << 30;
    if let Some(batch) = context.settings.ppl_batch {
        return batch.max(1);
    }
    if context.subject.device.is_cpu() {
        return 1;
    }
    let portion = plan.max_chunk() * context.subject.config().vocab * 4 * caches;
    (LOGIT_BYTES / portion.max(1)).clamp(1, 16)
}

fn read_batch(
    context: &Context<'_>,
    plan: &Plan,
    batch: &[usize],
    caches: &mut [Box<dyn KvCache>],
    each: &mut Each<'_>,
) -> Result<()> {
    let (decoder, device) = (&context.subject.decoder, &context.subject.device);
    let windows: Vec<&[u32]> = batch.iter().map(|&index| plan.windows[index].as_slice()).collect();
    let length = windows[0].len();
    let tokens = Tensor::from_vec(windows.concat(), (windows.len(), length), device)?;
    let mut at = 0;
    while at < length {
        let count = plan.next_chunk(caches, at, length);
        let input = tokens.narrow(1, at, count)?.contiguous()?;
        // The logits of token i predict token i + 1.
        let (from, to) = (at.max(plan.burn_in - 1), (at + count).min(length - 1));
        let wanted = if from < to { LogitsOf::All } else { LogitsOf::Last };
        let mut logits = Vec::with_capacity(caches.len());
        for cache in caches.iter_mut() {
            logits.push(decoder.forward(&input, cache.as_mut(), context.attention, wanted)?);
        }
        if from < to {
            for (row, (&index, window)) in batch.iter().zip(&windows).enumerate() {
                score_rows(&logits, row, from - at..to - at, &window[from + 1..to + 1], &mut |l, t| each(index, l, t))?;
            }
        }
        context.progress.advance((count * windows.len()) as u64)?;
        at += count;
    }
    Ok(())
}

/// Hands on the rows of one sequence, a few at a time: a long pass has more logits than their intermediate results may take.
fn score_rows(
    logits: &[Tensor],
    sequence: usize,
    rows: std::ops::Range<usize>,
    targets: &[u32],
    each: &mut dyn FnMut(&[Tensor], &[u32]) -> Result<()>,
) -> Result<()> {
    const ROWS: usize = 256;
    for (targets, start) in targets.chunks(ROWS).zip(rows.step_by(ROWS)) {
        let part = |all: &Tensor| all.i(sequence)?.narrow(0, start, targets.len())?.contiguous();
        let part = logits.iter().map(part).collect::<candle_core::Result<Vec<_>>>()?;
        each(&part, targets)?;
    }
    Ok(())
}
