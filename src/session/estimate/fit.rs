//! What of a model fits into a given memory, for each quantization of its cache.

use candle_core::Device;

use super::Shape;
use crate::cache::{self, CacheShape};
use crate::quant::QuantSpec;
use crate::{Error, Result};

/// The longest context that is looked for.
const MOST_TOKENS: usize = 1 << 24;
/// The largest batch that is looked for.
pub const MOST_SEQUENCES: usize = 1 << 16;

/// One cache of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct CacheFit {
    /// Bytes that each further token of a sequence takes, the recent window aside.
    pub bytes_per_token: f64,
    /// Longest context of one sequence that fits beside the weights, up to the model's own; 0 when not even the weights fit.
    pub longest: usize,
    /// At each context that was asked for.
    pub contexts: Vec<ContextFit>,
}

/// A cache at one context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContextFit {
    /// Tokens.
    pub tokens: usize,
    /// Bytes of one sequence.
    pub bytes: u64,
    /// Sequences that fit beside the weights; [`MOST_SEQUENCES`] stands for as many or more.
    pub sequences: usize,
}

/// What of `shape` with a cache of `quant` fits into `free` bytes, at each of `contexts`. Weights and cache are counted, not the working memory of a
/// forward pass.
///
/// # Errors
/// When the quantization cannot serve the model, or the model's sizes are beyond any machine.
pub fn cache_fit(shape: &Shape, quant: &QuantSpec, contexts: &[usize], free: u64) -> Result<CacheFit> {
    let config = &shape.config;
    quant.validate(config.head_dim, config.layers)?;
    let context = config.max_positions.min(MOST_TOKENS);
    let most = contexts.iter().copied().fold(context, usize::max);
    let largest = [config.layers, config.kv_heads, config.head_dim, most].iter().map(|&n| n as f64).product::<f64>();
    if largest * MOST_SEQUENCES as f64 > 1e18 {
        return Err(Error::usage("a cache of the model's sizes is beyond any machine"));
    }
    let cache = |capacity: usize, batch: usize| config.cache_shape(batch, capacity, 64, shape.dtype, &Device::Cpu);
    let bytes = |capacity: usize, batch: usize| cache::predict(quant, &cache(capacity, batch)).total();
    // Between two lengths far past every window, in whole blocks.
    let endless = |capacity: usize| {
        cache::predict(quant, &CacheShape { windows: vec![None; config.layers], ..cache(capacity, 1) }).total() as f64
    };
    let far = (quant.residual.min(MOST_TOKENS) + 1024).next_multiple_of(1024);
    let bytes_per_token = (endless(2 * far) - endless(far)) / far as f64;
    let room = free.saturating_sub(shape.weights_bytes());
    let at = |&tokens: &usize| ContextFit {
        tokens,
        bytes: bytes(tokens, 1),
        sequences: last_that_fits(MOST_SEQUENCES, |batch| bytes(tokens, batch) <= room),
    };
    Ok(CacheFit {
        bytes_per_token,
        longest: last_that_fits(context, |tokens| bytes(tokens, 1) <= room),
        contexts: contexts.iter().map(at).collect(),
    })
}

/// The largest number up to `most` for which `fits` holds, which holds up to some number and not beyond it; 0 when there is none.
fn last_that_fits(most: usize, fits: impl Fn(usize) -> bool) -> usize {
    let (mut good, mut bad) = (0, most + 1);
    while bad - good > 1 {
        let middle = good + (bad - good) / 2;
        if fits(middle) { good = middle } else { bad = middle }
    }
    good
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use candle_core::DType;

    use super::*;
    use crate::model::families::read_config;

    /// The shape of Llama-3.1-8B: 32 layers, 8 KV heads of 128 channels, 131072 tokens.
    fn shape() -> Shape {
        let text = r#"{"model_type": "llama", "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
            "hidden_size": 4096, "intermediate_size": 14336, "vocab_size": 128256, "max_position_embeddings": 131072}"#;
        Shape { config: read_config(Path::new("config.json"), text).unwrap().0, dtype: DType::F16, unserved: None }
    }

    #[test]
    fn sizes_of_a_known_model_are_those_that_are_published() {
        let shape = shape();
        assert_eq!(shape.config.parameters(), 8_030_261_248);
        let fit = cache_fit(&shape, &QuantSpec::none(), &[131_072, 65_536], 80 << 30).unwrap();
        // 2 × 32 layers × 8 heads × 128 channels × 2 bytes.
        assert_eq!(fit.bytes_per_token, 131_072.0);
        // Beside a flag of a few bytes.
        assert_eq!(fit.contexts.iter().map(|at| at.bytes >> 10).collect::<Vec<_>>(), [16 << 20, 8 << 20]);
        // 80 − 14.96 GiB of weights leave room for four caches of 16 GiB, or eight of half as many tokens.
        assert_eq!((fit.longest, fit.contexts[0].sequences, fit.contexts[1].sequences), (131_072, 4, 8));
    }

    #[test]
    fn what_takes_all_the_room_there_is_fits() {
        let shape = shape();
        let longest = |spare: u64| {
            // 1024 tokens, and the 8 bytes of the flag.
            let free = shape.weights_bytes() + 1024 * 131_072 + 8 + spare;
            cache_fit(&shape, &QuantSpec::none(), &[], free).unwrap().longest
        };
        // Slots come in blocks of 64.
        assert_eq!((longest(0), longest(64 * 131_072 - 1), longest(64 * 131_072)), (1024, 1024, 1088));
    }

    #[test]
    fn smaller_codes_fit_longer_contexts_and_too_large_weights_fit_none() {
        let shape = shape();
        let fit = |name: &str, free: u64| cache_fit(&shape, &name.parse().unwrap(), &[], free).unwrap();
        let (none, int4) = (fit("none", 20 << 30), fit("int4-hqq", 20 << 30));
        // 20 − 14.96 GiB hold 5.04 GiB of 128 KiB a token.
        assert!((40_000..42_000).contains(&none.longest), "{none:?}");
        assert_eq!(int4.longest, 131_072);
        // 4 bits and, for each 64, 32 bits of parameters: 4.5 of 16.
        assert_eq!(int4.bytes_per_token, 131_072.0 * 4.5 / 16.0);
        assert_eq!(fit("int4-hqq", 10 << 30).longest, 0);
    }
}
