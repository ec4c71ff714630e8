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

impl Workload for Generation<'_> {
    fn prefill(&mut self) -> Result<()> {
        self.cache.reset();
        let (batch, length) = self.prompt.dims2()?;
        let chunk = self.context.settings.prefill_chunk(length, batch, self.context.subject.config().layers);
        let Context { subject, attention, progress, .. } = self.context;
        let mut at = 0;
        loop {
            let tokens = chunk.min(length - at);
            let input = self.prompt.narrow(1, at, tokens)?;
            let logits = subject.decoder.forward(&input, self.cache, *attention, LogitsOf::Last)?;
            progress.advance(tokens as u64)?;
            at += tokens;
            if at == length {
                self.stepper.begin(&logits, self.cache)?;
                self.logits = Some(logits);
                return Ok(());
            }
        }
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
    let vocabulary = context.subject.config().vocab as u32;
    let mut rng = StdRng::seed_from_u64(context.settings.seed);
    let ids: Vec<u32> = (0..length * batch).map(|_| rng.random_range(0..vocabulary)).collect();
    Ok(Tensor::from_vec(ids, (batch, length), &context.subject.device)?)
}
