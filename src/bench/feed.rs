//! Feeding tokens to a model as decoding would, so that what is scored has read the quantized cache.

use super::Context;
use crate::cache::KeyReads;
use crate::model::Subject;
use crate::quant::QuantSpec;
use crate::{Error, Result};

/// Tokens that quality benchmarks feed together.
pub const CHUNK: usize = 64;

/// The token that this model wants before a text, if it wants one.
pub fn begin_of_text(subject: &Subject) -> Result<Option<u32>> {
    Ok(subject.tokenizer()?.encode("", true)?.first().copied())
}

/// Says that `what`, a flag with its value, is more than the `limit` tokens that a model allows.
pub fn longer_than_model(what: &str, limit: usize) -> String {
    format!("{what} is longer than the model allows ({limit} tokens)")
}

/// The share of `reads` that came from codes.
pub fn fraction_of(reads: KeyReads) -> f64 {
    if reads.total == 0 { 0.0 } else { reads.from_codes as f64 / reads.total as f64 }
}

/// Refuses a quantized score that never read a code.
///
/// # Errors
/// Says what to change.
pub fn require_quantized_reads(context: &Context<'_>, what: &str, fraction: f64) -> Result<()> {
    if context.spec.is_quantized() && fraction == 0.0 {
        return Err(Error::Invalid(format!("{what}: {}", no_score(context))));
    }
    Ok(())
}

/// Why there is no score of what never read a code, and what to do.
pub fn no_score(context: &Context<'_>) -> String {
    let why = why_unread(context.spec, context.subject.config().layers);
    format!("no key was read from codes, so this would be the score of a full-precision cache. {why}")
}

/// Tokens that a cache of `spec` holds when its first block is quantized: only what is read after them reads codes.
pub fn first_codes(spec: &QuantSpec) -> usize {
    spec.residual + spec.block_tokens()
}

/// Why a cache of `spec` in a model of so many `layers` may hold no codes, and what to do.
pub fn why_unread(spec: &QuantSpec, layers: usize) -> String {
    if (0..layers).all(|layer| spec.keep_layers.contains(&layer)) {
        return format!("{} keeps all layers unquantized: keep fewer", spec.name);
    }
    format!(
        "{} quantizes the first block once {} tokens are held: give it more, or a smaller --residual-length",
        spec.name,
        first_codes(spec)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_that_keeps_all_layers_is_told_from_one_that_was_given_too_few_tokens() {
        let why = |name: &str| why_unread(&name.parse().unwrap(), 4);
        assert!(why("int4-hqq,keep-layers=0+1+2+3").contains("keeps all layers"));
        assert!(why("int4-hqq,keep-layers=0+1+2").contains("once 192 tokens are held"));
    }
}
