//! Feeding tokens to a model as decoding would, so that what is scored has read the quantized cache.

use super::Context;
use crate::cache::KeyReads;
use crate::model::generate::Chunks;
use crate::model::{DecoderConfig, Subject};
use crate::quant::QuantSpec;
use crate::{Error, Result};

/// Tokens that quality benchmarks feed together.
pub const CHUNK: usize = 64;

/// How texts are fed through a cache of `spec`, and through any other cache that its scores are held against: a block leaves the window of
/// `spec` only where a chunk ends. Scores of a reference that is fed otherwise differ by their rounding.
pub fn chunks(spec: &QuantSpec) -> Chunks {
    // One leaves whenever what is held is the residual window and whole blocks, and a block is of whole chunks.
    Chunks { most: CHUNK, ends_at: spec.residual % CHUNK }
}

/// The token that this model wants before a text, if it wants one.
pub fn begin_of_text(subject: &Subject) -> Result<Option<u32>> {
    Ok(subject.tokenizer()?.encode("", true)?.first().copied())
}

/// Says that `what`, a flag with its value, is more than the `limit` tokens that a model allows.
pub fn longer_than_model(what: &str, limit: usize) -> String {
    format!("{what} is longer than the model allows ({limit} tokens)")
}

/// Refuses a quantized score that never read a code.
///
/// # Errors
/// Says what to change.
pub fn require_quantized_reads(context: &Context<'_>, what: &str, reads: KeyReads) -> Result<()> {
    if context.spec.is_quantized() && reads.from_codes == 0 {
        return Err(Error::Invalid(format!("{what}: {}", no_score(context))));
    }
    Ok(())
}

/// The same before anything is measured: refuses a score that cannot read a code, since no more than `tokens` are fed to a cache before the last
/// prediction that counts.
///
/// # Errors
/// Says what to change.
pub fn require_room_for_codes(subject: &Subject, spec: &QuantSpec, what: &str, tokens: usize) -> Result<()> {
    match unread(spec, subject.config(), tokens) {
        Some(why) => Err(Error::usage(format!("{what}: {UNREAD}. {why}"))),
        None => Ok(()),
    }
}

const UNREAD: &str = "no key was read from codes, so this would be the score of a full-precision cache";

/// Why there is no score of what never read a code, and what to do.
pub fn no_score(context: &Context<'_>) -> String {
    format!("{UNREAD}. {}", why_unread(context.spec, context.subject.config()))
}

/// Tokens that a cache of `spec` holds when its first block is quantized: only what is read after them reads codes.
pub fn first_codes(spec: &QuantSpec) -> usize {
    spec.residual + spec.block_tokens()
}

/// Place, from 0, of the first token of a text that a cache of `spec` predicts from codes: the token before it is the first that is read after
/// the first block was quantized.
pub fn first_predicted_from_codes(spec: &QuantSpec) -> usize {
    first_codes(spec) + 1
}

/// Why a quantized cache of `spec` in a model of `config` read no codes, and what to do.
pub fn why_unread(spec: &QuantSpec, config: &DecoderConfig) -> String {
    unread(spec, config, 0).unwrap_or_default()
}

/// Why no more than `tokens` tokens in a cache of `spec` read no codes in a model of `config`, and what to do; `None` where they may.
fn unread(spec: &QuantSpec, config: &DecoderConfig, tokens: usize) -> Option<String> {
    let (name, first) = (&spec.name, first_codes(spec));
    if !spec.is_quantized() {
        return None;
    }
    let quantized = config.windows.iter().enumerate().filter(|(layer, _)| !spec.keep_layers.contains(layer));
    let windows: Vec<Option<usize>> = quantized.map(|(_, &window)| window).collect();
    if windows.is_empty() {
        return Some(format!("{name} keeps all layers unquantized: keep fewer"));
    }
    // The longest, where all quantized layers have one.
    match windows.into_iter().collect::<Option<Vec<_>>>().and_then(|windows| windows.into_iter().max()) {
        // A token sees itself and `window` - 1 tokens before it, of which the latest `residual` are no codes.
        Some(window) if spec.residual + 1 >= window => Some(format!(
            "{name} keeps the latest {} tokens in full precision, and by their sliding window of {window} quantized layers see no more, \
             however many they are given: take a smaller --residual-length, or --sliding-window off",
            spec.residual
        )),
        _ => (tokens <= first).then(|| {
            format!(
                "{name} quantizes the first block once {first} tokens are held: give it more, or a smaller --residual-length"
            )
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use candle_core::{DType, Device, Tensor};

    use super::*;
    use crate::cache::{self, CacheShape};
    use crate::model::families::read_config;
    use crate::model::generate::next_chunk;

    fn config(sliding_window: &str) -> DecoderConfig {
        let text = format!(
            r#"{{"model_type": "mistral", "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 1, "vocab_size": 8,
                "intermediate_size": 64, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "sliding_window": {sliding_window}}}"#
        );
        read_config(Path::new("config.json"), &text).unwrap().0
    }

    #[test]
    fn why_no_code_was_read_is_told_apart() {
        let why = |name: &str, window: &str| why_unread(&name.parse().unwrap(), &config(window));
        assert!(why("int4-hqq,keep-layers=0+1+2+3", "null").contains("keeps all layers"));
        assert!(why("int4-hqq,keep-layers=0+1+2", "null").contains("once 192 tokens are held"));
        assert!(why("int4-hqq,residual=126", "128").contains("once 190 tokens are held"));
        let unseen = why("int4-hqq,residual=127", "128");
        assert!(unseen.contains("sliding window of 128") && !unseen.contains("give it more"), "{unseen}");
        let mixed =
            r#"128, "layer_types": ["full_attention", "sliding_attention", "sliding_attention", "full_attention"]"#;
        assert!(why("int4-hqq,residual=127,keep-layers=0", mixed).contains("once 191 tokens are held"));
        assert!(why("int4-hqq,residual=127,keep-layers=0+3", mixed).contains("sliding window of 128"));
    }

    #[test]
    fn a_code_may_be_read_by_the_token_after_the_first_block() {
        let unread = |name: &str, tokens| unread(&name.parse().unwrap(), &config("null"), tokens).is_some();
        assert_eq!((unread("int4-hqq", 192), unread("int4-hqq", 193)), (true, false));
        assert!(!unread("none", 1), "there are none to read");
    }

    /// The chunks in which a cache of `spec` is fed `tokens` tokens that are cut as `chunks` say.
    fn fed(spec: &QuantSpec, chunks: Chunks, tokens: usize) -> Vec<usize> {
        let shape = CacheShape {
            batch: 1,
            kv_heads: 1,
            head_dim: 64,
            capacity: tokens,
            max_chunk: CHUNK,
            windows: vec![None],
            dtype: DType::F32,
            device: Device::Cpu,
        };
        let mut cache = cache::new(spec.clone(), shape).unwrap();
        let mut fed = Vec::new();
        while cache.len() < tokens {
            let count = next_chunk(cache.as_ref(), chunks).min(tokens - cache.len());
            let zeros = Tensor::zeros((1, 1, count, 64), DType::F32, &Device::Cpu).unwrap();
            cache.append(0, &zeros, &zeros).unwrap();
            cache.settle(0).unwrap();
            cache.advance(count);
            fed.push(count);
        }
        fed
    }

    #[test]
    fn a_reference_is_fed_the_chunks_of_the_cache_it_is_held_against() {
        let names = ["int4-hqq", "int2-kivi", "int2-kivi,k-group=128", "int4-quanto", "fp8"];
        for (name, residual) in names.iter().flat_map(|name| [0, 1, 63, 64, 100, 128, 200].map(|r| (name, r))) {
            let spec: QuantSpec = format!("{name},residual={residual}").parse().unwrap();
            let chunks = chunks(&spec);
            let tested = fed(&spec, chunks, 500);
            assert_eq!(fed(&QuantSpec::none(), chunks, 500), tested, "{}", spec.name);
            // No more of them than two ends that are apart need.
            assert!(tested.len() <= 500 / CHUNK + 2, "{}: {tested:?}", spec.name);
        }
    }
}
