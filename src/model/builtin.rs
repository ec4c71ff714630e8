//! The small trained model inside the program: what it is and how it was made is in `src/model/builtin/MODEL_CARD.md`.

use std::path::Path;

use sha2::{Digest, Sha256};

use super::config::DecoderConfig;
use super::families::{Names, read_config};
use super::tokenizer::Tokenizer;
use super::weights::safetensors::SafetensorsWeights;
use crate::Result;
use crate::base::hex::hex;

const CONFIG: &str = include_str!("builtin/config.json");
const TOKENIZER: &[u8] = include_bytes!("builtin/tokenizer.json");
/// FP16, in Hugging Face's layout of a Llama.
const WEIGHTS: &[u8] = include_bytes!("builtin/model.safetensors");

/// Its shape, and the names of its tensors.
///
/// # Errors
/// Only if the embedded file is broken, which the tests exclude; so for the others here.
pub(super) fn config() -> Result<(DecoderConfig, Names)> {
    read_config(Path::new("builtin/config.json"), CONFIG)
}

/// Its tokenizer.
pub(super) fn tokenizer() -> Result<Tokenizer> {
    Tokenizer::from_json(Path::new("builtin/tokenizer.json"), TOKENIZER)
}

/// Its weights, as trained.
pub(super) fn weights() -> Result<SafetensorsWeights> {
    SafetensorsWeights::from_bytes("builtin/model.safetensors", WEIGHTS)
}

/// SHA-256 of the embedded weights, in lower-case hexadecimal.
pub(super) fn weights_sha256() -> String {
    hex(&Sha256::digest(WEIGHTS))
}

#[cfg(test)]
mod tests {

    use candle_core::{DType, Device};

    use super::*;
    use crate::base::progress::Silent;
    use crate::cache::{self, CacheShape};
    use crate::model::generate::{Chunks, Prompt, Written, greedy};
    use crate::model::source::BUILTIN;
    use crate::model::{LoadOptions, Subject, attention};
    use crate::quant::QuantSpec;

    fn subject() -> Subject {
        Subject::load(&LoadOptions::new(BUILTIN)).unwrap()
    }

    /// Greedy continuation of `text` through a cache of `spec`.
    fn continuation(subject: &Subject, spec: &str, text: &str) -> String {
        let (config, tokenizer) = (subject.config(), subject.tokenizer().unwrap());
        let prompt = tokenizer.encode(text, true).unwrap();
        let shape = CacheShape {
            windows: vec![None; config.layers],
            batch: 1,
            kv_heads: config.kv_heads,
            head_dim: config.head_dim,
            capacity: prompt.len() + 8,
            max_chunk: 64,
            dtype: DType::F32,
            device: Device::Cpu,
        };
        let mut cache = cache::new(spec.parse::<QuantSpec>().unwrap(), shape).unwrap();
        let attention = attention::new("sdpa").unwrap();
        let prompt = [Prompt { tokens: &prompt, most: 8 }];
        let written =
            greedy(&subject.decoder, &prompt, cache.as_mut(), attention.as_ref(), Chunks::of(64), &Silent).unwrap();
        tokenizer.decode(&written[0].tokens).unwrap()
    }

    #[test]
    fn texts_of_several_lengths_are_continued_side_by_side_as_each_alone() {
        let subject = subject();
        let tokenizer = subject.tokenizer().unwrap();
        let prompts = ["In the village of", "The miller walked to the river, and in the evening he"];
        let prompts = prompts.map(|text| tokenizer.encode(text, true).unwrap());
        let attention = attention::new("sdpa").unwrap();
        let greedy = |prompts: &[Prompt<'_>]| {
            let shape = subject.config().cache_shape(prompts.len().max(1), 64, 64, DType::F32, &Device::Cpu);
            let mut cache = cache::new(QuantSpec::none(), shape).unwrap();
            greedy(&subject.decoder, prompts, cache.as_mut(), attention.as_ref(), Chunks::of(4), &Silent)
        };
        let limited = |most: [usize; 2]| [0, 1].map(|i| Prompt { tokens: &prompts[i], most: most[i] });
        let alone = limited([12, 5]).map(|prompt| greedy(&[prompt]).unwrap().remove(0));
        assert_eq!(alone.each_ref().map(|written| written.tokens.len()), [12, 5]);
        // What each has read too: the shorter text ends first.
        assert_eq!(greedy(&limited([12, 5])).unwrap(), alone);
        assert!(alone[1].reads.total > 0);
        assert_eq!(greedy(&limited([12, 0])).unwrap(), [alone[0].clone(), Written::default()]);
        assert!(
            greedy(&[]).unwrap_err().is_usage() && greedy(&[Prompt { tokens: &[], most: 1 }]).unwrap_err().is_usage()
        );
    }

    #[test]
    fn it_has_the_shape_of_its_card() {
        let subject = subject();
        let config = subject.config();
        assert_eq!((config.layers, config.heads, config.kv_heads, config.head_dim), (4, 4, 2, 64));
        assert_eq!((config.max_positions, subject.decoder.parameters()), (2048, 3_115_264));
        assert!(WEIGHTS.len() + TOKENIZER.len() + CONFIG.len() < 8_000_000);
    }

    #[test]
    fn words_and_digits_are_one_token_each() {
        let subject = subject();
        let tokenizer = subject.tokenizer().unwrap();
        // Printed by `tokenizers` in Python for the same file.
        let ids = tokenizer.encode("Georg has a brown duck.\nThe code is 7492.", true).unwrap();
        assert_eq!(ids, [276, 598, 462, 508, 560, 14, 199, 318, 542, 615, 221, 23, 20, 25, 18, 14]);
    }

    #[test]
    fn text_outside_its_language_survives_the_tokenizer() {
        let subject = subject();
        let tokenizer = subject.tokenizer().unwrap();
        let text = "Zoë's naïve fox → 3.14 日本\t\r\n  x = {\"y\": 7};\n\n";
        assert_eq!(tokenizer.decode(&tokenizer.encode(text, true).unwrap()).unwrap(), text);
    }

    #[test]
    fn a_number_said_once_is_repeated_from_far_back() {
        let subject = subject();
        let filler = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again. ";
        let question = "The special magic number for this experiment is";
        let text = format!("{filler}{question} 5186. {}{question}", filler.repeat(15));
        for spec in ["none", "int8-hqq", "int4-hqq"] {
            let answer = continuation(&subject, spec, &text);
            assert!(answer.starts_with(" 5186"), "{spec}: {answer}");
        }
    }

    #[test]
    fn a_fact_is_recalled_in_other_words() {
        let subject = subject();
        let text = "Nora lives in Elmford. Hugo lives in Foxley. The secret code of Hugo is 8217. Nora has a white goat. \
                    The old bell of the village was made in 1463. Hugo has a brown duck. Where does Nora live? In";
        assert!(continuation(&subject, "none", text).starts_with(" Elmford."));
    }
}
