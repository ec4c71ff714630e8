//! stories260K of llama2.c: its published greedy text, token by token, through an importer of its v0 format.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use kvprof::base::progress::Silent;
use kvprof::cache;
use kvprof::model::generate::{Chunks, Prompt, greedy};
use kvprof::model::tokenizer::sentencepiece::{Options, Piece, PieceKind};
use kvprof::model::weights::Weights;
use kvprof::model::weights::gguf::separate_halves;
use kvprof::model::{Decoder, Tokenizer, attention, families};
use kvprof::quant::QuantSpec;
use kvprof::{Error, Result};

use crate::support::development_data;

/// Reads little-endian numbers one after the other.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn word(&mut self) -> [u8; 4] {
        let (word, rest) = self.0.split_at(4);
        self.0 = rest;
        word.try_into().unwrap()
    }

    fn size(&mut self) -> usize {
        i32::from_le_bytes(self.word()).try_into().unwrap()
    }

    fn tensor(&mut self, shape: &[usize]) -> Tensor {
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| f32::from_le_bytes(self.word())).collect();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
    }
}

/// Tensors under the names of Hugging Face's Llama.
struct Imported(HashMap<String, Tensor>);

impl Weights for Imported {
    fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    fn load(&self, name: &str, _: &[usize], _: DType, _: &Device) -> Result<Tensor> {
        self.0.get(name).cloned().ok_or_else(|| self.fault(name, "is missing"))
    }

    fn fault(&self, name: &str, message: &str) -> Error {
        Error::file("stories260K.bin", format!("tensor `{name}` {message}"))
    }
}

/// The v0 format: seven sizes, then each kind of tensor for all layers; queries and keys rotate neighbouring channels.
fn import_model(path: &Path) -> Decoder {
    let bytes = std::fs::read(path).unwrap();
    let mut reader = Reader(&bytes);
    let [hidden, intermediate, layers, heads, kv_heads, vocab, positions] = std::array::from_fn(|_| reader.size());
    let kv_rows = hidden / heads * kv_heads;
    let mut tensors = HashMap::new();
    tensors.insert("model.embed_tokens.weight".to_owned(), reader.tensor(&[vocab, hidden]));
    let per_layer: [(&str, Vec<usize>); 9] = [
        ("input_layernorm", vec![hidden]),
        ("self_attn.q_proj", vec![hidden, hidden]),
        ("self_attn.k_proj", vec![kv_rows, hidden]),
        ("self_attn.v_proj", vec![kv_rows, hidden]),
        ("self_attn.o_proj", vec![hidden, hidden]),
        ("post_attention_layernorm", vec![hidden]),
        ("mlp.gate_proj", vec![intermediate, hidden]),
        ("mlp.down_proj", vec![hidden, intermediate]),
        ("mlp.up_proj", vec![intermediate, hidden]),
    ];
    for (part, shape) in per_layer {
        for layer in 0..layers {
            let tensor = reader.tensor(&shape);
            let tensor = match part {
                "self_attn.q_proj" => separate_halves(&tensor, heads).unwrap(),
                "self_attn.k_proj" => separate_halves(&tensor, kv_heads).unwrap(),
                _ => tensor,
            };
            tensors.insert(format!("model.layers.{layer}.{part}.weight"), tensor);
        }
    }
    tensors.insert("model.norm.weight".to_owned(), reader.tensor(&[hidden]));
    let config = serde_json::json!({
        "model_type": "llama", "hidden_size": hidden, "intermediate_size": intermediate, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": kv_heads, "vocab_size": vocab,
        "max_position_embeddings": positions, "rms_norm_eps": 1e-5, "tie_word_embeddings": true,
        "bos_token_id": 1, "eos_token_id": [1, 2],
    });
    let (config, names) = families::read_config(Path::new("stories260K"), &config.to_string()).unwrap();
    Decoder::load(config, &names, &Imported(tensors), DType::F32, &Device::Cpu, &mut |_, _| ()).unwrap()
}

/// Longest piece, then for each piece its score, length and text; spaces are spaces.
fn import_tokenizer(path: &Path) -> Tokenizer {
    let bytes = std::fs::read(path).unwrap();
    let mut reader = Reader(&bytes);
    reader.size();
    let mut pieces = Vec::new();
    while !reader.0.is_empty() {
        let score = f32::from_le_bytes(reader.word());
        let length = reader.size();
        let (text, rest) = reader.0.split_at(length);
        reader.0 = rest;
        let kind = match pieces.len() {
            0 => PieceKind::Unknown,
            1 | 2 => PieceKind::Control,
            3..259 => PieceKind::Byte,
            _ => PieceKind::Normal,
        };
        pieces.push(Piece { text: String::from_utf8(text.to_vec()).unwrap().replace(' ', "\u{2581}"), score, kind });
    }
    let options = Options { space_prefix: true, bos: Some(1), eos: None };
    Tokenizer::from_pieces(&pieces, &options).unwrap()
}

#[test]
fn stories260k_tells_its_published_story_token_by_token() {
    let Some(folder) = development_data("stories260k") else { return };
    let page = std::fs::read_to_string(folder.join("stories260K.md")).unwrap();
    let (_, after) = page.split_once("-t 0.0\n").unwrap();
    let (story, _) = after.split_once("\n```").unwrap();
    let decoder = import_model(&folder.join("stories260K.bin"));
    let tokenizer = import_tokenizer(&folder.join("tok512.bin"));
    for backend in attention::NAMES {
        let shape = decoder.config().cache_shape(1, 257, 64, DType::F32, &Device::Cpu);
        let mut cache = cache::new(QuantSpec::none(), shape).unwrap();
        let attention = attention::new(backend).unwrap();
        let prompt = [Prompt { tokens: &tokenizer.encode("", true).unwrap(), most: 256 }];
        let generated = greedy(&decoder, &prompt, cache.as_mut(), attention.as_ref(), Chunks::of(64), &Silent)
            .unwrap()
            .remove(0)
            .tokens;
        for count in 1..=generated.len() {
            let text = tokenizer.decode(&[&[1], &generated[..count]].concat()).unwrap();
            assert!(story.starts_with(&text), "{backend}, token {count}: {text:?}");
        }
        assert!(generated.len() > 200, "{} tokens", generated.len());
        assert_eq!(tokenizer.decode(&generated).unwrap(), story);
        // The tokenizer finds the same tokens in the text that the model chose.
        assert_eq!(tokenizer.encode(story, true).unwrap()[1..], generated[..]);
    }
}
