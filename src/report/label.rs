//! Names for people: of models and of caches.

use std::collections::{BTreeMap, BTreeSet};

use crate::schema::{RunResult, WINDOW_LAYERS, model_name};

/// Residual length that a name need not mention.
pub const USUAL_RESIDUAL: usize = 128;

/// Short names of models: without the owner's name, a file's ending and a version suffix (`mistralai/Mistral-7B-v0.1` → `Mistral-7B`, as in the
/// thesis' tables), unless two models would then share one.
pub fn short_models<'a>(names: impl Iterator<Item = &'a str>) -> BTreeMap<String, String> {
    let names: BTreeSet<&str> = names.collect();
    let forms = |name: &str| {
        let stem = model_name(name).unwrap_or(name);
        let last = name.trim_end_matches('/').rsplit('/').next().unwrap_or(name);
        [without_version(stem).to_string(), stem.to_string(), last.to_string(), name.to_string()]
    };
    names
        .iter()
        .map(|name| {
            let own = forms(name);
            // The first form that no other model's same form equals.
            let free = (0..own.len()).find(|&i| !names.iter().any(|other| other != name && forms(other)[i] == own[i]));
            let short = free.map_or_else(|| name.to_string(), |i| own[i].clone());
            (name.to_string(), short)
        })
        .collect()
}

fn dtype(result: &RunResult) -> &str {
    match result.model_config.dtype.as_deref().unwrap_or_default() {
        "float16" => "f16",
        "bfloat16" => "bf16",
        "float32" => "f32",
        other => other,
    }
}

fn window(result: &RunResult) -> String {
    let config = &result.model_config;
    let layers = config.extra.get(WINDOW_LAYERS).and_then(serde_json::Value::as_u64);
    match (config.sliding_window, layers) {
        (Some(tokens), _) => format!("sliding window of {tokens}"),
        (None, Some(layers)) => format!("sliding window in {layers} of {} layers", config.num_layers),
        // 2.0 ran every model over its whole context.
        (None, None) => "no sliding window".into(),
    }
}

/// A model as it was loaded: results of two are results of different things.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Loaded {
    /// Its name in the file.
    pub model: String,
    /// Float type; empty where the file does not say.
    pub dtype: String,
    /// Whether its weights were random.
    pub random_weights: bool,
    /// The sliding window in force, in words.
    pub window: String,
}

/// The model of `result` as it was loaded.
pub fn loaded_as(result: &RunResult) -> Loaded {
    Loaded {
        model: result.model.clone(),
        dtype: dtype(result).to_string(),
        random_weights: result.model_config.weights.as_deref() == Some("dummy"),
        window: window(result),
    }
}

/// Names of models as they were loaded: [`short_models`], with the float type, the sliding window or the random weights where results
/// of one model differ in them.
pub fn models<'a>(results: impl Iterator<Item = &'a RunResult> + Clone) -> BTreeMap<Loaded, String> {
    let short = short_models(results.clone().map(|result| result.model.as_str()));
    let all: BTreeSet<_> = results.map(loaded_as).collect();
    let name = |loaded: &Loaded| {
        let differs = |from: &dyn Fn(&Loaded) -> bool| all.iter().any(|o| o.model == loaded.model && from(o));
        let mut name = short.get(&loaded.model).unwrap_or(&loaded.model).clone();
        let mut tell = |words: &str| name.push_str(&format!(" · {words}"));
        if differs(&|other| other.dtype != loaded.dtype) {
            tell(if loaded.dtype.is_empty() { "unknown float type" } else { &loaded.dtype });
        }
        if differs(&|other| other.window != loaded.window) {
            tell(&loaded.window);
        }
        if loaded.random_weights && differs(&|other| !other.random_weights) {
            tell("random weights");
        }
        name
    };
    all.iter().map(|loaded| (loaded.clone(), name(loaded))).collect()
}

/// `Mistral-7B-v0.1` → `Mistral-7B`.
fn without_version(name: &str) -> &str {
    match name.rsplit_once("-v") {
        Some((stem, version))
            if !stem.is_empty()
                && version.starts_with(|c: char| c.is_ascii_digit())
                && version.chars().all(|c| c.is_ascii_digit() || c == '.') =>
        {
            stem
        }
        _ => name,
    }
}

/// Name of a cache. Files of 2.0: the thesis' own (`FP16`, `INT4`, `INT2-KIVI`). Files of 3.0: as `--kv-quant` names it
/// (`int4-hqq,group=32`), so that what is recommended can be typed, or the model's float type for an unquantized cache.
pub fn cache(result: &RunResult) -> String {
    let quant = &result.kv_quant;
    if !quant.enabled {
        return match result.model_config.dtype.as_deref() {
            Some("bf16" | "bfloat16") => "BF16".into(),
            Some("f32" | "float32") => "FP32".into(),
            _ => "FP16".into(),
        };
    }
    let Some(name) = &quant.name else {
        let bits = quant.nbits.map_or_else(|| "?".into(), |b| b.to_string());
        return format!("INT{bits}{}", if quant.asymmetric { "-KIVI" } else { "" });
    };
    match quant.residual_length {
        Some(n) if n != USUAL_RESIDUAL && !name.contains("residual=") => format!("{name},residual={n}"),
        _ => name.clone(),
    }
}

/// A cache as `--kv-quant` names it; where a file of 2.0 does not say how, as [`cache`] does.
pub fn quantization(result: &RunResult) -> String {
    match &result.kv_quant.name {
        Some(name) => name.clone(),
        None if result.kv_quant.enabled => cache(result),
        None => "none".into(),
    }
}

/// The residual length in the name of a cache; the usual one where it names none.
pub fn residual(cache: &str) -> usize {
    let named = cache.split(',').find_map(|part| part.strip_prefix("residual="));
    named.and_then(|tokens| tokens.parse().ok()).unwrap_or(USUAL_RESIDUAL)
}

/// The name of a cache without its residual length.
pub fn without_residual(cache: &str) -> String {
    let parts: Vec<&str> = cache.split(',').filter(|part| !part.starts_with("residual=")).collect();
    parts.join(",")
}

/// What names of caches are sorted by: windows of one quantization by their length, not by its digits, and capitals of the thesis tool among the
/// others.
pub fn order(cache: &str) -> (String, usize, String) {
    (without_residual(cache).to_lowercase(), residual(cache), cache.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_lose_owner_and_version_unless_that_makes_two_alike() {
        let short = short_models(["mistralai/Mistral-7B-v0.1", "Qwen/Qwen3-8B", "builtin"].into_iter());
        assert_eq!(short["mistralai/Mistral-7B-v0.1"], "Mistral-7B");
        assert_eq!(short["Qwen/Qwen3-8B"], "Qwen3-8B");
        assert_eq!(short["builtin"], "builtin");
        let short = short_models(["x/smol.Q4_1.gguf", "y/mistral-7b-v0.1.config.json"].into_iter());
        assert_eq!(
            (short["x/smol.Q4_1.gguf"].as_str(), short["y/mistral-7b-v0.1.config.json"].as_str()),
            ("smol.Q4_1", "mistral-7b")
        );
        let short = short_models(["a/config.json", "b/c/"].into_iter());
        assert_eq!((short["a/config.json"].as_str(), short["b/c/"].as_str()), ("a", "c"));
        let short = short_models(["b/c/", "d/c"].into_iter());
        assert_eq!((short["b/c/"].as_str(), short["d/c"].as_str()), ("b/c/", "d/c"));
        let short = short_models(["a/M-v0.1", "a/M-v0.3", "b/N", "c/N"].into_iter());
        assert_eq!((short["a/M-v0.1"].as_str(), short["a/M-v0.3"].as_str()), ("M-v0.1", "M-v0.3"));
        assert_eq!((short["b/N"].as_str(), short["c/N"].as_str()), ("b/N", "c/N"));
    }

    #[test]
    fn a_quantized_cache_is_named_as_on_the_command_line_and_one_of_the_thesis_tool_as_there() {
        let of = |quant: &str| {
            let kv_quant = serde_json::from_str(&format!("{{{quant}}}")).unwrap();
            cache(&RunResult { kv_quant, ..crate::schema::bare_result() })
        };
        let quantized = r#""enabled": true, "nbits": 4, "asymmetric": true"#;
        let named = |more: &str| of(&format!(r#"{quantized}, "name": "int4-hqq-kivi,hadamard=kv"{more}"#));
        assert_eq!(named(""), "int4-hqq-kivi,hadamard=kv");
        assert_eq!(named(r#", "residual_length": 64"#), "int4-hqq-kivi,hadamard=kv,residual=64");
        assert_eq!(of(quantized), "INT4-KIVI");
        assert_eq!(of(r#""enabled": false, "asymmetric": false, "name": "none""#), "FP16");
    }

    #[test]
    fn the_residual_window_can_be_left_out_of_a_name() {
        assert_eq!(without_residual("int4-hqq,group=32,residual=64"), "int4-hqq,group=32");
        assert_eq!(without_residual("FP16"), "FP16");
        assert_eq!((residual("int4-hqq,residual=64"), residual("FP16")), (64, 128));
    }

    #[test]
    fn windows_of_one_quantization_are_sorted_by_length() {
        let sorted = ["int4-hqq,residual=32", "int4-hqq,residual=64", "int4-hqq", "int4-hqq,residual=512", "INT4-KIVI"];
        let mut caches = sorted;
        caches.sort();
        assert_ne!(caches, sorted);
        caches.sort_by_key(|cache| order(cache));
        assert_eq!(caches, sorted);
    }

    #[test]
    fn a_word_that_starts_with_v_is_not_a_version() {
        assert_eq!(without_version("Llama-vision"), "Llama-vision");
        assert_eq!(without_version("-v2"), "-v2");
    }
}
