//! Reading windows of text through one cache, or through two side by side, and scoring what is predicted.

use std::time::Instant;

use candle_core::Tensor;

use super::Context;
use super::prediction::{Pair, compare, nll};
use super::windows::Plan;
use crate::cache::{KeyReads, KvCache};
use crate::model::{LogitsOf, MOST_LOGITS};
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
    let mut score = |logits: &[Tensor], targets: &[u32]| nll(&logits[0], targets);
    let (per_window, reads) = read(context, plan, &[spec], &spec.name, &mut score)?;
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
    let specs = [&QuantSpec::none(), spec];
    let mut score = |logits: &[Tensor], targets: &[u32]| compare(&logits[0], &logits[1], targets);
    let (per_window, reads) = read(context, plan, &specs, &format!("{} beside none", spec.name), &mut score)?;
    let positions =
        per_window.iter().flat_map(|pairs: &Vec<Pair>| (0..pairs.len()).map(|i| plan.burn_in + i)).collect();
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
        Some(at) => {
            Err(Error::NotFinite(format!("the likelihood of scored token {at} is not finite; try --dtype bf16 or f32")))
        }
        None => Ok(()),
    }
}

/// Scores rows of logits `[R, V]`, one tensor for each cache, given the tokens that the rows predict.
type Score<'a, T> = dyn FnMut(&[Tensor], &[u32]) -> Result<Vec<T>> + 'a;

/// Feeds all windows to a cache of each spec, in step: what was scored, window by window, and each cache's key reads.
fn read<T: Clone>(
    context: &Context<'_>,
    plan: &Plan,
    specs: &[&QuantSpec],
    label: &str,
    score: &mut Score<'_, T>,
) -> Result<(Vec<Vec<T>>, Vec<KeyReads>)> {
    let total: usize = plan.windows.iter().map(Vec::len).sum();
    context.progress.start(&format!("ppl {label}"), total as u64);
    let mut per_window = vec![Vec::new(); plan.windows.len()];
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
        read_batch(context, plan, &batch, &mut caches, score, &mut per_window)?;
        caches.iter().try_for_each(|cache| cache.check_finite())?;
        for (sum, cache) in reads.iter_mut().zip(&caches) {
            *sum += cache.key_reads();
        }
    }
    context.progress.finish();
    Ok((per_window, reads))
}

/// Windows that are read side by side: what the settings say, but no more than have logits that can be computed at once; or on a GPU as many as
/// keep one portion's logits under a gigabyte, up to 16. A CPU gains nothing from more than one.
fn side_by_side(context: &Context<'_>, plan: &Plan, caches: usize) -> usize {
    const LOGIT_BYTES: usize = 1 << 30;
    if let Some(batch) = context.settings.ppl_batch {
        return batch.min(MOST_LOGITS / (plan.max_chunk() * context.subject.config().vocab)).max(1);
    }
    if context.subject.device.is_cpu() {
        return 1;
    }
    let portion = plan.max_chunk() * context.subject.config().vocab * 4 * caches;
    (LOGIT_BYTES / portion.max(1)).clamp(1, 16)
}

fn read_batch<T: Clone>(
    context: &Context<'_>,
    plan: &Plan,
    batch: &[usize],
    caches: &mut [Box<dyn KvCache>],
    score: &mut Score<'_, T>,
    per_window: &mut [Vec<T>],
) -> Result<()> {
    let (decoder, device) = (&context.subject.decoder, &context.subject.device);
    let windows: Vec<&[u32]> = batch.iter().map(|&index| plan.windows[index].as_slice()).collect();
    let length = windows[0].len();
    let tokens = Tensor::from_vec(windows.concat(), (windows.len(), length), device)?;
    let mut at = 0;
    for &portion in &plan.portions {
        let count = portion.min(length - at);
        if count == 0 {
            break;
        }
        let input = tokens.narrow(1, at, count)?.contiguous()?;
        // The logits of token i predict token i + 1.
        let (from, to) = (at.max(plan.burn_in - 1), (at + count).min(length - 1));
        let wanted = if from < to { LogitsOf::All } else { LogitsOf::Last };
        let mut logits = Vec::with_capacity(caches.len());
        for cache in caches.iter_mut() {
            logits.push(decoder.forward(&input, cache.as_mut(), context.attention, wanted)?);
        }
        if from < to {
            // [B, T, V] → [B·scored, V]
            let rows = |all: &Tensor| all.narrow(1, from - at, to - from)?.contiguous()?.flatten(0, 1);
            let logits = logits.iter().map(rows).collect::<candle_core::Result<Vec<_>>>()?;
            let targets: Vec<u32> = windows.iter().flat_map(|window| &window[from + 1..to + 1]).copied().collect();
            let scored = score_rows(&logits, &targets, score)?;
            for (&index, scored) in batch.iter().zip(scored.chunks(to - from)) {
                per_window[index].extend_from_slice(scored);
            }
        }
        context.progress.advance((count * windows.len()) as u64)?;
        at += count;
    }
    Ok(())
}

/// Scores a part of the rows at a time: a long pass has more logits than their intermediate results may take.
fn score_rows<T>(logits: &[Tensor], targets: &[u32], score: &mut Score<'_, T>) -> Result<Vec<T>> {
    const ROWS: usize = 1024;
    let mut scored = Vec::with_capacity(targets.len());
    for (part, targets) in targets.chunks(ROWS).enumerate() {
        let rows = |all: &Tensor| all.narrow(0, part * ROWS, targets.len());
        let rows = logits.iter().map(rows).collect::<candle_core::Result<Vec<_>>>()?;
        scored.extend(score(&rows, targets)?);
    }
    Ok(scored)
}
