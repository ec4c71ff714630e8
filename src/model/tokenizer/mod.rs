//! Text to token ids and back, from a tokenizer.json or a GGUF file's metadata.

mod gguf;
pub mod sentencepiece;

use std::path::Path;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::source::ModelFiles;
use super::weights::gguf::GgufFile;
use crate::base::hex::hex;
use crate::{Error, Result};

/// A model's chat template, not yet rendered, and the texts of the special tokens that templates use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatTemplate {
    /// Jinja source.
    pub source: String,
    /// `bos_token`.
    pub bos_token: Option<String>,
    /// `eos_token`.
    pub eos_token: Option<String>,
}

/// Classes of transformers that put BOS before a text, and EOS after it, by tokenizer_config.json, whatever tokenizer.json does
/// (`LlamaTokenizerFast.update_post_processor`). DeepSeek-R1-Distill's, Qwen's too, say so only there.
const LLAMA_CLASSES: [&str; 4] =
    ["LlamaTokenizer", "LlamaTokenizerFast", "CodeLlamaTokenizer", "CodeLlamaTokenizerFast"];

/// A tokenizer with neither truncation nor padding.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    chat_template: Option<ChatTemplate>,
    /// `eos_token` of tokenizer_config.json.
    end: Option<u32>,
    /// Ids from here on have no embedding.
    limit: u32,
    /// What tokenizer_config.json puts around a text, where that is not what tokenizer.json does.
    surrounded: Option<Vec<u32>>,
    /// SHA-256 of its tokenizer.json; `None` where it was made from something else.
    json_sha256: Option<String>,
}

impl Tokenizer {
    /// Reads the bytes of a tokenizer.json; `path` is named in errors.
    ///
    /// # Errors
    /// [`Error::File`] when they are not one.
    pub fn from_json(path: &Path, bytes: &[u8]) -> Result<Self> {
        let inner = tokenizers::Tokenizer::from_bytes(bytes).map_err(|e| {
            Error::file(path, format!("is not a tokenizer.json that can be read ({e}); fetch it again"))
        })?;
        Ok(Tokenizer { json_sha256: Some(hex(&Sha256::digest(bytes))), ..Self::from_parts(inner)? })
    }

    /// The tokenizer of a model's files; `None` when they have none.
    ///
    /// # Errors
    /// As [`from_json`](Self::from_json), for the configuration and the chat template too.
    pub fn from_files(files: &ModelFiles) -> Result<Option<Self>> {
        let Some(path) = &files.tokenizer else { return Ok(None) };
        let read = |path: &Path| std::fs::read(path).map_err(|e| Error::io(path, e));
        let mut tokenizer = Self::from_json(path, &read(path)?)?;
        let config: Value = match &files.tokenizer_config {
            Some(path) => serde_json::from_slice(&read(path)?)
                .map_err(|e| Error::file(path, format!("is not valid JSON ({e}); fetch it again")))?,
            None => Value::Null,
        };
        let (bos_token, eos_token) = (token_text(&config["bos_token"]), token_text(&config["eos_token"]));
        tokenizer.end = eos_token.as_deref().and_then(|token| tokenizer.inner.token_to_id(token));
        if let Some(config_path) = &files.tokenizer_config {
            tokenizer.surround_as_llama(config_path, &config)?;
        }
        tokenizer.chat_template = chat_template(&config);
        if let Some(path) = &files.chat_template {
            let source = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
            tokenizer.chat_template = Some(ChatTemplate { source, bos_token, eos_token });
        }
        Ok(Some(tokenizer))
    }

    /// Puts around a text what tokenizer_config.json says, where it names one of [`LLAMA_CLASSES`].
    fn surround_as_llama(&mut self, path: &Path, config: &Value) -> Result<()> {
        if !config["tokenizer_class"].as_str().is_some_and(|class| LLAMA_CLASSES.contains(&class)) {
            return Ok(());
        }
        let token = |name: &str, by_default: bool, usual: &str| {
            if !config[format!("add_{name}_token")].as_bool().unwrap_or(by_default) {
                return Ok(None);
            }
            let text = token_text(&config[format!("{name}_token")]).unwrap_or_else(|| usual.into());
            let id = self.inner.token_to_id(&text);
            let missing =
                || Error::file(path, format!("asks for `{text}` around a text, which tokenizer.json does not have"));
            id.ok_or_else(missing).map(Some)
        };
        let (bos, eos) = (token("bos", true, "<s>")?, token("eos", false, "</s>")?);
        let wanted: Vec<u32> = bos.into_iter().chain(eos).collect();
        if self.encode("", true)? != wanted {
            sentencepiece::surround(&mut self.inner, bos, eos)
                .map_err(|e| Error::file(path, format!("has special tokens that cannot be put around a text ({e})")))?;
            self.surrounded = Some(wanted);
        }
        Ok(())
    }

    /// The tokenizer that a GGUF file describes.
    ///
    /// # Errors
    /// [`Error::File`] when its kind is unknown, with the known kinds, or its lists do not fit together.
    pub fn from_gguf(file: &GgufFile) -> Result<Self> {
        let (inner, chat_template) = gguf::build(file)?;
        Ok(Tokenizer { chat_template, ..Self::from_parts(inner)? })
    }

    /// A SentencePiece BPE vocabulary: see [`sentencepiece::build`].
    ///
    /// # Errors
    /// [`Error::Usage`] when the pieces do not make a tokenizer.
    pub fn from_pieces(pieces: &[sentencepiece::Piece], options: &sentencepiece::Options) -> Result<Self> {
        let inner = sentencepiece::build(pieces, options)
            .map_err(|e| Error::usage(format!("the pieces do not make a tokenizer: {e}")))?;
        Self::from_parts(inner)
    }

    fn from_parts(mut inner: tokenizers::Tokenizer) -> Result<Self> {
        // A published tokenizer.json may cut texts off (gpt2's does, at 50 tokens), which would pass unseen.
        inner.with_truncation(None).map_err(|e| Error::usage(format!("tokenizer: {e}")))?;
        inner.with_padding(None);
        Ok(Tokenizer { inner, chat_template: None, end: None, limit: u32::MAX, surrounded: None, json_sha256: None })
    }

    /// Token ids of `text`. `special` adds what the model wants around a text, a leading BOS for most and nothing for
    /// others; names of special tokens inside `text` become those tokens either way.
    ///
    /// # Errors
    /// [`Error::Usage`] when the tokenizer refuses the text, or the model has no embedding for a token of it.
    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>> {
        let encoding = self
            .inner
            .encode_fast(text, special)
            .map_err(|e| Error::usage(format!("the text cannot be tokenized: {e}")))?;
        let ids = encoding.get_ids();
        if let Some(id) = ids.iter().find(|&&id| id >= self.limit) {
            let (token, limit) = (self.inner.id_to_token(*id).unwrap_or_default(), self.limit);
            return Err(Error::usage(format!(
                "the text has the token `{token}` ({id}); the model knows {limit} tokens"
            )));
        }
        Ok(ids.to_vec())
    }

    /// Text of `ids`, special tokens left out.
    ///
    /// # Errors
    /// [`Error::Usage`] when the tokenizer refuses the ids.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.inner.decode(ids, true).map_err(|e| Error::usage(format!("the tokens cannot be turned to text: {e}")))
    }

    /// Lets ids below `vocab` pass only; some tokenizers have added tokens that their model never learned.
    ///
    /// # Errors
    /// [`Error::Usage`] when that leaves out more than added tokens: this is the tokenizer of another model.
    pub fn limit_to(mut self, vocab: usize) -> Result<Self> {
        let own = self.inner.get_vocab_size(false);
        if own > vocab {
            return Err(Error::usage(format!(
                "the tokenizer has {own} tokens and the model knows {vocab}: they do not belong together"
            )));
        }
        self.limit = vocab as u32;
        Ok(self)
    }

    /// SHA-256 of its tokenizer.json, or of that with the chat template, where there is one, and with what tokenizer_config.json alone puts around a
    /// text: what decides which tokens a text or a question becomes. `None` for a tokenizer that was not read from a tokenizer.json, as a GGUF file's.
    pub fn sha256(&self) -> Option<String> {
        let json = self.json_sha256.as_ref()?;
        let mut parts = vec![json.clone()];
        parts.extend(self.surrounded.as_ref().map(|ids| format!("{ids:?}")));
        parts.extend(self.chat_template.as_ref().map(|template| format!("{template:?}")));
        Some(if parts.len() == 1 { json.clone() } else { hex(&Sha256::digest(parts.join(" "))) })
    }

    /// The token that ends a text by tokenizer_config.json; a chat fine-tune may name it nowhere else.
    pub fn end(&self) -> Option<u32> {
        self.end
    }

    /// The model's chat template, if it was trained to chat.
    pub fn chat_template(&self) -> Option<&ChatTemplate> {
        self.chat_template.as_ref()
    }
}

/// `chat_template` of tokenizer_config.json: a text, or a list of named ones of which `default` is taken.
fn chat_template(config: &Value) -> Option<ChatTemplate> {
    let source = match &config["chat_template"] {
        Value::String(source) => source.clone(),
        Value::Array(named) => {
            let default = named.iter().find(|t| t["name"] == "default").or_else(|| named.first())?;
            default["template"].as_str()?.to_owned()
        }
        _ => return None,
    };
    Some(ChatTemplate {
        source,
        bos_token: token_text(&config["bos_token"]),
        eos_token: token_text(&config["eos_token"]),
    })
}

/// A special token is written as its text or as a group of fields.
fn token_text(value: &Value) -> Option<String> {
    value.as_str().or_else(|| value["content"].as_str()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_found_in_every_form_they_are_published_in() {
        let plain = serde_json::json!({"chat_template": "{{x}}", "eos_token": {"content": "</s>"}, "bos_token": "<s>"});
        let template = chat_template(&plain).unwrap();
        assert_eq!((template.source.as_str(), template.eos_token.as_deref()), ("{{x}}", Some("</s>")));
        assert_eq!(template.bos_token.as_deref(), Some("<s>"));
        let named = serde_json::json!({"chat_template": [
            {"name": "tool_use", "template": "a"}, {"name": "default", "template": "b"}
        ]});
        assert_eq!(chat_template(&named).unwrap().source, "b");
        assert!(chat_template(&serde_json::json!({})).is_none());
    }

    #[test]
    fn a_template_needs_no_tokenizer_config_which_may_alone_name_the_token_that_ends_a_text() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, content: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, content).unwrap();
            Some(path)
        };
        let json = r#"{"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 0, "</s>": 1}, "merges": []}}"#;
        let tokenizer = file("tokenizer.json", json);
        let template = ModelFiles {
            tokenizer: tokenizer.clone(),
            chat_template: file("chat_template.jinja", "{{x}}"),
            ..Default::default()
        };
        let read = Tokenizer::from_files(&template).unwrap().unwrap();
        assert_eq!((read.chat_template().unwrap().source.as_str(), read.end()), ("{{x}}", None));
        let config = file("tokenizer_config.json", r#"{"eos_token": {"content": "</s>"}}"#);
        let files = ModelFiles { tokenizer, tokenizer_config: config, ..Default::default() };
        assert_eq!(Tokenizer::from_files(&files).unwrap().unwrap().end(), Some(1));
    }

    #[test]
    fn llama_classes_put_bos_before_a_text_though_only_tokenizer_config_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let post = r#"{"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}}"#;
        let read = |post: &str, config: &str| {
            let json = format!(
                r#"{{"version": "1.0", "post_processor": {post},
                "model": {{"type": "BPE", "vocab": {{"a": 0, "<s>": 1, "</s>": 2}}, "merges": []}}}}"#
            );
            let (tokenizer, tokenizer_config) = (folder.path().join("t.json"), folder.path().join("c.json"));
            std::fs::write(&tokenizer, json).unwrap();
            std::fs::write(&tokenizer_config, config).unwrap();
            let files = ModelFiles {
                tokenizer: Some(tokenizer),
                tokenizer_config: Some(tokenizer_config),
                ..Default::default()
            };
            Tokenizer::from_files(&files).map(Option::unwrap)
        };
        let ids = |post: &str, config: &str| read(post, config).unwrap().encode("a", true).unwrap();
        let digest = |post: &str, config: &str| read(post, config).unwrap().sha256().unwrap();
        let fast = r#"{"tokenizer_class": "LlamaTokenizerFast"}"#;
        let without = r#"{"tokenizer_class": "LlamaTokenizerFast", "add_bos_token": false}"#;
        let both =
            r#"{"tokenizer_class": "CodeLlamaTokenizer", "add_eos_token": true, "bos_token": {"content": "<s>"}}"#;
        let other = r#"{"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": true}"#;
        assert_eq!((ids("null", fast), ids(post, fast)), (vec![1, 0], vec![1, 0]));
        assert_eq!((ids("null", without), ids(post, without)), (vec![0], vec![0]));
        assert_eq!(ids("null", both), [1, 0, 2]);
        assert_eq!((ids("null", other), ids(post, other)), (vec![0], vec![1, 0]));
        assert_eq!(read("null", fast).unwrap().encode("a", false).unwrap(), [0]);
        // What tokenizer.json does by itself is in its own digest.
        assert_eq!(digest(post, fast), digest(post, other));
        assert_ne!(digest("null", fast), digest("null", other));
        assert_ne!(digest("null", fast), digest("null", both));
        let error = read("null", r#"{"tokenizer_class": "LlamaTokenizer", "bos_token": "<bos>"}"#).unwrap_err();
        assert!(error.is_usage() && error.to_string().contains("`<bos>`"), "{error}");
    }

    #[test]
    fn tokens_that_the_model_never_learned_are_refused() {
        let json = br#"{"version": "1.0", "added_tokens": [{"id": 2, "content": "<pad>", "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true}],
            "model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []}}"#;
        let tokenizer = Tokenizer::from_json(Path::new("tokenizer.json"), json).unwrap();
        assert_eq!(tokenizer.encode("ab<pad>", true).unwrap(), [0, 1, 2]);
        assert!(tokenizer.clone().limit_to(1).is_err());
        let limited = tokenizer.limit_to(2).unwrap();
        assert_eq!(limited.encode("ab", true).unwrap(), [0, 1]);
        let error = limited.encode("a<pad>", true).unwrap_err();
        assert!(error.is_usage() && error.to_string().contains("<pad>"), "{error}");
    }

    #[test]
    fn the_digest_changes_with_the_tokens_and_with_the_chat_template() {
        let tokenizer = |vocabulary: &str| {
            let json =
                format!(r#"{{"version": "1.0", "model": {{"type": "BPE", "vocab": {{{vocabulary}}}, "merges": []}}}}"#);
            Tokenizer::from_json(Path::new("tokenizer.json"), json.as_bytes()).unwrap()
        };
        let chat = |source: &str| {
            let chat_template = Some(ChatTemplate { source: source.into(), bos_token: None, eos_token: None });
            Tokenizer { chat_template, ..tokenizer(r#""a": 0"#) }.sha256().unwrap()
        };
        let plain = tokenizer(r#""a": 0"#).sha256().unwrap();
        assert_eq!(tokenizer(r#""a": 0"#).sha256(), Some(plain.clone()));
        let others = [tokenizer(r#""b": 0"#).sha256().unwrap(), chat("{{x}}"), chat("{{y}}")];
        assert_eq!(others.iter().chain([&plain]).collect::<std::collections::BTreeSet<_>>().len(), 4);
    }

    #[test]
    fn a_file_that_is_no_tokenizer_is_refused_by_name() {
        let error = Tokenizer::from_json(Path::new("t/tokenizer.json"), b"{\"model\"").unwrap_err();
        assert!(error.is_usage() && error.to_string().contains("t/tokenizer.json"), "{error}");
    }
}
