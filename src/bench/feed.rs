//! Feeding tokens to a model as decoding would, so that what is scored has read the quantized cache.

use super::Context;
use crate::cache::KeyReads;
use crate::model::Subject;
use crate::{Error, Result};

/// Tokens that quality benchmarks feed together.
pub const CHUNK: usize = 64;

/// The token that this model wants before a text, if it wants one.
pub fn begin_of_text(subject: &Subject) -> Result<Option<u32>> {
    Ok(subject.tokenizer()?.encode("", true)?.first().copied())
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
        let spec = context.spec;
        let needed = spec.residual + spec.block_tokens();
        let kept = (0..context.subject.config().layers).all(|layer| spec.keep_layers.contains(&layer));
        let mend = if kept {
            "keeps all layers unquantized: keep fewer".to_string()
        } else {
            format!(
                "quantizes the first block once {needed} tokens are held: use a longer text, or a smaller --residual-length"
            )
        };
        return Err(Error::Invalid(format!(
            "{what}: no key was read from codes, so this would be the score of a full-precision cache. {} {mend}",
            spec.name
        )));
    }
    Ok(())
}
