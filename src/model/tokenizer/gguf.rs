//! Tokenizers from GGUF metadata: `gpt2` (byte-level BPE) and `llama` (SentencePiece).

use candle_core::quantized::gguf_file::Value;
use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::NFC;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{SplitDelimiterBehavior, Tokenizer};

use super::sentencepiece::{self, Options, Piece, PieceKind, add_tokens, surround};
use super::{ChatTemplate, GgufFile};
use crate::{Error, Result};

/// Qwen2's words: contractions, letters with one leading sign, single digits, signs, line ends, spaces.
const QWEN2_WORDS: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Llama 3's words: as Qwen2's, with digits in threes.
const LLAMA3_WORDS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Mistral's words since NeMo: letters with one leading sign, cut where lower case turns to upper, single digits, signs, line ends, spaces.
const TEKKEN_WORDS: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// How a text is cut into words before byte-level BPE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Words {
    Gpt2,
    /// Each digit on its own, then as GPT-2.
    SmolLm,
    Qwen2,
    Llama3,
    Tekken,
}

/// What `tokenizer.ggml.pre` calls them: the names that llama.cpp takes for one another (`llama_vocab::impl::load` in `llama-vocab.cpp`), as far
/// as models have them whose architectures can be loaded.
const NAMES: [(Words, &[&str]); 5] = [
    (Words::Gpt2, &["gpt-2", "a.x-4.0", "mellum"]),
    (Words::SmolLm, &["smollm"]),
    (Words::Qwen2, &["qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "megrez"]),
    (Words::Llama3, &["llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral", "midm-2.0"]),
    (Words::Tekken, &["tekken"]),
];

impl Words {
    fn parse(name: &str) -> Option<Self> {
        NAMES.iter().find(|(_, names)| names.contains(&name)).map(|(words, _)| *words)
    }

    fn known() -> String {
        NAMES.iter().flat_map(|(_, names)| *names).copied().collect::<Vec<_>>().join(", ")
    }

    /// Whether a word that is a token stays whole, whatever the merges say, and BOS comes before a text unless the file says otherwise.
    fn as_llama3(self) -> bool {
        matches!(self, Words::Llama3 | Words::Tekken)
    }

    fn splitters(self) -> tokenizers::Result<Vec<PreTokenizerWrapper>> {
        let words = |pattern: &str| {
            Split::new(SplitPattern::Regex(pattern.into()), SplitDelimiterBehavior::Isolated, false).map(Into::into)
        };
        let bytes = |use_regex: bool| ByteLevel::new(false, true, use_regex).into();
        Ok(match self {
            Words::Gpt2 => vec![bytes(true)],
            Words::SmolLm => vec![Digits::new(true).into(), bytes(true)],
            Words::Qwen2 => vec![words(QWEN2_WORDS)?, bytes(false)],
            Words::Llama3 => vec![words(LLAMA3_WORDS)?, bytes(false)],
            Words::Tekken => vec![words(TEKKEN_WORDS)?, bytes(false)],
        })
    }
}

/// The tokenizer and chat template of `file`.
pub(super) fn build(file: &GgufFile) -> Result<(Tokenizer, Option<ChatTemplate>)> {
    let vocabulary = Vocabulary::read(file)?;
    let model = file.text("tokenizer.ggml.model").ok_or_else(|| file.wrong("has no tokenizer in its metadata"))?;
    let bad = |e: tokenizers::Error| file.wrong(format!("has a tokenizer that does not fit together ({e})"));
    let tokenizer = match model {
        "gpt2" => byte_level(file, &vocabulary)?,
        "llama" => sentencepiece::build(&vocabulary.pieces, &vocabulary.surroundings(file, true)).map_err(bad)?,
        other => {
            return Err(file.wrong(format!("has a tokenizer of kind `{other}`; supported are gpt2 and llama")));
        }
    };
    let template = file.text("tokenizer.chat_template").map(|source| ChatTemplate {
        source: source.to_owned(),
        bos_token: vocabulary.text_of(file, "bos"),
        eos_token: vocabulary.text_of(file, "eos"),
    });
    Ok((tokenizer, template))
}

/// `tokenizer.ggml.tokens` with their scores and kinds.
struct Vocabulary {
    pieces: Vec<Piece>,
}

impl Vocabulary {
    fn read(file: &GgufFile) -> Result<Self> {
        let list = |name: &str| file.list(&format!("tokenizer.ggml.{name}"));
        let texts = texts(file, "tokens")?;
        let scores = list("scores").unwrap_or(&[]);
        let kinds = list("token_type").unwrap_or(&[]);
        for (name, count) in [("scores", scores.len()), ("token_type", kinds.len())] {
            if count != 0 && count != texts.len() {
                return Err(file.wrong(format!("has {} tokens but {count} entries in {name}", texts.len())));
            }
        }
        let pieces = texts.into_iter().enumerate().map(|(id, text)| Piece {
            text,
            score: scores.get(id).and_then(|s| s.to_f32().ok()).unwrap_or(0.0),
            kind: match kinds.get(id) {
                Some(Value::I32(2) | Value::U32(2)) => PieceKind::Unknown,
                Some(Value::I32(3) | Value::U32(3)) => PieceKind::Control,
                Some(Value::I32(4) | Value::U32(4)) => PieceKind::UserDefined,
                Some(Value::I32(5) | Value::U32(5)) => PieceKind::Unused,
                Some(Value::I32(6) | Value::U32(6)) => PieceKind::Byte,
                _ => PieceKind::Normal,
            },
        });
        Ok(Vocabulary { pieces: pieces.collect() })
    }

    fn id_of(&self, file: &GgufFile, name: &str) -> Option<u32> {
        let id = file.count(&format!("tokenizer.ggml.{name}_token_id"))?;
        (id < self.pieces.len()).then_some(id as u32)
    }

    fn text_of(&self, file: &GgufFile, name: &str) -> Option<String> {
        self.id_of(file, name).map(|id| self.pieces[id as usize].text.clone())
    }

    /// What goes around a text; `bos` is whether this kind of tokenizer begins with BOS when the file does not say.
    fn surroundings(&self, file: &GgufFile, bos: bool) -> Options {
        let wanted = |name: &str, default: bool| {
            let add = file.flag(&format!("tokenizer.ggml.add_{name}_token")).unwrap_or(default);
            if add { self.id_of(file, name) } else { None }
        };
        Options {
            space_prefix: file.flag("tokenizer.ggml.add_space_prefix").unwrap_or(true),
            bos: wanted("bos", bos),
            eos: wanted("eos", false),
        }
    }
}

fn byte_level(file: &GgufFile, vocabulary: &Vocabulary) -> Result<Tokenizer> {
    let name = file.text("tokenizer.ggml.pre").unwrap_or("(none)");
    let words = Words::parse(name)
        .ok_or_else(|| file.wrong(format!("cuts words in the manner `{name}`; supported are {}", Words::known())))?;
    let merges = texts(file, "merges")?
        .into_iter()
        .map(|line| match line.split_once(' ') {
            Some((left, right)) => Ok((left.to_owned(), right.to_owned())),
            None => Err(file.wrong(format!("has the merge `{line}`, which is not two tokens"))),
        })
        .collect::<Result<Vec<_>>>()?;
    let vocab = vocabulary.pieces.iter().enumerate().map(|(id, p)| (p.text.clone(), id as u32));
    let make = || -> tokenizers::Result<Tokenizer> {
        let model = BPE::builder().vocab_and_merges(vocab.collect::<tokenizers::models::bpe::Vocab>(), merges);
        let mut tokenizer = Tokenizer::new(model.ignore_merges(words.as_llama3()).build()?);
        if words == Words::Qwen2 {
            tokenizer.with_normalizer(Some(NFC))?;
        }
        tokenizer.with_pre_tokenizer(Some(Sequence::new(words.splitters()?)));
        tokenizer.with_decoder(Some(ByteLevel::default()));
        add_tokens(&mut tokenizer, vocabulary.pieces.iter().map(|p| (p.text.as_str(), p.kind)))?;
        let Options { bos, eos, .. } = vocabulary.surroundings(file, words.as_llama3());
        surround(&mut tokenizer, bos, eos)?;
        Ok(tokenizer)
    };
    make().map_err(|e| file.wrong(format!("has a tokenizer that does not fit together ({e})")))
}

fn texts(file: &GgufFile, name: &str) -> Result<Vec<String>> {
    let items = file
        .list(&format!("tokenizer.ggml.{name}"))
        .ok_or_else(|| file.wrong(format!("has no `tokenizer.ggml.{name}` in its metadata")))?;
    items
        .iter()
        .map(|item| match item {
            Value::String(text) => Ok(text.clone()),
            _ => Err::<String, Error>(file.wrong(format!("has an entry in `tokenizer.ggml.{name}` that is not text"))),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_llama_cpp_takes_for_one_another_are_cut_alike() {
        for (words, names) in [
            (Words::Gpt2, "gpt-2 mellum a.x-4.0"),
            (Words::Qwen2, "qwen2 deepseek-r1-qwen megrez kormo f2llmv2"),
            (Words::Llama3, "llama-bpe llama3 llama-v3 falcon3 pixtral midm-2.0"),
            (Words::Tekken, "tekken"),
        ] {
            for name in names.split(' ') {
                assert_eq!(Words::parse(name), Some(words), "{name}");
                assert!(Words::known().contains(name), "{name} is among what an error says there is");
            }
        }
        // Words of another pattern: they are refused, not cut as those of a like name.
        for name in ["llama4", "qwen35", "deepseek-llm", "default", ""] {
            assert_eq!(Words::parse(name), None, "{name}");
        }
    }
}
