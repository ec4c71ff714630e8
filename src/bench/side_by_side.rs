//! Greedy answers to several prompts at once.

use candle_core::{D, Tensor};

use super::Context;
use super::feed::CHUNK;
use crate::cache::KvCache;
use crate::model::LogitsOf;
use crate::model::generate::next_chunk;
use crate::{Error, Result};

/// Continues each prompt greedily by up to its limit of tokens, ending before a token that ends a text. `cache` is empty and
/// holds as many sequences as there are prompts.
///
/// Prompts of different lengths need no padding: all begin at position 0, and while one still reads its prompt, token by
/// token, another already writes. Feeding a prompt by single tokens leaves the codes and logits of feeding it in chunks.
///
/// # Errors
/// When a logit is not finite, or the model or cache fails; no prompt at all, or an empty one, is a usage error.
pub fn answers(
    context: &Context<'_>,
    cache: &mut dyn KvCache,
    prompts: &[&[u32]],
    limits: &[usize],
) -> Result<Vec<Vec<u32>>> {
    let (decoder, device) = (&context.subject.decoder, &context.subject.device);
    let shared = prompts.iter().map(|prompt| prompt.len()).min().filter(|shortest| *shortest > 0);
    let shared = shared.ok_or_else(|| Error::usage("there is no prompt to answer"))?;
    let forward = |tokens: Vec<u32>, cache: &mut dyn KvCache| {
        let shape = (prompts.len(), tokens.len() / prompts.len());
        decoder.forward(&Tensor::from_vec(tokens, shape, device)?, cache, context.attention, LogitsOf::Last)
    };

    let mut writers: Vec<Writer> =
        limits.iter().map(|&limit| Writer { written: Vec::new(), limit, done: limit == 0 }).collect();
    let mut logits = None;
    let mut at = 0;
    while at < shared {
        let count = next_chunk(cache, CHUNK).min(shared - at);
        logits = Some(forward(prompts.iter().flat_map(|prompt| &prompt[at..at + count]).copied().collect(), cache)?);
        at += count;
    }
    while let Some(last) = logits.take() {
        let likeliest = likeliest(&last)?;
        let mut next = Vec::with_capacity(prompts.len());
        for ((prompt, writer), token) in prompts.iter().zip(&mut writers).zip(likeliest) {
            next.push(match prompt.get(at) {
                Some(&given) => given,
                None => writer.take(token, &decoder.config().eos),
            });
        }
        context.progress.advance(0)?;
        if writers.iter().any(|writer| !writer.done) {
            logits = Some(forward(next, cache)?);
            at += 1;
        }
    }
    Ok(writers.into_iter().map(|writer| writer.written).collect())
}

/// One sequence being written.
struct Writer {
    written: Vec<u32>,
    limit: usize,
    done: bool,
}

impl Writer {
    /// Takes the likeliest token, unless the text has ended; what is fed next either way.
    fn take(&mut self, token: u32, ends: &[u32]) -> u32 {
        self.done |= ends.contains(&token);
        if !self.done {
            self.written.push(token);
            self.done = self.written.len() == self.limit;
        }
        token
    }
}

/// The token with the largest logit of each row of `[B, V]`.
fn likeliest(logits: &Tensor) -> Result<Vec<u32>> {
    let largest = logits.max(D::Minus1)?.to_vec1::<f32>()?;
    if let Some(bad) = largest.iter().find(|value| !value.is_finite()) {
        return Err(Error::NotFinite(format!("the model's largest logit is {bad}; try --dtype bf16 or f32")));
    }
    Ok(logits.argmax(D::Minus1)?.to_vec1()?)
}
