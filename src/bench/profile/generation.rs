//! The workload of `profile`: a model reads a prompt into a cache, then writes.

use candle_core::Tensor;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::bench::Context;
use crate::cache::KvCache;
use crate::measure::energy::Repeatable;
use crate::measure::run::Workload;
use crate::model::LogitsOf;
use crate::model::step::Stepper;
use crate::{Error, Result};

/// A model reading one prompt into one cache, then writing.
pub(super) struct Generation<'a> {
    /// Model, attention and settings.
    pub context: &'a Context<'a>,
    /// Emptied by each prefill.
    pub cache: &'a mut dyn KvCache,
    /// `[B, context length]`.
    pub prompt: &'a Tensor,
    /// How steps are made.
    pub stepper: Stepper<'a>,
    /// What the last prefill ended with: `[B, V]`.
    pub logits: Option<Tensor>,
}

impl Generation<'_> {
    /// Tokens of a sequence that are computed together.
    pub(super) fn chunk(&self) -> usize {
        self.cache.shape().max_chunk
    }

    /// Reads `tokens` `[B, T]` after what the cache holds; the logits `[B, V]` of the last of each sequence.
    pub(super) fn read(&mut self, tokens: &Tensor) -> Result<Tensor> {
        let (chunk, length) = (self.chunk(), tokens.dim(1)?);
        let Context { subject, attention, progress, .. } = self.context;
        let mut at = 0;
        loop {
            let count = chunk.min(length - at);
            let input = tokens.narrow(1, at, count)?;
            let logits = subject.decoder.forward(&input, self.cache, *attention, LogitsOf::Last)?;
            progress.advance(count as u64)?;
            at += count;
            if at == length {
                return Ok(logits);
            }
        }
    }
}

impl Workload for Generation<'_> {
    fn prefill(&mut self) -> Result<()> {
        self.cache.reset();
        let logits = self.read(self.prompt)?;
        self.stepper.begin(&logits, self.cache)?;
        self.logits = Some(logits);
        Ok(())
    }

    fn step(&mut self) -> Result<bool> {
        let flush = self.cache.tokens_until_flush() == Some(1);
        self.stepper.step(self.cache)?;
        self.context.progress.advance(1)?;
        Ok(flush)
    }
}

impl Repeatable for Generation<'_> {
    fn rewind(&mut self) -> Result<()> {
        let logits = self
            .logits
            .as_ref()
            .ok_or_else(|| Error::Invalid("a decode cannot be repeated before a prefill".into()))?;
        self.cache.rewind(self.prompt.dim(1)?);
        self.stepper.begin(logits, self.cache)
    }
}

/// Seeded random tokens: cost does not depend on what they say.
pub(super) fn random_prompt(context: &Context<'_>, length: usize, batch: usize) -> Result<Tensor> {
    random_tokens(context, context.settings.seed, length, batch)
}

/// The same of another `seed`.
pub(super) fn random_tokens(context: &Context<'_>, seed: u64, length: usize, batch: usize) -> Result<Tensor> {
    let vocabulary = context.subject.config().vocab as u32;
    let mut rng = StdRng::seed_from_u64(seed);
    let ids: Vec<u32> = (0..length * batch).map(|_| rng.random_range(0..vocabulary)).collect();
    Ok(Tensor::from_vec(ids, (batch, length), &context.subject.device)?)
}
