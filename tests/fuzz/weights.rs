//! Damaged checkpoints: headers that lie about counts, shapes and places, and tokenizers that do not fit together.

use std::path::Path;

use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{DType, Device, Tensor};
use kvprof::model::Tokenizer;
use kvprof::model::weights::Weights;
use kvprof::model::weights::gguf::{GgufFile, GgufWeights};
use kvprof::model::weights::safetensors::{SafetensorsWeights, indexed_files};

use super::feed;
use super::mutate::Mutator;

/// Each is written to the disk, and its tokenizer built.
const GGUF_FILES: usize = 8_000;
const SAFETENSORS_FILES: usize = 20_000;
const INDICES: usize = 20_000;

/// A GGUF model of two layers' names and few numbers, with a tokenizer of `kind`.
fn gguf(kind: &str) -> Vec<u8> {
    let texts = |texts: &[&str]| Value::Array(texts.iter().map(|&text| Value::String(text.into())).collect());
    let tokens = ["<unk>", "<s>", "</s>", "a", "b", "ab", "Ġa", "▁"];
    let metadata = [
        ("general.architecture", Value::String("llama".into())),
        ("general.alignment", Value::U32(32)),
        ("llama.block_count", Value::U32(1)),
        ("llama.context_length", Value::U32(256)),
        ("llama.embedding_length", Value::U64(32)),
        ("llama.feed_forward_length", Value::Array(vec![Value::I32(32)])),
        ("llama.attention.head_count", Value::U32(4)),
        ("llama.attention.head_count_kv", Value::U16(2)),
        ("llama.rope.freq_base", Value::F32(10_000.0)),
        ("llama.rope.scaling.type", Value::String("yarn".into())),
        ("llama.rope.scaling.factor", Value::F32(4.0)),
        ("split.count", Value::U16(1)),
        ("tokenizer.ggml.model", Value::String(kind.into())),
        ("tokenizer.ggml.pre", Value::String("qwen2".into())),
        ("tokenizer.ggml.tokens", texts(&tokens)),
        ("tokenizer.ggml.merges", texts(&["a b"])),
        ("tokenizer.ggml.scores", Value::Array(vec![Value::F32(-1.0); tokens.len()])),
        ("tokenizer.ggml.token_type", Value::Array([2, 3, 3, 1, 1, 1, 1, 1].map(Value::I32).to_vec())),
        ("tokenizer.ggml.bos_token_id", Value::U32(1)),
        ("tokenizer.ggml.eos_token_id", Value::U32(2)),
        ("tokenizer.ggml.add_eos_token", Value::Bool(true)),
    ];
    let tensor = |rows: usize, kind: GgmlDType| {
        QTensor::quantize(&Tensor::ones((rows, 32), DType::F32, &Device::Cpu).unwrap(), kind).unwrap()
    };
    let divisors = QTensor::quantize(&Tensor::ones(4, DType::F32, &Device::Cpu).unwrap(), GgmlDType::F32).unwrap();
    let (embedding, queries) = (tensor(tokens.len(), GgmlDType::Q8_0), tensor(32, GgmlDType::Q4_0));
    let tensors = [
        ("token_embd.weight", &embedding),
        ("blk.0.attn_q.weight", &queries),
        // Scaled either by divisors or by a factor.
        (if kind == "llama" { "rope_freqs.weight" } else { "blk.0.attn_q.bias" }, &divisors),
    ];
    let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(key, value)| (*key, value)).collect();
    let mut bytes = std::io::Cursor::new(Vec::new());
    gguf_file::write(&mut bytes, &metadata, &tensors).unwrap();
    bytes.into_inner()
}

/// Whether a GGUF file can be opened and means a model; whatever of it can be read then is.
fn reads_gguf(path: &Path) -> bool {
    let Ok(file) = GgufFile::open(path) else { return false };
    if let Ok(tokenizer) = Tokenizer::from_gguf(&file) {
        let _ = tokenizer.encode("abba ab", true).and_then(|ids| tokenizer.decode(&ids));
    }
    let Ok((config, _)) = file.config() else { return false };
    let weights = GgufWeights::new(&file, &config);
    for name in ["token_embd.weight", "blk.0.attn_q.weight", "blk.0.attn_q.bias", "rope_freqs.weight"] {
        let _ = weights.load(name, &[], DType::F32, &Device::Cpu);
    }
    true
}

#[test]
fn no_damaged_gguf_file_makes_its_reader_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    let reader = |input: &[u8]| {
        std::fs::write(&path, input).unwrap();
        reads_gguf(&path)
    };
    let seeds = [gguf("llama"), gguf("gpt2")];
    assert!(seeds.iter().all(|seed| reader(seed)), "the seeds are good");
    let tally = feed(&seeds, GGUF_FILES, &mut Mutator::binary(19), &reader);
    assert!(tally.accepted > GGUF_FILES / 20 && tally.refused > GGUF_FILES / 20, "{} accepted", tally.accepted);
}

#[test]
fn no_damaged_safetensors_file_makes_its_reader_panic() {
    let header = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"BF16","shape":[2,2],"data_offsets":[8,16]},
        "__metadata__":{"format":"pt"}}"#;
    let seed = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &[0; 16]].concat();
    let reader = |input: &[u8]| {
        let Ok(weights) = SafetensorsWeights::from_bytes("m.safetensors", Vec::from(input)) else { return false };
        ["a", "b"].iter().all(|name| weights.load(name, &[], DType::F32, &Device::Cpu).is_ok())
    };
    assert!(reader(&seed), "the seed is good");
    let tally = feed(&[seed], SAFETENSORS_FILES, &mut Mutator::binary(23), &reader);
    assert!(
        tally.accepted > SAFETENSORS_FILES / 50 && tally.refused > SAFETENSORS_FILES / 20,
        "{} accepted",
        tally.accepted
    );
}

#[test]
fn no_damaged_index_names_a_file_outside_its_folder() {
    let seed = br#"{"metadata": {"total_size": 16}, "weight_map": {"a": "model-1.safetensors", "b": "../model-2.safetensors"}}"#;
    let good = String::from_utf8_lossy(seed).replace("../", "").into_bytes();
    let reader = |input: &[u8]| {
        let Ok(text) = std::str::from_utf8(input) else { return false };
        match indexed_files(Path::new("model.safetensors.index.json"), text) {
            Ok(files) => {
                let outside = |file: &String| Path::new(file).components().count() != 1 || file == "..";
                assert!(!files.iter().any(outside), "{files:?}");
                true
            }
            Err(_) => false,
        }
    };
    let tally = feed(&[good, seed.to_vec()], INDICES, &mut Mutator::json(29), &reader);
    assert!(tally.accepted > INDICES / 20 && tally.refused > INDICES / 20, "{} accepted", tally.accepted);
}
