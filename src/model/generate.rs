//! Text through a cache: feeding a prompt in chunks, and greedy continuation.

use candle_core::{D, Tensor};

use super::attention::Attention;
use super::decoder::{Decoder, LogitsOf};
use crate::cache::KvCache;
use crate::{Error, Result};

/// Tokens of the next chunk of a known text, at least 1: up to `limit`, no more than the cache's `max_chunk`, and never past the point
/// where a block leaves its window, so that codes and logits are those of feeding one token at a time.
pub fn next_chunk(cache: &dyn KvCache, limit: usize) -> usize {
    limit.min(cache.tokens_until_flush().unwrap_or(limit)).min(cache.shape().max_chunk).max(1)
}

/// Feeds `tokens` (one sequence) after what `cache` holds, in chunks of up to `limit` ([`next_chunk`]); the logits `[1, V]` of the last
/// one.
///
/// # Errors
/// As [`Decoder::forward`]; no tokens at all is a usage error.
pub fn feed(
    decoder: &Decoder,
    tokens: &[u32],
    cache: &mut dyn KvCache,
    attention: &dyn Attention,
    limit: usize,
) -> Result<Tensor> {
    let mut rest = tokens;
    let mut logits = Err(Error::usage("there are no tokens to feed"));
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(next_chunk(cache, limit).min(rest.len()));
        let chunk = Tensor::new(chunk, decoder.device())?.unsqueeze(0)?;
        logits = Ok(decoder.forward(&chunk, cache, attention, LogitsOf::Last)?);
        rest = after;
    }
    logits
}

/// Continues `prompt` with the likeliest token each time, up to `max_tokens` of them, or until one that ends a text for this model,
/// which is not returned.
///
/// # Errors
/// As [`feed`].
pub fn greedy(
    decoder: &Decoder,
    prompt: &[u32],
    max_tokens: usize,
    cache: &mut dyn KvCache,
    attention: &dyn Attention,
    limit: usize,
) -> Result<Vec<u32>> {
    let mut logits = feed(decoder, prompt, cache, attention, limit)?;
    let mut generated = Vec::with_capacity(max_tokens);
    while generated.len() < max_tokens {
        let token = likeliest(&logits)?;
        if decoder.config().eos.contains(&token) {
            break;
        }
        generated.push(token);
        if generated.len() == max_tokens {
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
