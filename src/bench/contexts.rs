//! The contexts at which costs are measured and needles are hidden: which one where none is asked for, and how much of one is read.

use super::feed::first_codes;
use super::limits::OUTPUT_TOKENS;
use crate::model::DecoderConfig;
use crate::quant::QuantSpec;
use crate::{Error, Result};

/// Refuses a default context of which `output` leaves so little that a quantized cache would hold no code: nobody asked for
/// that. A model too short for both has half of its limit for a prompt.
///
/// # Errors
/// [`Error::Usage`] that says where the number comes from, and what to give instead.
pub fn check_default_context(config: &DecoderConfig, output: usize) -> Result<()> {
    let limit = config.max_positions;
    let left = limit.saturating_sub(output);
    // That of `none` is the default residual window and the least block.
    if left >= first_codes(&QuantSpec::none()).min(limit / 2) {
        return Ok(());
    }
    Err(Error::usage(format!(
        "--{OUTPUT_TOKENS} {output} leaves {left} of the model's {limit} tokens for the default context, in which a quantized cache \
         would hold no code: give --context-lengths, or fewer output tokens"
    )))
}

/// The most tokens that any layer reads of a context of `length` tokens, where none reads all of it by the model's own sliding windows.
pub fn most_in_sight(config: &DecoderConfig, length: usize) -> Option<usize> {
    let shorter = |window: &Option<usize>| window.filter(|window| *window < length);
    config.windows.iter().map(shorter).collect::<Option<Vec<_>>>()?.into_iter().max()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::model::families::read_config;

    #[test]
    fn a_default_context_holds_codes_or_half_of_what_the_model_allows() {
        let config = |limit: usize| {
            let text = format!(
                r#"{{"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 8,
                    "intermediate_size": 64, "max_position_embeddings": {limit}, "rms_norm_eps": 1e-5}}"#
            );
            read_config(Path::new("config.json"), &text).unwrap().0
        };
        let of = |limit, output| check_default_context(&config(limit), output).is_ok();
        assert_eq!(first_codes(&QuantSpec::none()), first_codes(&"int4-hqq".parse().unwrap()));
        assert!(of(4096, 128) && of(1100, 908) && of(256, 128));
        assert!(!of(1100, 909) && !of(2048, 2047) && !of(2048, 4096) && !of(256, 129));
    }
}
