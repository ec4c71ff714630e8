//! A model with planted outliers: large constants in a few key channels, as Qwen2's key bias has them.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};

use super::Bench;

/// Added to one channel of every key head. Qwen2-7B's biases reach several hundred.
const OUTLIER: f32 = 100.0;

/// Writes the built-in model as a Qwen2 whose key bias is zero but for the slowest channel of each head. That channel turns
/// by 0.07 rad over 512 tokens: the bias adds nearly the same to the score of every key, which softmax ignores.
fn plant(folder: &Path, outlier: f32) {
    let builtin = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/model/builtin");
    let mut tensors: HashMap<String, Tensor> =
        candle_core::safetensors::load(builtin.join("model.safetensors"), &Device::Cpu).unwrap();
    let mut config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(builtin.join("config.json")).unwrap()).unwrap();
    let size = |key: &str| config[key].as_u64().unwrap() as usize;
    let (layers, heads, kv_heads, head_dim) =
        (size("num_hidden_layers"), size("num_attention_heads"), size("num_key_value_heads"), size("head_dim"));
    for layer in 0..layers {
        let mut bias = vec![0f32; kv_heads * head_dim];
        bias.iter_mut().skip(head_dim / 2 - 1).step_by(head_dim).for_each(|b| *b = outlier);
        let zeros = |n: usize| Tensor::zeros(n, DType::F32, &Device::Cpu).unwrap();
        let name = |part: &str| format!("model.layers.{layer}.self_attn.{part}_proj.bias");
        tensors.insert(name("q"), zeros(heads * head_dim));
        tensors.insert(name("k"), Tensor::from_vec(bias, kv_heads * head_dim, &Device::Cpu).unwrap());
        tensors.insert(name("v"), zeros(kv_heads * head_dim));
    }
    candle_core::safetensors::save(&tensors, folder.join("model.safetensors")).unwrap();
    config["model_type"] = "qwen2".into();
    config["architectures"] = serde_json::json!(["Qwen2ForCausalLM"]);
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    std::fs::copy(builtin.join("tokenizer.json"), folder.join("tokenizer.json")).unwrap();
}

/// ln(PPL ratio) of a quantization on the planted model.
fn ln_ratios(outlier: f32, quantizations: &[&str]) -> Vec<f64> {
    let folder = tempfile::tempdir().unwrap();
    plant(folder.path(), outlier);
    let mut bench = Bench::of(folder.path().to_str().unwrap());
    bench.settings.ppl_data = Some("builtin".into());
    bench.settings.ppl_window = Some(512);
    bench.settings.ppl_tokens = 512;
    let ratio = |q: &&str| bench.run("ppl", q).unwrap().perplexity_quantized.unwrap().ln_ratio.unwrap();
    quantizations.iter().map(ratio).collect()
}

#[test]
fn key_outliers_break_per_token_int4_and_spare_per_channel_int4() {
    let quantizations = ["int4-quanto", "int4-hqq-token", "int4-hqq", "int4-kivi"];
    let planted = ln_ratios(OUTLIER, &quantizations);
    eprintln!("ln(PPL ratio) with outliers of {OUTLIER}: {quantizations:?} {planted:?}");
    assert!(planted[0] > 0.5 && planted[1] > 0.5, "per-token keys survive: {planted:?}");
    assert!(planted[2] < 0.1 && planted[3] < 0.1, "per-channel keys collapse: {planted:?}");
    // Spread over all channels of its head, an outlier is a sign of equal size in each, which widens a group far less.
    let spread = ln_ratios(OUTLIER, &["int4-quanto,hadamard=k", "int4-hqq,hadamard=k"]);
    eprintln!("keys transformed: {spread:?}");
    assert!(spread.iter().all(|ratio| *ratio < 0.1), "{spread:?}, were {planted:?}");
    // The same model without them loses nothing to speak of either way: it is the outliers.
    let plain = ln_ratios(0.0, &quantizations[..2]);
    assert!(plain.iter().all(|ratio| *ratio < 0.1), "{plain:?}");
}
