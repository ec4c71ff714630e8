//! Needle in a haystack: can what was said once be repeated from far back?

mod haystack;
mod hidden;

use std::collections::BTreeMap;
use std::time::Instant;

use super::contexts::most_in_sight;
use super::data::Files;
use super::feed::{CHUNK, chunks, no_score, require_quantized_reads, require_room_for_codes};
use super::{Benchmark, Block, Context, Readings, Request, Settings, text};
use crate::Result;
use crate::base::stats::PairTable;
use crate::cache::{KeyReads, KvCache};
use crate::model::generate::{Prompt, greedy};
use crate::quant::QuantSpec;
use crate::schema::{Benchmarks, Needle, NeedleScore, NeedleTrial, Paired};
use haystack::{Haystack, Haystacks};

/// Tokens generated greedily after the prompt.
pub const ANSWER_TOKENS: usize = 32;

/// `--benchmarks needle`.
pub struct NeedleBenchmark;

impl Benchmark for NeedleBenchmark {
    fn name(&self) -> &'static str {
        "needle"
    }

    fn version(&self) -> u32 {
        2
    }

    fn prepare(&self, request: &Request<'_>, readings: &mut Readings) -> Result<Option<String>> {
        let Request { subject, settings, quant } = *request;
        let read = Haystacks::of(subject, settings, readings)?;
        let longest = read.haystacks.iter().map(|haystack| haystack.prompt.len()).max().unwrap_or(0) + ANSWER_TOKENS;
        require_room_for_codes(
            subject,
            quant,
            &format!("needle: prompts and answers of {longest} tokens at most"),
            // The last token of an answer is not read.
            longest - 1,
        )?;
        let deepest = read.haystacks.iter().map(|haystack| haystack.context).max().unwrap_or(0);
        Ok(most_in_sight(subject.config(), deepest).map(|most| {
            format!(
                "needle: by the model's own sliding window no layer reads more than the latest {most} of {deepest} tokens, so that a \
                 needle further back is known only by what the tokens between made of it; --sliding-window off has all of them read"
            )
        }))
    }

    fn local_files(&self, settings: &Settings, _model: &str) -> Vec<Files> {
        text::local_files(&settings.needle_haystack, settings)
    }

    fn run(&self, context: &mut Context<'_>, keep: &mut dyn FnMut(Block) -> Result<()>) -> Result<()> {
        let started = Instant::now();
        let read = Haystacks::of(context.subject, context.settings, context.readings)?;
        let (haystacks, mut skipped) = (&read.haystacks, read.skipped.clone());
        let prompts: Vec<_> = haystacks.iter().map(|h| (&h.hidden.answer, h.context, &h.prompt)).collect();
        let key = format!("{} {:?} {prompts:?}", context.attention.name(), chunks(context.spec));
        let reference = match context.references.needle.get(&key) {
            Some(trials) => trials.clone(),
            None => {
                let (trials, _) = run_trials(context, &QuantSpec::none(), haystacks)?;
                context.references.needle.insert(key, trials.clone());
                trials
            }
        };
        let (mut trials, mut reads) = if context.spec.is_quantized() {
            run_trials(context, context.spec, haystacks)?
        } else {
            (reference.clone(), Reads::new())
        };
        require_quantized_reads(context, "needle", reads.values().copied().sum())?;
        for (trial, reference) in trials.iter_mut().zip(&reference) {
            trial.reference_success = Some(reference.success);
        }
        // A short context may have read nothing from codes where a longer one has: it has no score.
        reads.retain(|length, reads| {
            if reads.from_codes == 0 {
                skipped.insert(length.to_string(), no_score(context));
            }
            reads.from_codes > 0
        });
        trials.retain(|trial| !skipped.contains_key(&trial.context_length.to_string()));
        let mut block = summarize(&trials);
        for (length, reads) in &reads {
            block.per_context.entry(length.to_string()).or_default().quantized_read_fraction = Some(reads.share());
        }
        block.skipped_contexts = skipped;
        block.version = Some(self.version());
        block.kind = Some(context.settings.needle_kind.name().into());
        block.haystack = Some(text::read_as(&context.settings.needle_haystack, context.settings));
        block.data = read.source.clone();
        block.quantized_read_fraction = Some(reads.values().copied().sum::<KeyReads>().share());
        block.elapsed_s = Some(started.elapsed().as_secs_f64());
        let blocks = Benchmarks {
            needle_in_haystack: Some(block),
            needle_in_haystack_trials: Some(trials),
            ..Default::default()
        };
        keep(Block::Score { name: self.name(), blocks: Box::new(blocks), complete: true })
    }
}

/// Key reads by context length.
type Reads = BTreeMap<usize, KeyReads>;

/// Runs every haystack through a cache of `spec`.
fn run_trials(context: &Context<'_>, spec: &QuantSpec, haystacks: &[Haystack]) -> Result<(Vec<NeedleTrial>, Reads)> {
    let longest = haystacks.iter().map(|h| h.prompt.len()).max().unwrap_or(0) + ANSWER_TOKENS;
    let mut cache = context.new_cache(spec, 1, longest, CHUNK)?;
    let total: usize = haystacks.iter().map(|h| h.prompt.len() + ANSWER_TOKENS).sum();
    context.progress.start(&format!("needle {}", spec.name), total as u64);
    let mut trials = Vec::with_capacity(haystacks.len());
    let mut reads = Reads::new();
    for haystack in haystacks {
        cache.reset();
        let text = answer(context, cache.as_mut(), &haystack.prompt)?;
        cache.check_finite()?;
        context.progress.advance((haystack.prompt.len() + ANSWER_TOKENS) as u64)?;
        *reads.entry(haystack.context).or_default() += cache.key_reads();
        trials.push(NeedleTrial {
            context_length: haystack.context,
            depth_percent: haystack.depth,
            input_tokens: haystack.prompt.len(),
            success: haystack.hidden.is_said_in(&text),
            generated_text: text,
            needle: Some(haystack.hidden.answer.clone()),
            trial: Some(haystack.trial),
            ..Default::default()
        });
    }
    context.progress.finish();
    Ok((trials, reads))
}

/// Feeds `prompt` and continues it greedily.
fn answer(context: &Context<'_>, cache: &mut dyn KvCache, prompt: &[u32]) -> Result<String> {
    let subject = context.subject;
    let prompt = [Prompt { tokens: prompt, most: ANSWER_TOKENS }];
    let texts = greedy(&subject.decoder, &prompt, cache, context.attention, chunks(context.spec), context.progress)?;
    let tokens: Vec<u32> = texts.into_iter().flat_map(|written| written.tokens).collect();
    subject.tokenizer()?.decode(&tokens)
}

fn summarize(trials: &[NeedleTrial]) -> Needle {
    let mut per_context: BTreeMap<String, NeedleScore> = BTreeMap::new();
    for trial in trials {
        let score = per_context.entry(trial.context_length.to_string()).or_default();
        score.trials += 1;
        score.successes += usize::from(trial.success);
        score.success_rate = score.successes as f64 / score.trials as f64;
    }
    let table = PairTable::of(trials.iter().map(|t| (t.success, t.reference_success == Some(true))));
    Needle {
        total_trials: table.items(),
        successes: table.successes(),
        success_rate: table.rate(),
        per_context,
        paired: Paired::from(&table),
        reference_successes: Some(table.reference_successes()),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(context_length: usize, success: bool, reference: bool) -> NeedleTrial {
        NeedleTrial { context_length, success, reference_success: Some(reference), ..Default::default() }
    }

    #[test]
    fn scores_are_paired_with_the_reference() {
        let needle = summarize(&[trial(256, true, true), trial(256, false, true), trial(512, true, false)]);
        assert_eq!((needle.total_trials, needle.successes), (3, 2));
        assert_eq!((needle.paired.lost, needle.paired.gained, needle.paired.delta), (Some(1), Some(1), Some(0.0)));
        assert_eq!(needle.per_context["256"].success_rate, 0.5);
    }
}
