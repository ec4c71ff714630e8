//! What a cost was measured with, beside model, backend, cache, context and batch: settings that change what is measured. Rows that
//! differ in it are rows of different experiments. A row without a follow-up prompt differs in none from one that read it: no other number
//! depends on that. The newest of them counts, with the prompt of the older ([`Study::rows`](super::study::Study::rows)).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::schema::{Flags, Measurement, RunResult};

/// A setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Tokens that a timed decode generates: the cache has room for them, and each reads those before it.
    Output,
    /// Tokens of a prompt computed together: prefill's time, and its share of the cache's scratch.
    Chunk,
    /// Tokens of a follow-up prompt, where one was read.
    FollowUp,
    /// How decode steps are made.
    StepMode,
    /// The machine: its card, or its processor.
    Device,
}

/// What a part is, in words; sorted by its number first, where it has one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Told {
    number: usize,
    words: String,
    /// Whether it is what a run has that asks for nothing else: a name need not mention it.
    usual: bool,
}

impl Told {
    fn new(number: usize, words: String) -> Self {
        Told { number, words, usual: false }
    }

    fn usual(words: String) -> Self {
        Told { number: 0, words, usual: true }
    }
}

/// The settings of a row. A part that its file does not tell is not in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Setting(BTreeMap<Part, Told>);

/// The flags that the row `m` of `result` was measured with: its own where a patch measured it, else the run's.
fn flags<'a>(result: &'a RunResult, m: &'a Measurement) -> &'a Flags {
    m.settings.as_ref().unwrap_or(&result.config.flags)
}

/// Tokens of a prompt that the row `m` of `result` computed together; `None` where its file, an older one, tells only that they were the
/// usual ones.
pub fn prefill_chunk(result: &RunResult, m: &Measurement) -> Option<usize> {
    let asked = || flags(result, m).get("prefill-chunk")?.as_u64();
    m.prefill_chunk.or_else(|| asked().map(|tokens| (tokens as usize).min(m.context_len)))
}

fn chunks_of(tokens: usize) -> Told {
    Told::new(tokens, format!("prefill chunks of {tokens}"))
}

fn follow_ups_of(tokens: usize) -> Told {
    Told::new(tokens, format!("follow-up prompts of {tokens}"))
}

/// How the decode steps of the row `m` were made, by the name of `--step-mode` for it; `None` where the file does not say.
pub fn step_mode(m: &Measurement) -> Option<&str> {
    m.step_mode.as_deref().or_else(|| worded_mode(m))
}

/// The same as the kernel's name tells it, which is all that older files have.
fn worded_mode(m: &Measurement) -> Option<&'static str> {
    // As `model::step` and its engine worded it.
    let (_, how) = m.attention_kernel.as_deref()?.split_once("; step: ")?;
    let modes = [("plain decoder", "plain"), ("one CUDA graph", "graph"), ("launched one by one", "launches")];
    modes.into_iter().find(|(words, _)| how.contains(words)).map(|(_, mode)| mode)
}

/// Whether `--step-mode`, given as `asked`, chose how the row `m` of `result` made its steps: on a GPU, by `fused`, where the step kernels
/// served the row or were not asked to. Elsewhere the plain decoder made them whatever the flag said.
fn has_step_modes(result: &RunResult, m: &Measurement, asked: &str) -> bool {
    let unserved = asked != "plain" && step_mode(m) == Some("plain");
    result.attn_backend == "fused" && result.machine(&m.block()).device.as_deref() != Some("cpu") && !unserved
}

impl Setting {
    /// Of the row `m` of `result`.
    pub fn of(result: &RunResult, m: &Measurement) -> Self {
        let flags = flags(result, m);
        let output = m.decode_tokens.unwrap_or_else(|| result.decode_tokens());
        let chunk = flags.get("prefill-chunk").map(|chunk| match chunk.as_u64() {
            Some(tokens) => chunks_of(tokens as usize),
            None => Told::usual("usual prefill chunks".into()),
        });
        let follow_up = m.follow_up.as_ref().map(|follow_up| follow_up.tokens as u64);
        // A row that was skipped tells what was asked for; one without has none of them.
        let follow_up = follow_up.or_else(|| flags.get("follow-up-tokens")?.as_u64());
        let follow_up = follow_up.map(|tokens| follow_ups_of(tokens as usize));
        let asked = flags.get("step-mode").and_then(Value::as_str);
        let step_mode = asked.filter(|asked| has_step_modes(result, m, asked));
        let step_mode = step_mode.map(|mode| match format!("step mode {mode}") {
            words if mode == "graph" => Told::usual(words),
            words => Told::new(0, words),
        });
        let machine = result.machine(&m.block());
        let parts = [
            (Part::Output, Some(Told::new(output, format!("{output} tokens out")))),
            (Part::Chunk, chunk),
            (Part::FollowUp, follow_up),
            (Part::StepMode, step_mode),
            (Part::Device, machine.name().map(|name| Told::new(0, name.to_string()))),
        ];
        Setting(parts.into_iter().filter_map(|(part, told)| Some((part, told?))).collect())
    }

    /// The parts that `settings` have several values of.
    pub fn varying<'a>(settings: impl Iterator<Item = &'a Setting>) -> BTreeSet<Part> {
        let mut first: BTreeMap<Part, &Told> = BTreeMap::new();
        let mut varying = BTreeSet::new();
        for (part, told) in settings.flat_map(|setting| &setting.0) {
            if *first.entry(*part).or_insert(told) != told {
                varying.insert(*part);
            }
        }
        varying
    }

    /// The same without the parts that are not among `parts`.
    pub fn only(&self, parts: &BTreeSet<Part>) -> Self {
        self.clone().keeping(|part| parts.contains(part))
    }

    /// The same without `parts`.
    pub fn without(&self, parts: &BTreeSet<Part>) -> Self {
        self.clone().keeping(|part| !parts.contains(part))
    }

    fn keeping(mut self, keep: impl Fn(&Part) -> bool) -> Self {
        self.0.retain(|part, _| keep(part));
        self
    }

    /// The same with prefill chunks of `tokens`.
    pub fn with_chunk(mut self, tokens: usize) -> Self {
        self.0.insert(Part::Chunk, chunks_of(tokens));
        self
    }

    /// The same with follow-up prompts of `tokens`.
    pub fn with_follow_up(mut self, tokens: usize) -> Self {
        self.0.insert(Part::FollowUp, follow_ups_of(tokens));
        self
    }

    /// The parts in which both tell something, and not the same.
    pub fn differing(&self, other: &Self) -> BTreeSet<Part> {
        let differs = |(part, told): (&Part, &Told)| other.0.get(part).is_some_and(|o| o != told).then_some(*part);
        self.0.iter().filter_map(differs).collect()
    }

    /// Its parts that are not as usual, in words.
    pub fn unusual_words(&self) -> Vec<&str> {
        self.0.values().filter(|told| !told.usual).map(|told| told.words.as_str()).collect()
    }

    /// Its parts in words.
    pub fn words(&self) -> Vec<&str> {
        self.0.values().map(|told| told.words.as_str()).collect()
    }
}
