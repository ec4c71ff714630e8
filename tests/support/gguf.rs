//! GGUF files made from fixtures, as llama.cpp's conversion writes them and `llama-gguf-split` splits them.

use std::fs::File;
use std::path::{Path, PathBuf};

use candle_core::quantized::gguf_file::{self, Content, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};

use super::fixture;

/// GGUF's name of a Hugging Face tensor.
fn gguf_name(name: &str) -> String {
    let mut name = name.to_owned();
    for (theirs, ours) in [
        ("model.layers.", "blk."),
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("lm_head", "output"),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("self_attn.o_proj", "attn_output"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ] {
        name = name.replace(theirs, ours);
    }
    name
}

/// What llama.cpp's conversion does to the rows of Llama's queries and keys.
fn interleave(rows: &Tensor, heads: usize) -> Tensor {
    let (count, inputs) = rows.dims2().unwrap();
    let halves = rows.reshape((heads, 2, count / heads / 2, inputs)).unwrap();
    halves.transpose(1, 2).unwrap().contiguous().unwrap().reshape((count, inputs)).unwrap()
}

/// Writes the weights of fixture `name` as a GGUF file of architecture `architecture`, with `more` metadata: the architecture's, or by
/// their whole names the tokenizer's and general ones.
pub fn convert(name: &str, architecture: &str, more: &[(&str, Value)], path: &Path) {
    convert_with(name, architecture, more, None, path);
}

/// The same with one more tensor.
pub fn convert_with(
    name: &str,
    architecture: &str,
    more: &[(&str, Value)],
    tensor: Option<(&str, Tensor)>,
    path: &Path,
) {
    let weights = candle_core::safetensors::load(fixture("models").join(name).join("model.safetensors"), &Device::Cpu);
    let mut tensors = Vec::new();
    for (name, tensor) in weights.unwrap() {
        let tensor = match (architecture, name.contains("q_proj"), name.contains("k_proj")) {
            ("llama", true, _) => interleave(&tensor, 4),
            ("llama", _, true) => interleave(&tensor, 2),
            _ => tensor,
        };
        tensors.push((gguf_name(&name), QTensor::quantize(&tensor, GgmlDType::F32).unwrap()));
    }
    tensors.extend(tensor.map(|(name, tensor)| (name.to_owned(), QTensor::quantize(&tensor, GgmlDType::F32).unwrap())));
    let layers = tensors.iter().filter(|(name, _)| name.ends_with("attn_norm.weight")).count() as u32;
    let key = |name: &str| match name.split('.').next() {
        Some("tokenizer" | "general") => name.to_owned(),
        _ => format!("{architecture}.{name}"),
    };
    let mut metadata = vec![
        ("general.architecture".to_owned(), Value::String(architecture.to_owned())),
        ("general.alignment".to_owned(), Value::U32(32)),
        (key("block_count"), Value::U32(layers)),
        (key("context_length"), Value::U32(256)),
        (key("embedding_length"), Value::U32(32)),
        (key("feed_forward_length"), Value::U32(48)),
        (key("attention.head_count"), Value::U32(4)),
        (key("attention.head_count_kv"), Value::U32(2)),
        ("tokenizer.ggml.model".to_owned(), Value::String("llama".to_owned())),
        ("tokenizer.ggml.tokens".to_owned(), strings((0..96).map(|i| format!("piece{i}")))),
        ("tokenizer.ggml.bos_token_id".to_owned(), Value::U32(1)),
        ("tokenizer.ggml.eos_token_id".to_owned(), Value::U32(2)),
    ];
    metadata.extend(more.iter().map(|(name, value)| (key(name), value.clone())));
    let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(name, value)| (name.as_str(), value)).collect();
    let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    gguf_file::write(&mut File::create(path).unwrap(), &metadata, &tensors).unwrap();
}

pub fn strings(texts: impl Iterator<Item = String>) -> Value {
    Value::Array(texts.map(Value::String).collect())
}

/// What the parts of a model say of it.
#[derive(Clone, Copy)]
pub struct Told {
    pub no: u16,
    pub count: u16,
    pub tensors: i32,
}

/// Writes a part with `tensors`, and with `metadata` if it is the first.
pub fn write_part(path: &Path, told: Told, metadata: &[(&str, &Value)], tensors: &[(&str, &QTensor)]) {
    let (no, count, total) = (Value::U16(told.no), Value::U16(told.count), Value::I32(told.tensors));
    let mut all = vec![("split.no", &no), ("split.count", &count), ("split.tensors.count", &total)];
    all.extend_from_slice(metadata);
    gguf_file::write(&mut File::create(path).unwrap(), &all, tensors).unwrap();
}

/// Splits the file at `whole` into parts beside it, the tensors in order of their names: the first part holds the first `ends[0]`, the next those
/// up to `ends[1]`, the last those that are left.
pub fn split(whole: &Path, ends: &[usize]) -> Vec<PathBuf> {
    let mut file = File::open(whole).unwrap();
    let content = Content::read(&mut file).unwrap();
    let mut names: Vec<&str> = content.tensor_infos.keys().map(String::as_str).collect();
    names.sort_unstable();
    let tensors: Vec<QTensor> =
        names.iter().map(|name| content.tensor(&mut file, name, &Device::Cpu).unwrap()).collect();
    let tensors: Vec<(&str, &QTensor)> = names.iter().copied().zip(&tensors).collect();
    let metadata: Vec<(&str, &Value)> = content.metadata.iter().map(|(key, value)| (key.as_str(), value)).collect();
    let (stem, count) = (whole.file_stem().unwrap().to_str().unwrap(), ends.len() + 1);
    let bounds: Vec<usize> = [&[0], ends, &[tensors.len()]].concat();
    let write = |no: usize| {
        let path = whole.with_file_name(format!("{stem}-{:05}-of-{count:05}.gguf", no + 1));
        let told = Told { no: no as u16, count: count as u16, tensors: tensors.len() as i32 };
        write_part(&path, told, if no == 0 { &metadata } else { &[] }, &tensors[bounds[no]..bounds[no + 1]]);
        path
    };
    (0..count).map(write).collect()
}

/// A llama whose logits `llama/expected.linear.safetensors` has, named `name`, in one file.
pub fn llama(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    let more = [
        ("rope.scaling.factor", Value::F32(4.0)),
        ("attention.layer_norm_rms_epsilon", Value::F32(1e-5)),
        ("rope.freq_base", Value::F32(10_000.0)),
    ];
    convert("llama", "llama", &more, &path);
    path
}
