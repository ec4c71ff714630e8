//! Scripts written for the thesis tool's files (version 2.0) find in ours every field that they look up.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use crate::program::{json_files, kvprof, read};
use crate::thesis_data;

/// The fields of every file of 2.0 beside its measurements and scores.
const RUN: [&str; 40] = [
    "schema_version",
    "experiment_id",
    "timestamp",
    "model",
    "model_config.num_params_b",
    "model_config.num_layers",
    "model_config.num_q_heads",
    "model_config.num_kv_heads",
    "model_config.gqa_ratio",
    "model_config.head_dim",
    "model_config.max_position_embeddings",
    "attn_backend",
    "kv_quant.enabled",
    "kv_quant.nbits",
    "kv_quant.backend",
    "kv_quant.axis_key",
    "kv_quant.axis_value",
    "kv_quant.asymmetric",
    "environment.python_version",
    "environment.pytorch_version",
    "environment.transformers_version",
    "environment.cuda_version",
    "environment.gpu_name",
    "environment.gpu_vram_gb",
    "hardware.vram_total_mb",
    "hardware.gpu_name",
    "config.seed",
    "config.warmup_runs",
    "config.measure_runs",
    "config.decode_tokens",
    "config.ppl_dataset",
    "config.ppl_tokens",
    "combo_elapsed_s",
    "benchmarks.perplexity.dataset",
    "benchmarks.perplexity.tokens",
    "benchmarks.perplexity.value",
    "benchmarks.needle_in_haystack.total_trials",
    "benchmarks.needle_in_haystack.successes",
    "benchmarks.needle_in_haystack.success_rate",
    "benchmarks.needle_in_haystack.per_context",
];

/// Those of each row.
const ROW: [&str; 17] = [
    "context_len",
    "prefill_ms",
    "prefill_tokens_per_sec",
    "decode_ms",
    "decode_tokens",
    "decode_tokens_per_sec",
    "vram_peak_mb",
    "vram_reserved_mb",
    "kv_cache_mb",
    "kv_cache_type",
    "quant_overhead_ms",
    "dequant_overhead_ms",
    "overhead_pct",
    "avg_power_watts",
    "energy_mj_per_token",
    "ctx_elapsed_s",
    "vram_overflow",
];

/// Those of a needle trial.
const TRIAL: [&str; 5] = ["context_length", "depth_percent", "input_tokens", "generated_text", "success"];

/// Those that a quantized cache's file has besides.
const QUANTIZED: [&str; 4] = [
    "kv_quant.residual_length",
    "benchmarks.perplexity_quantized.dataset",
    "benchmarks.perplexity_quantized.tokens",
    "benchmarks.perplexity_quantized.value",
];

/// The fields of 2.0 that `file` lacks: there must be a key, whatever its value.
fn missing(file: &Value) -> Vec<String> {
    let has = |at: &Value, path: &str| at.pointer(&format!("/{}", path.replace('.', "/"))).is_some();
    let quantized = file["kv_quant"]["enabled"] == true;
    let whole = RUN.iter().chain(QUANTIZED.iter().filter(|_| quantized));
    let mut missing: Vec<String> = whole.filter(|path| !has(file, path)).map(|path| path.to_string()).collect();
    let trials = &file["benchmarks"]["needle_in_haystack_trials"];
    let lists = [("measurements", &file["measurements"], &ROW[..]), ("trials", trials, &TRIAL[..])];
    for (list, items, fields) in lists {
        let items = items.as_array().unwrap();
        assert!(!items.is_empty(), "{list}");
        let lacked = |field: &&&str| items.iter().any(|item| !has(item, field));
        missing.extend(fields.iter().filter(lacked).map(|field| format!("{list}[].{field}")));
    }
    missing
}

#[test]
fn a_run_writes_every_field_that_files_of_2_0_have() {
    let folder = tempfile::tempdir().unwrap();
    let line = "run --kv-quant none int4-hqq --benchmarks ppl needle --context-lengths 256 --needle-depths 0.5 --warmup-runs 0 --measure-runs 1 \
                --decode-tokens 4 --ppl-tokens 64 --output-dir";
    kvprof().args(line.split_whitespace()).arg(folder.path()).assert().success();
    let files = json_files(folder.path());
    assert_eq!(files.len(), 2);
    for path in files {
        let file = read(&path);
        assert_eq!(missing(&file), Vec::<String>::new(), "{}", path.display());
        // What kvprof has no part of has no version.
        for name in ["python_version", "pytorch_version", "transformers_version"] {
            assert!(file["environment"][name].is_null(), "{name}");
        }
    }
}

#[test]
fn the_fields_looked_for_are_those_of_the_published_files() {
    let Some(paths) = thesis_data::files() else { return };
    for path in paths {
        assert_eq!(missing(&read(&path)), Vec::<String>::new(), "{}", path.display());
        assert_eq!(unlisted(&path), BTreeSet::new(), "{}", path.display());
    }
}

/// Fields of a published file that no list above names.
fn unlisted(path: &Path) -> BTreeSet<String> {
    let file = read(path);
    let mut fields = BTreeSet::new();
    let listed = |path: &str| RUN.contains(&path) || QUANTIZED.contains(&path);
    collect("", &file, &listed, &mut fields);
    let of = |items: &Value, known: &[&str]| -> Vec<String> {
        let items = items.as_array().unwrap().iter().filter_map(Value::as_object);
        items.flat_map(|item| item.keys()).filter(|key| !known.contains(&key.as_str())).cloned().collect()
    };
    fields.extend(of(&file["measurements"], &ROW));
    fields.extend(of(&file["benchmarks"]["needle_in_haystack_trials"], &TRIAL));
    fields
}

/// The paths of what `value` holds, down to what is `listed`; lists of rows and trials are looked at apart.
fn collect(at: &str, value: &Value, listed: &dyn Fn(&str) -> bool, fields: &mut BTreeSet<String>) {
    match value.as_object() {
        _ if listed(at) || value.is_array() => {}
        Some(object) => {
            for (key, value) in object {
                let path = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
                collect(&path, value, listed, fields);
            }
        }
        None => {
            fields.insert(at.into());
        }
    }
}
