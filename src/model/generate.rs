//! Text through a cache: feeding prompts in chunks, and greedy continuation.

use candle_core::{D, Tensor};

use super::attention::Attention;
use super::decoder::{Decoder, LogitsOf};
use crate::base::progress::Progress;
use crate::cache::{KeyReads, KvCache};
use crate::{Error, Result};

/// How a known text is cut into chunks, whose tokens are fed together: by places in the text, not by what a cache holds, so that several
/// caches can be fed alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunks {
    /// Most tokens of one, at least 1.
    pub most: usize,
    /// One ends at this place, and one every `most` tokens before and after it.
    pub ends_at: usize,
}

impl Chunks {
    /// Chunks of `most` tokens from the beginning of the text on.
    pub fn of(most: usize) -> Self {
        Chunks { most, ends_at: 0 }
    }

    /// Tokens from place `at` to the end of its chunk, at least 1.
    pub fn left(self, at: usize) -> usize {
        let Chunks { most, ends_at } = self;
        most - (at % most + most - ends_at % most) % most
    }
}

/// Tokens of the next chunk of a known text, at least 1: to the end of the chunk, no more than the cache's `max_chunk`, and never past the
/// point where a block leaves its window, so that codes and logits are those of feeding one token at a time.
pub fn next_chunk(cache: &dyn KvCache, chunks: Chunks) -> usize {
    let left = chunks.left(cache.len());
    left.min(cache.tokens_until_flush().unwrap_or(left)).min(cache.shape().max_chunk).max(1)
}

/// Feeds sequences of one length after what `cache` holds, in `chunks` ([`next_chunk`]); the logits `[B, V]` of the last token
/// of each.
///
/// # Errors
/// As [`Decoder::forward`]; no tokens at all is a usage error.
pub fn feed(
    decoder: &Decoder,
    sequences: &[&[u32]],
    cache: &mut dyn KvCache,
    attention: &dyn Attention,
    chunks: Chunks,
) -> Result<Tensor> {
    let length = sequences.first().map_or(0, |tokens| tokens.len());
    let mut logits = Err(Error::usage("there are no tokens to feed"));
    let mut at = 0;
    while at < length {
        let count = next_chunk(cache, chunks).min(length - at);
        let chunk: Vec<u32> = sequences.iter().flat_map(|tokens| &tokens[at..at + count]).copied().collect();
        let chunk = Tensor::from_vec(chunk, (sequences.len(), count), decoder.device())?;
        logits = Ok(decoder.forward(&chunk, cache, attention, LogitsOf::Last)?);
        at += count;
    }
    logits
}

/// A text to be continued.
#[derive(Debug, Clone, Copy)]
pub struct Prompt<'a> {
    /// Its token ids.
    pub tokens: &'a [u32],
    /// Most tokens to be written after it.
    pub most: usize,
}

/// What was written after a prompt.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Written {
    /// Its token ids.
    pub tokens: Vec<u32>,
    /// Keys that were read for it, from its first token until it ended: while others go on, what is fed for it is of no use.
    pub reads: KeyReads,
}

/// Continues each prompt with the likeliest token each time, ending before a token that ends a text for this model. `cache` is empty
/// and holds as many sequences as there are prompts. `progress` is asked after each token whether to go on.
///
/// Prompts of different lengths need no padding: all begin at position 0, and while one still reads its prompt, token by
/// token, another already writes; where none writes, all read in chunks. Feeding a prompt by single tokens leaves the codes and logits of
/// feeding it in chunks.
///
/// # Errors
/// As [`feed`]; [`Error::Interrupted`] by the user; [`Error::NotFinite`] when a largest logit is not a number; no prompt at all, or an empty one, is a usage error.
pub fn greedy(
    decoder: &Decoder,
    prompts: &[Prompt<'_>],
    cache: &mut dyn KvCache,
    attention: &dyn Attention,
    chunks: Chunks,
    progress: &dyn Progress,
) -> Result<Vec<Written>> {
    if prompts.iter().map(|prompt| prompt.tokens.len()).min().unwrap_or(0) == 0 {
        return Err(Error::usage("there is no text to continue, or an empty one"));
    }
    let mut writers: Vec<Writer> = prompts
        .iter()
        .map(|prompt| Writer { written: Written::default(), most: prompt.most, done: prompt.most == 0 })
        .collect();
    // What follows each prompt; once its text has ended, whatever it is is of no use.
    let mut next = vec![0; prompts.len()];
    let mut at = 0;
    while writers.iter().any(|writer| !writer.done) {
        let writing = prompts.iter().zip(&writers).any(|(prompt, writer)| prompt.tokens.len() <= at && !writer.done);
        let unread = prompts.iter().map(|prompt| prompt.tokens.len()).filter(|length| *length > at).min();
        // Who writes goes on by one token; where nobody does, all read to the end of the next prompt.
        let end = unread.filter(|_| !writing).unwrap_or(at + 1);
        let given = |prompt: &Prompt<'_>, at: usize| prompt.tokens.get(at).copied();
        let sequence = |(prompt, &next)| (at..end).map(|at| given(prompt, at).unwrap_or(next)).collect::<Vec<u32>>();
        let sequences: Vec<Vec<u32>> = prompts.iter().zip(&next).map(sequence).collect();
        let sequences: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
        let logits = feed(decoder, &sequences, cache, attention, chunks)?;
        at = end;
        let likeliest = likeliest(&logits)?;
        // All sequences stand at one position, and so have read alike.
        let KeyReads { from_codes, total } = cache.key_reads();
        let many = prompts.len() as u64;
        let reads = KeyReads { from_codes: from_codes / many, total: total / many };
        for writer in writers.iter_mut().filter(|writer| !writer.done) {
            writer.written.reads = reads;
        }
        for (((prompt, writer), next), token) in prompts.iter().zip(&mut writers).zip(&mut next).zip(likeliest) {
            if prompt.tokens.len() <= at {
                *next = writer.take(token, &decoder.config().eos);
            }
        }
        progress.advance(0)?;
    }
    Ok(writers.into_iter().map(|writer| writer.written).collect())
}

/// One sequence being written.
struct Writer {
    written: Written,
    most: usize,
    done: bool,
}

impl Writer {
    /// Takes the likeliest token, unless the text has ended; what is fed next either way.
    fn take(&mut self, token: u32, ends: &[u32]) -> u32 {
        self.done |= ends.contains(&token);
        if !self.done {
            self.written.tokens.push(token);
            self.done = self.written.tokens.len() == self.most;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_end_at_their_places_wherever_reading_begins() {
        let ends = |chunks: Chunks, mut at: usize| {
            std::iter::from_fn(|| {
                at += chunks.left(at);
                (at <= 200).then_some(at)
            })
            .collect::<Vec<_>>()
        };
        assert_eq!(ends(Chunks::of(64), 0), [64, 128, 192]);
        assert_eq!(ends(Chunks { most: 64, ends_at: 100 }, 0), [36, 100, 164]);
        assert_eq!(ends(Chunks { most: 64, ends_at: 100 }, 37), [100, 164]);
        assert_eq!(ends(Chunks::of(1), 197), [198, 199, 200]);
    }
}
