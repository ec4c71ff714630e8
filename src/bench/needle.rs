//! Needle in a haystack: can a number that was said once be repeated from far back? (docs/EVALUATION.md)

use std::collections::BTreeMap;
use std::time::Instant;

use candle_core::Tensor;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::feed::{CHUNK, begin_of_text, next_chunk, require_quantized_reads};
use super::{Benchmark, Block, Context};
use crate::base::stats::wilson;
use crate::model::{LogitsOf, Subject};
use crate::quant::QuantSpec;
use crate::schema::{Needle, NeedleScore, NeedleTrial};
use crate::{Error, Result};

/// Tokens generated greedily after the prompt.
pub const ANSWER_TOKENS: usize = 32;

const FILLER: [&str; 5] =
    ["The grass is green.", "The sky is blue.", "The sun is yellow.", "Here we go.", "There and back again."];
const PROMPT: &str = "The special magic number for this experiment is";
/// The number of every first trial, as the published studies use it.
const FIRST_NUMBER: &str = "7492";

/// `--benchmarks needle`.
pub struct NeedleBenchmark;

impl Benchmark for NeedleBenchmark {
    fn name(&self) -> &'static str {
        "needle"
    }

    fn version(&self) -> u32 {
        1
    }

    fn run(&self, context: &mut Context<'_>, keep: &mut dyn FnMut(Block) -> Result<()>) -> Result<()> {
        let started = Instant::now();
        let haystacks = Haystack::plan(context)?;
        let key = format!("{:?}", haystacks.iter().map(|h| (&h.number, h.context, &h.prompt)).collect::<Vec<_>>());
        let reference = match context.references.needle.get(&key) {
            Some(trials) => trials.clone(),
            None => {
                let (trials, _) = run_trials(context, &QuantSpec::none(), &haystacks)?;
                context.references.needle.insert(key, trials.clone());
                trials
            }
        };
        let (mut trials, fraction) = if context.spec.is_quantized() {
            run_trials(context, context.spec, &haystacks)?
        } else {
            (reference.clone(), 0.0)
        };
        require_quantized_reads(context, "needle", fraction)?;
        for (trial, reference) in trials.iter_mut().zip(&reference) {
            trial.reference_success = Some(reference.success);
        }
        let mut block = summarize(&trials);
        block.version = Some(self.version());
        block.quantized_read_fraction = Some(fraction);
        block.elapsed_s = Some(started.elapsed().as_secs_f64());
        keep(Block::Needle(block, trials))
    }
}

/// One prompt with its number hidden.
struct Haystack {
    context: usize,
    depth: f64,
    trial: usize,
    number: String,
    prompt: Vec<u32>,
}

impl Haystack {
    fn plan(context: &Context<'_>) -> Result<Vec<Haystack>> {
        let settings = context.settings;
        let limit = context.subject.config().max_positions;
        let mut rng = StdRng::seed_from_u64(settings.seed);
        let numbers: Vec<String> = (0..settings.needle_trials.max(1))
            .map(|trial| if trial == 0 { FIRST_NUMBER.into() } else { rng.random_range(1000..10_000).to_string() })
            .collect();
        let mut haystacks = Vec::new();
        for &length in &settings.context_lengths {
            if length > limit {
                return Err(Error::usage(format!(
                    "--context-lengths {length} is longer than the model allows ({limit} tokens)"
                )));
            }
            for &depth in &settings.needle_depths {
                if !(0.0..=1.0).contains(&depth) {
                    return Err(Error::usage(format!("--needle-depths {depth} is not between 0 and 1")));
                }
                for (trial, number) in numbers.iter().enumerate() {
                    let prompt = hide(context.subject, number, depth, length)?;
                    haystacks.push(Haystack { context: length, depth, trial, number: number.clone(), prompt });
                }
            }
        }
        Ok(haystacks)
    }
}

/// Token ids of filler with the needle at `depth` and the question at the end: together with the answer as close to
/// `length` tokens as whole sentences allow.
fn hide(subject: &Subject, number: &str, depth: f64, length: usize) -> Result<Vec<u32>> {
    let tokenizer = subject.tokenizer()?;
    let needle = format!("{PROMPT} {number}.");
    let count = |text: &str| -> Result<usize> { Ok(tokenizer.encode(text, false)?.len()) };
    let begin = begin_of_text(subject)?;
    let fixed = count(&format!(" {needle}"))? + count(&format!(" {PROMPT}"))? + usize::from(begin.is_some());
    let Some(room) = length.checked_sub(ANSWER_TOKENS + fixed).filter(|room| *room > 0) else {
        return Err(Error::usage(format!(
            "needle: a context of {length} tokens has no room for the needle, the question and {ANSWER_TOKENS} tokens of answer"
        )));
    };
    // A sentence in the middle of a text: what it adds, its leading space included.
    let costs = FILLER.iter().map(|s| count(&format!(" {s}"))).collect::<Result<Vec<_>>>()?;
    let mut filler = Vec::new();
    let mut used = 0;
    while let Some(next) = Some(filler.len() % FILLER.len()).filter(|i| used + costs[*i] <= room) {
        used += costs[next];
        filler.push(FILLER[next]);
    }
    let at = (depth * filler.len() as f64).round() as usize;
    filler.insert(at.min(filler.len()), &needle);
    let text = format!("{} {PROMPT}", filler.join(" "));
    Ok(begin.into_iter().chain(tokenizer.encode(&text, false)?).collect())
}

/// Runs every haystack through a cache of `spec`; returns the trials and the share of key reads that came from codes.
fn run_trials(context: &Context<'_>, spec: &QuantSpec, haystacks: &[Haystack]) -> Result<(Vec<NeedleTrial>, f64)> {
    let longest = haystacks.iter().map(|h| h.prompt.len()).max().unwrap_or(0) + ANSWER_TOKENS;
    let mut cache = context.new_cache(spec, 1, longest, CHUNK)?;
    let total: usize = haystacks.iter().map(|h| h.prompt.len() + ANSWER_TOKENS).sum();
    context.progress.start(&format!("needle {}", spec.name), total as u64);
    let mut trials = Vec::with_capacity(haystacks.len());
    let (mut from_codes, mut all) = (0u64, 0u64);
    for haystack in haystacks {
        cache.reset();
        let text = answer(context, cache.as_mut(), &haystack.prompt)?;
        let reads = cache.key_reads();
        from_codes += reads.from_codes;
        all += reads.total;
        trials.push(NeedleTrial {
            context_length: haystack.context,
            depth_percent: haystack.depth,
            input_tokens: haystack.prompt.len(),
            success: text.to_lowercase().contains(&haystack.number.to_lowercase()),
            generated_text: text,
            needle: Some(haystack.number.clone()),
            trial: Some(haystack.trial),
            ..Default::default()
        });
    }
    context.progress.finish();
    Ok((trials, if all == 0 { 0.0 } else { from_codes as f64 / all as f64 }))
}

/// Feeds `prompt` and generates greedily.
fn answer(context: &Context<'_>, cache: &mut dyn crate::cache::KvCache, prompt: &[u32]) -> Result<String> {
    let subject = context.subject;
    let mut logits = None;
    let mut at = 0;
    while at < prompt.len() {
        let length = next_chunk(cache, prompt.len() - at);
        let input = Tensor::new(&prompt[at..at + length], &subject.device)?.unsqueeze(0)?;
        logits = Some(subject.decoder.forward(&input, cache, context.attention, LogitsOf::Last)?);
        context.progress.advance(length as u64)?;
        at += length;
    }
    let mut written = Vec::with_capacity(ANSWER_TOKENS);
    while let Some(row) = logits.take() {
        let next = row.argmax(candle_core::D::Minus1)?;
        let id = next.to_vec1::<u32>()?[0];
        context.progress.advance(1)?;
        if subject.config().eos.contains(&id) {
            break;
        }
        written.push(id);
        if written.len() < ANSWER_TOKENS {
            logits = Some(subject.decoder.forward(&next.unsqueeze(1)?, cache, context.attention, LogitsOf::Last)?);
        }
    }
    subject.tokenizer()?.decode(&written)
}

fn summarize(trials: &[NeedleTrial]) -> Needle {
    let mut per_context: BTreeMap<String, NeedleScore> = BTreeMap::new();
    for trial in trials {
        let score = per_context.entry(trial.context_length.to_string()).or_default();
        score.trials += 1;
        score.successes += usize::from(trial.success);
        score.success_rate = score.successes as f64 / score.trials as f64;
    }
    let successes = trials.iter().filter(|t| t.success).count();
    let found = |t: &&NeedleTrial| t.reference_success == Some(true);
    let reference = trials.iter().filter(found).count();
    let rate = |n: usize| if trials.is_empty() { 0.0 } else { n as f64 / trials.len() as f64 };
    Needle {
        total_trials: trials.len(),
        successes,
        success_rate: rate(successes),
        per_context,
        interval: Some(wilson(successes, trials.len())),
        reference_successes: Some(reference),
        delta: Some(rate(successes) - rate(reference)),
        lost: Some(trials.iter().filter(found).filter(|t| !t.success).count()),
        gained: Some(trials.iter().filter(|t| t.success && t.reference_success == Some(false)).count()),
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
        assert_eq!((needle.lost, needle.gained, needle.delta), (Some(1), Some(1), Some(0.0)));
        assert_eq!(needle.per_context["256"].success_rate, 0.5);
    }
}
