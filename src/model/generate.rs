//! Text through a cache: feeding a prompt in chunks, and greedy continuation.

use std::ops::ControlFlow;

use candle_core::{D, Tensor};

use super::attention::Attention;
use super::decoder::{Decoder, LogitsOf};
use crate::cache::KvCache;
use crate::{Error, Result};

/// How a known text is cut for feeding. Either way no chunk is longer than the cache's `max_chunk`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chunking {
    /// Up to so many tokens, and never past the point where a block leaves the cache's window: codes and logits are
    /// those of feeding one token at a time.
    Exact(usize),
    /// Up to so many tokens.
    Fixed(usize),
}

impl Chunking {
    /// Tokens of the next chunk, at least 1.
    pub fn next(self, cache: &dyn KvCache) -> usize {
        let limit = match self {
            Chunking::Exact(limit) => limit.min(cache.tokens_until_flush().unwrap_or(limit)),
            Chunking::Fixed(limit) => limit,
        };
        limit.min(cache.shape().max_chunk).max(1)
    }
}

/// Feeds `tokens` (one sequence) after what `cache` holds; the logits `[1, V]` of the last one.
///
/// # Errors
/// As [`Decoder::forward`]; no tokens at all is a usage error.
pub fn feed(
    decoder: &Decoder,
    tokens: &[u32],
    cache: &mut dyn KvCache,
    attention: &dyn Attention,
    chunking: Chunking,
) -> Result<Tensor> {
    let mut rest = tokens;
    let mut logits = Err(Error::usage("there are no tokens to feed"));
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(chunking.next(cache).min(rest.len()));
        let chunk = Tensor::new(chunk, decoder.device())?.unsqueeze(0)?;
        logits = Ok(decoder.forward(&chunk, cache, attention, LogitsOf::Last)?);
        rest = after;
    }
    logits
}

/// When a continuation ends, apart from its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// At a token that ends a text for this model; the token itself is not returned.
    EndOfText,
    /// Only at the length.
    Length,
}

/// Continues `prompt` with the likeliest token each time, up to `max_tokens` of them. `on_token` sees each token with the
/// logits `[1, V]` it was chosen from, and may break off after it.
///
/// # Errors
/// As [`feed`].
#[allow(clippy::too_many_arguments)]
pub fn greedy(
    decoder: &Decoder,
    prompt: &[u32],
    max_tokens: usize,
    cache: &mut dyn KvCache,
    attention: &dyn Attention,
    chunking: Chunking,
    stop: Stop,
    on_token: &mut dyn FnMut(u32, &Tensor) -> ControlFlow<()>,
) -> Result<Vec<u32>> {
    let mut logits = feed(decoder, prompt, cache, attention, chunking)?;
    let mut generated = Vec::with_capacity(max_tokens);
    while generated.len() < max_tokens {
        let token = likeliest(&logits)?;
        if stop == Stop::EndOfText && decoder.config().eos.contains(&token) {
            break;
        }
        generated.push(token);
        if on_token(token, &logits).is_break() || generated.len() == max_tokens {
            break;
        }
        let next = Tensor::new(&[[token]], decoder.device())?;
        logits = decoder.forward(&next, cache, attention, LogitsOf::Last)?;
    }
    Ok(generated)
}

/// The token with the largest of the logits `[1, V]`.
///
/// # Errors
/// [`Error::NotFinite`] when that largest logit is not a number: the model has overflowed.
pub fn likeliest(logits: &Tensor) -> Result<u32> {
    let token = logits.argmax(D::Minus1)?.squeeze(0)?.to_scalar::<u32>()?;
    let largest = logits.squeeze(0)?.get(token as usize)?.to_scalar::<f32>()?;
    if !largest.is_finite() {
        return Err(Error::NotFinite(format!("the model's largest logit is {largest}; try --dtype bf16 or f32")));
    }
    Ok(token)
}
