//! Loading whole models: what is recorded of them, and what bad files are answered with.

use std::path::Path;

use candle_core::DType;
use kvprof::Error;
use kvprof::model::{LoadOptions, Subject, WeightsKind};

use crate::support::fixture;

/// A copy of a fixture's folder that a test may damage.
fn copy_of(name: &str) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixture("models").join(name)).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
    }
    copy
}

fn load(path: &Path) -> Result<Subject, Error> {
    Subject::load(&LoadOptions::new(path.to_str().unwrap()))
}

/// The message with which loading `path` fails; it must be one line and the user's to mend.
fn refusal(path: &Path) -> String {
    let error = load(path).unwrap_err();
    let message = error.to_string();
    assert!(error.is_usage(), "{message}");
    assert!(!message.contains('\n'), "{message}");
    message
}

#[test]
fn a_folder_loads_with_its_identity() {
    let subject = load(&fixture("models/gpt2")).unwrap();
    assert_eq!(subject.dtype, DType::F32);
    assert_eq!(subject.weights, WeightsKind::Trained);
    assert_eq!(subject.weights_sha256.as_deref().map(str::len), Some(64));
    assert_eq!(subject.revision, None);
    // Embedding, positions, two layers of norms, attention and MLP, final norm; the tied head counts once.
    let layer = 2 * 64 + (32 * 96 + 96) + (32 * 32 + 32) + (32 * 64 + 64) + (64 * 32 + 32);
    assert_eq!(subject.decoder.parameters(), 257 * 32 + 512 * 32 + 2 * layer + 64);
    assert_eq!(subject.weight_bytes(), 4 * subject.decoder.parameters());
    assert!(load(&fixture("models/yi")).unwrap().tokenizer().unwrap_err().to_string().contains("tokenizer.json"));
}

#[test]
fn dummy_weights_need_a_configuration_only_and_refuse_quality() {
    let config = fixture("models/mistral/config.json");
    assert!(refusal(&config).contains("--weights dummy"));
    let options = LoadOptions { weights: WeightsKind::Dummy, ..LoadOptions::new(config.to_str().unwrap()) };
    let subject = Subject::load(&options).unwrap();
    assert_eq!(subject.decoder.parameters(), load(&fixture("models/mistral")).unwrap().decoder.parameters());
    let error = subject.weights.require_trained("ppl").unwrap_err();
    assert!(error.is_usage() && error.to_string().contains("ppl"), "{error}");
}

#[test]
fn a_nan_in_the_weights_is_an_error_that_names_the_tensor_and_its_layer() {
    let folder = copy_of("llama");
    let path = folder.path().join("model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let header_bytes = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + header_bytes]).unwrap();
    let name = "model.layers.1.mlp.up_proj.weight";
    let start = 8 + header_bytes + header[name]["data_offsets"][0].as_u64().unwrap() as usize;
    for value in [f32::NAN, f32::INFINITY] {
        bytes[start + 40..start + 44].copy_from_slice(&value.to_le_bytes());
        std::fs::write(&path, &bytes).unwrap();
        let message = refusal(folder.path());
        assert!(message.contains(name) && message.contains("NaN"), "{message}");
    }
    // A value that only f16 cannot hold is not the file's fault.
    bytes[start + 40..start + 44].copy_from_slice(&1e6f32.to_le_bytes());
    std::fs::write(&path, &bytes).unwrap();
    let mut options = LoadOptions::new(folder.path().to_str().unwrap());
    assert!(Subject::load(&options).is_ok());
    options.dtype = "f16".parse().unwrap();
    let message = Subject::load(&options).unwrap_err().to_string();
    assert!(message.contains(name) && message.contains("use bf16 or f32"), "{message}");
}

#[test]
fn truncated_and_missing_weights_are_refused_by_name() {
    let folder = copy_of("yi");
    let part = folder.path().join("model-00002-of-00002.safetensors");
    let bytes = std::fs::read(&part).unwrap();
    std::fs::write(&part, &bytes[..bytes.len() - 100]).unwrap();
    assert!(refusal(folder.path()).contains("model-00002-of-00002.safetensors: is not a complete"));
    std::fs::remove_file(&part).unwrap();
    assert!(refusal(folder.path()).contains("model-00002-of-00002.safetensors is missing"));
}

#[test]
fn weights_of_another_configuration_are_refused_with_both_shapes() {
    let folder = copy_of("llama");
    let path = folder.path().join("config.json");
    let config = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, config.replace("\"intermediate_size\": 48", "\"intermediate_size\": 40")).unwrap();
    let message = refusal(folder.path());
    assert!(message.contains("[48, 32]") && message.contains("[40, 32]"), "{message}");
    std::fs::write(&path, config.replace("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3")).unwrap();
    assert!(refusal(folder.path()).contains("`model.layers.2."), "{}", refusal(folder.path()));
}

#[test]
fn an_embedding_models_names_without_their_prefix_are_the_same_tensors() {
    let folder = copy_of("qwen3");
    let path = folder.path().join("model.safetensors");
    let tensors = candle_core::safetensors::load(&path, &candle_core::Device::Cpu).unwrap();
    let bare: std::collections::HashMap<_, _> =
        tensors.into_iter().map(|(name, tensor)| (name.trim_start_matches("model.").to_owned(), tensor)).collect();
    assert!(bare.contains_key("embed_tokens.weight"));
    candle_core::safetensors::save(&bare, &path).unwrap();
    let parameters = |folder: &Path| load(folder).unwrap().decoder.parameters();
    assert_eq!(parameters(folder.path()), parameters(&fixture("models/qwen3")));
}

#[test]
fn a_context_that_the_rotation_does_not_reach_is_no_room_for_an_answer() {
    let folder = copy_of("llama");
    let path = folder.path().join("config.json");
    let config = std::fs::read_to_string(&path).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
    let mut positions = |scaling: serde_json::Value| {
        config["rope_scaling"] = scaling;
        std::fs::write(&path, config.to_string()).unwrap();
        let config = Subject::shape(&LoadOptions::new(folder.path().to_str().unwrap())).unwrap();
        (config.max_positions, config.usable_positions())
    };
    assert_eq!(positions(serde_json::json!({"type": "dynamic", "factor": 2.0})), (256, 256));
    let (most, usable) = positions(serde_json::json!({"type": "linear", "factor": 2.0}));
    assert!(most == 512 && usable > most, "{most} {usable}");
}

#[test]
fn weights_that_were_quantized_by_another_tool_are_refused() {
    let folder = copy_of("llama");
    let path = folder.path().join("config.json");
    let config = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, config.replacen('{', r#"{"quantization_config": {"quant_method": "gptq"},"#, 1)).unwrap();
    assert!(refusal(folder.path()).contains("gptq"));
    // Nor is it said of such weights that they fit.
    let options = LoadOptions::new(folder.path().to_str().unwrap());
    assert!(Subject::shape(&options).unwrap_err().to_string().contains("gptq"));
    assert!(Subject::shape(&LoadOptions { weights: WeightsKind::Dummy, ..options }).is_ok());
}

#[test]
fn a_damaged_tokenizer_is_refused_by_name() {
    let folder = copy_of("gpt2");
    std::fs::write(folder.path().join("tokenizer.json"), "{\"version\": \"1.0\"").unwrap();
    assert!(refusal(folder.path()).contains("tokenizer.json"));
}

#[test]
fn end_tokens_of_the_generation_configuration_are_added() {
    let folder = copy_of("llama");
    std::fs::write(folder.path().join("generation_config.json"), r#"{"eos_token_id": [7, 2]}"#).unwrap();
    assert_eq!(load(folder.path()).unwrap().config().eos, [2, 7]);
}

#[test]
fn a_text_ends_by_the_token_that_only_the_tokenizers_configuration_names() {
    let folder = tempfile::tempdir().unwrap();
    let builtin = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/model/builtin");
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        std::fs::copy(builtin.join(name), folder.path().join(name)).unwrap();
    }
    assert_eq!(load(folder.path()).unwrap().config().eos, [0]);
    std::fs::write(folder.path().join("tokenizer_config.json"), r#"{"eos_token": "!"}"#).unwrap();
    assert_eq!(load(folder.path()).unwrap().config().eos, [0, 1]);
}
