//! Every family against transformers' f32 logits (`tests/fixtures/make_models.py`), at all positions.

use std::collections::HashMap;
use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};
use kvprof::cache::{self, KvCache};
use kvprof::model::attention;
use kvprof::model::families::read_config;
use kvprof::model::weights::safetensors::SafetensorsWeights;
use kvprof::model::{Decoder, LogitsOf};
use kvprof::quant::QuantSpec;

use crate::support::fixture;

/// Folder and variant of each case.
const CASES: [(&str, Option<&str>); 11] = [
    ("gpt2", None),
    ("llama", None),
    ("llama", Some("yarn")),
    ("llama", Some("linear")),
    ("llama", Some("v5")),
    ("mistral", None),
    ("mistral", Some("full")),
    ("yi", None),
    ("qwen2", None),
    ("qwen2", Some("sliding")),
    ("qwen3", None),
];

struct Case {
    decoder: Decoder,
    /// `[B, T]`.
    tokens: Tensor,
    /// `[B, T, V]`.
    logits: Tensor,
}

fn load(name: &str, variant: Option<&str>) -> Case {
    let folder = fixture("models").join(name);
    let file = |stem: &str, extension: &str| match variant {
        Some(variant) => folder.join(format!("{stem}.{variant}.{extension}")),
        None => folder.join(format!("{stem}.{extension}")),
    };
    let config_path = file("config", "json");
    let (config, names) = read_config(&config_path, &std::fs::read_to_string(&config_path).unwrap()).unwrap();
    let weights = SafetensorsWeights::open(&weight_files(&folder)).unwrap();
    let decoder = Decoder::load(config, &names, &weights, DType::F32, &Device::Cpu, &mut |_, _| ()).unwrap();
    let mut expected: HashMap<String, Tensor> =
        candle_core::safetensors::load(file("expected", "safetensors"), &Device::Cpu).unwrap();
    let tokens = expected.remove("tokens").unwrap().to_dtype(DType::U32).unwrap();
    Case { decoder, tokens, logits: expected.remove("logits").unwrap() }
}

fn weight_files(folder: &std::path::Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            name.starts_with("model") && name.ends_with(".safetensors")
        })
        .collect();
    files.sort();
    files
}

impl Case {
    fn cache(&self) -> Box<dyn KvCache> {
        let (batch, tokens) = self.tokens.dims2().unwrap();
        let shape = self.decoder.config().cache_shape(batch, tokens, tokens, DType::F32, &Device::Cpu);
        cache::new(QuantSpec::none(), shape).unwrap()
    }

    /// Logits of all positions, fed `chunk` tokens at a time.
    fn run(&self, backend: &str, chunk: usize) -> Tensor {
        let attention = attention::new(backend).unwrap();
        let mut cache = self.cache();
        let count = self.tokens.dim(1).unwrap();
        let mut parts = Vec::new();
        for start in (0..count).step_by(chunk) {
            let tokens = self.tokens.narrow(1, start, chunk.min(count - start)).unwrap();
            parts.push(self.decoder.forward(&tokens, cache.as_mut(), attention.as_ref(), LogitsOf::All).unwrap());
        }
        assert_eq!(cache.len(), count);
        Tensor::cat(&parts, 1).unwrap()
    }
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!(a.dims(), b.dims());
    (a - b).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar().unwrap()
}

#[test]
fn every_family_matches_transformers_at_all_positions() {
    for (name, variant) in CASES {
        let case = load(name, variant);
        let whole = case.run("eager", case.tokens.dim(1).unwrap());
        let difference = largest_difference(&whole, &case.logits);
        assert!(difference < 1e-4, "{name} {variant:?}: logits differ by {difference}");
    }
}

#[test]
fn a_configuration_counts_the_parameters_that_are_loaded() {
    for (name, variant) in CASES {
        let decoder = load(name, variant).decoder;
        assert_eq!(decoder.config().parameters(), decoder.parameters(), "{name} {variant:?}");
    }
}

#[test]
fn a_chunked_cached_run_equals_the_uncached_one_in_every_backend() {
    for (name, variant) in CASES {
        let case = load(name, variant);
        for backend in attention::NAMES {
            for chunk in [1, 7, case.tokens.dim(1).unwrap()] {
                let difference = largest_difference(&case.run(backend, chunk), &case.logits);
                assert!(difference < 1e-4, "{name} {variant:?} {backend} by {chunk}: logits differ by {difference}");
            }
        }
    }
}

/// A second opinion that shares no file with the first: candle's own Llama, token by token through its concatenating cache.
#[test]
fn candles_own_llama_agrees() {
    use candle_transformers::models::llama::{Cache, Llama, LlamaConfig};
    let folder = fixture("models/llama");
    let config: LlamaConfig = serde_json::from_slice(&std::fs::read(folder.join("config.json")).unwrap()).unwrap();
    let config = config.into_config(false);
    let weights = candle_core::safetensors::load(folder.join("model.safetensors"), &Device::Cpu).unwrap();
    let weights = candle_nn::VarBuilder::from_tensors(weights, DType::F32, &Device::Cpu);
    let llama = Llama::load(weights, &config).unwrap();
    let case = load("llama", None);
    let mut cache = Cache::new(true, DType::F32, &config, &Device::Cpu).unwrap();
    let ours = case.run("fused", 5);
    for position in 0..case.tokens.dim(1).unwrap() {
        let token = case.tokens.narrow(1, position, 1).unwrap();
        let theirs = llama.forward(&token, position, &mut cache).unwrap();
        let difference = largest_difference(&ours.narrow(1, position, 1).unwrap().squeeze(1).unwrap(), &theirs);
        assert!(difference < 1e-4, "token {position}: logits differ by {difference}");
    }
}

#[test]
fn variants_of_the_same_weights_do_differ() {
    // Else a configuration field that is ignored would pass unseen.
    for (name, a, b) in [
        ("llama", None, Some("yarn")),
        ("llama", None, Some("linear")),
        ("mistral", None, Some("full")),
        ("qwen2", None, Some("sliding")),
    ] {
        let difference = largest_difference(&load(name, a).logits, &load(name, b).logits);
        assert!(difference > 1e-2, "{name} {a:?} and {b:?} differ by {difference} only");
    }
}

#[test]
fn switching_the_sliding_window_off_attends_to_everything() {
    let sliding = load("mistral", None);
    let full = load("mistral", Some("full"));
    let config = sliding.decoder.config().clone();
    assert_eq!(config.shared_window(), Some(8));
    assert_eq!(config.without_sliding_window(), *full.decoder.config());
}

#[test]
fn the_logits_of_the_last_token_are_the_last_of_all() {
    let case = load("qwen3", None);
    let attention = attention::new("eager").unwrap();
    let count = case.tokens.dim(1).unwrap();
    let last = case.decoder.forward(&case.tokens, case.cache().as_mut(), attention.as_ref(), LogitsOf::Last).unwrap();
    let wanted = case.logits.narrow(1, count - 1, 1).unwrap().squeeze(1).unwrap();
    assert!(largest_difference(&last, &wanted) < 1e-4);
}

#[test]
fn more_tokens_than_the_model_has_positions_are_refused() {
    let case = load("gpt2", None);
    let limit = case.decoder.config().max_positions;
    let shape = case.decoder.config().cache_shape(1, limit + 1, limit + 1, DType::F32, &Device::Cpu);
    let mut cache = cache::new(QuantSpec::none(), shape).unwrap();
    let tokens = Tensor::zeros((1, limit + 1), DType::U32, &Device::Cpu).unwrap();
    let attention = attention::new("eager").unwrap();
    let error = case.decoder.forward(&tokens, cache.as_mut(), attention.as_ref(), LogitsOf::Last).unwrap_err();
    assert!(error.is_usage() && error.to_string().contains("at most 512"), "{error}");
}

#[test]
fn half_precision_stays_close_to_single() {
    let folder = fixture("models/llama");
    let path = folder.join("config.json");
    let (config, names) = read_config(&path, &std::fs::read_to_string(&path).unwrap()).unwrap();
    let weights = SafetensorsWeights::open(&weight_files(&folder)).unwrap();
    let case = load("llama", None);
    for (dtype, tolerance) in [(DType::F16, 0.05), (DType::BF16, 0.3)] {
        let decoder = Decoder::load(config.clone(), &names, &weights, dtype, &Device::Cpu, &mut |_, _| ()).unwrap();
        let (batch, count) = case.tokens.dims2().unwrap();
        let shape = decoder.config().cache_shape(batch, count, count, dtype, &Device::Cpu);
        let mut cache = cache::new(QuantSpec::none(), shape).unwrap();
        let attention = attention::new("eager").unwrap();
        let logits = decoder.forward(&case.tokens, cache.as_mut(), attention.as_ref(), LogitsOf::All).unwrap();
        assert_eq!(logits.dtype(), DType::F32);
        let difference = largest_difference(&logits, &case.logits);
        assert!(difference < tolerance && difference > 0.0, "{dtype:?}: {difference}");
    }
}
