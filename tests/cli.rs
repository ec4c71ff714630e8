//! The command line as a person meets it: wrong requests, sweeps, patches, on the model inside the binary.

#![allow(clippy::unwrap_used, reason = "a test that panics fails, as it should")]

use std::path::{Path, PathBuf};

use assert_cmd::Command;
use serde_json::Value;

fn kvprof() -> Command {
    Command::new(env!("CARGO_BIN_EXE_kvprof"))
}

/// Settings that make a run of the built-in model take a second or two.
const QUICK: [&str; 10] = [
    "--warmup-runs",
    "0",
    "--measure-runs",
    "1",
    "--decode-tokens",
    "8",
    "--ppl-tokens",
    "64",
    "--context-lengths",
    "256",
];

/// What a wrong request prints: one line, exit code 2, no panic.
fn refused(args: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let output = kvprof().args(args).args(["--output-dir"]).arg(folder.path()).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{args:?}: {text}");
    assert!(!text.contains("panicked"), "{text}");
    assert_eq!(text.trim().lines().count(), 1, "{args:?}: {text}");
    assert_eq!(json_files(folder.path()).len(), 0, "nothing was measured, so nothing is written");
    text
}

fn json_files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "json"))
        .collect();
    files.sort();
    files
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn an_unknown_quantization_is_answered_with_the_nearest_names() {
    assert!(refused(&["run", "--kv-quant", "int4-hq"]).contains("int4-hqq"));
}

#[test]
fn an_unknown_benchmark_or_backend_is_answered_with_those_there_are() {
    assert!(refused(&["run", "--benchmarks", "pp"]).contains("needle"));
    assert!(refused(&["run", "--attn-backend", "flash"]).contains("fused"));
}

#[test]
fn a_context_longer_than_the_model_allows_is_refused() {
    assert!(refused(&["run", "--context-lengths", "100000"]).contains("100000"));
}

#[test]
fn a_group_that_does_not_divide_the_head_is_refused() {
    assert!(refused(&["run", "--kv-quant", "int4-hqq-token,group=128"]).contains("group"));
}

#[test]
fn files_that_are_no_models_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let gguf = folder.path().join("broken.gguf");
    std::fs::write(&gguf, b"GGUF\x03\0\0\0not really").unwrap();
    assert!(refused(&["run", "--model", gguf.to_str().unwrap()]).contains("broken.gguf"));
    let config = folder.path().join("config.json");
    std::fs::write(&config, r#"{"model_type": "mamba"}"#).unwrap();
    std::fs::write(folder.path().join("model.safetensors"), b"").unwrap();
    let text = refused(&["run", "--model", folder.path().to_str().unwrap()]);
    assert!(text.contains("mamba") && text.contains("llama"), "{text}");
    assert!(refused(&["run", "--model", "no/such/folder/at/all"]).contains("no/such/folder"));
}

#[test]
fn random_weights_refuse_quality() {
    let text = refused(&["run", "--weights", "dummy", "--benchmarks", "ppl"]);
    assert!(text.contains("quality"), "{text}");
}

#[test]
fn an_output_folder_that_cannot_be_written_is_named_before_anything_runs() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a-file");
    std::fs::write(&file, b"").unwrap();
    let output = kvprof().args(["run", "--output-dir"]).arg(file.join("results")).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("a-file"));
}

#[test]
fn a_run_writes_one_valid_file_for_each_quantization() {
    let folder = tempfile::tempdir().unwrap();
    let run = kvprof()
        .args(["run", "--kv-quant", "none", "int4-hqq", "--ppl-burn-in", "256", "--json", "--output-dir"])
        .arg(folder.path())
        .args(QUICK)
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let printed: Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!(printed.as_array().unwrap().len(), 2);
    let files = json_files(folder.path());
    assert_eq!(files.len(), 2);
    let quantized = read(files.iter().find(|f| f.to_string_lossy().contains("int4_hqq")).unwrap());
    assert_eq!(quantized["schema_version"], "3.0");
    assert_eq!(quantized["kv_quant"]["nbits"], 4);
    let measurement = &quantized["measurements"][0];
    assert!(measurement["decode_ms"].as_f64().unwrap() > 0.0);
    assert!(measurement["energy_mj_per_token"].is_null(), "not measured is null, never 0");
    let ppl = &quantized["benchmarks"]["perplexity_quantized"];
    assert!(ppl["quantized_read_fraction"].as_f64().unwrap() > 0.0);
    assert_eq!(ppl["tokens"], quantized["benchmarks"]["perplexity"]["tokens"]);
    kvprof().arg("validate").arg(folder.path()).assert().success();
}

#[test]
fn a_full_context_can_be_decoded_from() {
    let folder = tempfile::tempdir().unwrap();
    kvprof()
        .args(["run", "--context-lengths", "2048", "--decode-tokens", "4", "--warmup-runs", "0", "--measure-runs", "1"])
        .args(["--kv-quant", "int4-hqq", "--benchmarks", "none", "--quiet", "--output-dir"])
        .arg(folder.path())
        .assert()
        .success();
    let result = read(&json_files(folder.path())[0]);
    assert!(result["measurements"][0]["decode_ms"].as_f64().unwrap() > 0.0);
}

#[test]
fn a_stopped_run_is_resumed_in_its_own_file() {
    let folder = tempfile::tempdir().unwrap();
    let run = |resume: bool| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_kvprof"));
        command
            .args(["run", "--kv-quant", "none", "int4-hqq", "--quiet", "--output-dir"])
            .arg(folder.path())
            .args(QUICK);
        command.args(resume.then_some("--resume"));
        command
    };
    let mut stopped = run(false).spawn().unwrap();
    while json_files(folder.path()).is_empty() && stopped.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let _ = stopped.kill();
    let _ = stopped.wait();
    assert!(run(true).status().unwrap().success());
    let bytes = || -> Vec<_> { json_files(folder.path()).iter().map(|p| std::fs::read(p).unwrap()).collect() };
    let complete = bytes();
    assert_eq!(complete.len(), 2, "one file for each quantization, the stopped one's own among them");
    assert!(run(true).status().unwrap().success());
    assert!(bytes() == complete, "a complete run is left alone");
}

const SWEEP: &str = r#"
[settings]
context-lengths = [256]
warmup-runs = 0
measure-runs = 1
decode-tokens = 8
ppl-tokens = 64
needle-depths = [0.5]
[[matrix]]
models = ["builtin"]
kv-quants = ["none", "int8-hqq", "int4-hqq", "int2-hqq-kivi"]
benchmarks = ["ppl"]
"#;

fn sweep_file(folder: &Path) -> PathBuf {
    let path = folder.join("sweep.toml");
    std::fs::write(&path, SWEEP).unwrap();
    path
}

/// What results say, times and environment aside.
fn essence(folder: &Path) -> Vec<Value> {
    let mut all: Vec<Value> = json_files(folder)
        .iter()
        .map(|path| {
            let result = read(path);
            let ppl = |key: &str| result["benchmarks"][key]["value"].clone();
            serde_json::json!([
                result["spec_hash"],
                ppl("perplexity"),
                ppl("perplexity_quantized"),
                result["completed"]
            ])
        })
        .collect();
    all.sort_by_key(|v| v.to_string());
    all
}

#[test]
fn shards_together_are_the_sweep() {
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = sweep_file(parts.path());
    kvprof().arg("sweep").arg(&file).args(["--quiet", "--output-dir"]).arg(whole.path()).assert().success();
    let shards: Vec<_> = (1..=4)
        .map(|index| {
            std::process::Command::new(env!("CARGO_BIN_EXE_kvprof"))
                .arg("sweep")
                .arg(&file)
                .args(["--quiet", "--shard", &format!("{index}/4"), "--output-dir"])
                .arg(parts.path())
                .spawn()
                .unwrap()
        })
        .collect();
    for mut shard in shards {
        assert!(shard.wait().unwrap().success());
    }
    assert_eq!(essence(whole.path()).len(), 4);
    assert_eq!(essence(parts.path()), essence(whole.path()));
}

#[test]
fn a_sweep_killed_again_and_again_ends_with_the_same_results() {
    let (undisturbed, killed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = sweep_file(killed.path());
    kvprof().arg("sweep").arg(&file).args(["--quiet", "--output-dir"]).arg(undisturbed.path()).assert().success();
    let mut moment = 40u64;
    for _ in 0..20 {
        let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_kvprof"))
            .arg("sweep")
            .arg(&file)
            .args(["--quiet", "--output-dir"])
            .arg(killed.path())
            .spawn()
            .unwrap();
        // Spread over loading, measuring and writing; fixed, so that a failure can be repeated.
        moment = (moment * 37 + 101) % 1300;
        std::thread::sleep(std::time::Duration::from_millis(moment));
        let _ = child.kill();
        let _ = child.wait();
        for path in json_files(killed.path()) {
            read(&path);
        }
    }
    kvprof().arg("sweep").arg(&file).args(["--quiet", "--output-dir"]).arg(killed.path()).assert().success();
    assert_eq!(essence(killed.path()), essence(undisturbed.path()));
    // What is complete is left alone.
    let before: Vec<_> = json_files(killed.path()).iter().map(|p| std::fs::read(p).unwrap()).collect();
    kvprof().arg("sweep").arg(&file).args(["--quiet", "--output-dir"]).arg(killed.path()).assert().success();
    let after: Vec<_> = json_files(killed.path()).iter().map(|p| std::fs::read(p).unwrap()).collect();
    assert!(before == after);
}

#[test]
fn every_sweep_in_the_repository_can_be_planned() {
    let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
    for (name, runs) in
        [("smoke", "3 runs (3 named"), ("thesis", "20 runs (20 named"), ("reasoning", "32 runs (34 named")]
    {
        let output = kvprof()
            .arg("sweep")
            .arg(configs.join(format!("{name}.toml")))
            .arg("--dry-run")
            .env("HF_HUB_OFFLINE", "1")
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(
            output.status.success() && text.contains(runs),
            "{name}: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

/// A file as the thesis tool writes them, with fields kvprof knows nothing of.
const THESIS_FILE: &str = r#"{
  "schema_version": "2.0", "experiment_id": "old", "timestamp": "2026-05-03T16:20:11", "model": "builtin",
  "model_config": {"num_params_b": 7.24, "num_layers": 4, "num_q_heads": 4, "num_kv_heads": 2, "gqa_ratio": "2:1",
    "head_dim": 64, "max_position_embeddings": 2048},
  "attn_backend": "sdpa",
  "kv_quant": {"enabled": true, "nbits": 4, "backend": "hqq", "axis_key": 1, "axis_value": 1, "asymmetric": false,
    "residual_length": 64},
  "environment": {"python_version": "3.12.3", "gpu_name": "X", "gpu_vram_gb": 34.20},
  "hardware": {"vram_total_mb": 32606.6, "gpu_name": "X"},
  "config": {"seed": 42, "warmup_runs": 2, "measure_runs": 5, "decode_tokens": 128, "ppl_dataset": "builtin",
    "ppl_tokens": 64},
  "measurements": [{"context_len": 256, "prefill_ms": 1169.496, "decode_ms": 6744, "quant_overhead_ms": 0, "odd": [1]}],
  "benchmarks": {"perplexity": {"dataset": "builtin", "tokens": 4096, "value": 4.611}},
  "combo_elapsed_s": 620.4, "a_field_of_theirs": {"kept": 1.50}
}"#;

#[test]
fn a_patch_changes_the_blocks_it_names_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("old.json");
    std::fs::write(&path, THESIS_FILE).unwrap();
    // The shell left the glob unexpanded.
    let patch = kvprof()
        .arg("patch")
        .arg(folder.path().join("o*.json"))
        .args(["--benchmarks", "needle", "--needle-depths", "0.5", "--quiet"])
        .output()
        .unwrap();
    assert!(patch.status.success(), "{}", String::from_utf8_lossy(&patch.stderr));
    let before: Value = serde_json::from_str(THESIS_FILE).unwrap();
    let mut after = read(&path);
    assert_eq!(after["benchmarks"]["needle_in_haystack"]["total_trials"], 1);
    assert_eq!(after["patched"][0]["blocks"][0], "needle");
    for added in ["needle_in_haystack", "needle_in_haystack_trials"] {
        after["benchmarks"].as_object_mut().unwrap().remove(added);
    }
    after.as_object_mut().unwrap().retain(|key, _| key != "patched" && key != "completed");
    assert_eq!(after, before);
    assert_eq!(std::fs::read_to_string(folder.path().join("old.json.bak")).unwrap(), THESIS_FILE);
}

#[test]
fn a_damaged_file_is_refused_and_left_untouched() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged.json");
    let damaged = &THESIS_FILE[..THESIS_FILE.len() / 2];
    std::fs::write(&path, damaged).unwrap();
    let patch = kvprof().arg("patch").arg(&path).args(["--benchmarks", "needle"]).output().unwrap();
    assert_eq!(patch.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&patch.stderr).contains("damaged.json"));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), damaged);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_trace_on_the_cpu_adds_up_in_eight_categories_and_opens_in_a_viewer() {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace.chrome");
    let run = kvprof()
        .args(["run", "--kv-quant", "none", "int4-hqq,residual=64", "--attn-backend", "eager", "--benchmarks", "none"])
        .args(["--quiet", "--trace-out"])
        .arg(&trace)
        .arg("--output-dir")
        .arg(folder.path())
        .args(QUICK)
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let files = json_files(folder.path());
    assert_eq!(files.len(), 2);
    for file in &files {
        let kernels = &read(file)["measurements"][0]["kernels"];
        assert_eq!(kernels["source"], "timers");
        assert!(kernels["traced_slowdown"].as_f64().unwrap() > 0.0);
        for phase in ["prefill", "decode"] {
            let phase = &kernels[phase];
            let categories = phase["categories"].as_object().unwrap();
            let ms = |name: &str| categories[name]["ms"].as_f64().unwrap();
            assert_eq!(categories.len(), 8);
            let (sum, busy) = (categories.keys().map(|c| ms(c)).sum::<f64>(), phase["busy_ms"].as_f64().unwrap());
            assert!((sum - busy).abs() < 0.01 * busy, "categories sum to {sum} ms of {busy}");
            let (wall, share) = (phase["wall_ms"].as_f64().unwrap(), phase["busy_share"].as_f64().unwrap());
            assert!(
                (0.5..=1.0).contains(&share) && (busy / wall - share).abs() < 1e-6,
                "{busy} of {wall} ms is {share}"
            );
            assert!(phase["unclassified_share"].as_f64().unwrap() < 0.03);
            for part in ["attention", "ffn", "normalization", "memory", "sampling", "elementwise"] {
                assert!(ms(part) > 0.0, "{part} in {}", file.display());
            }
            let quantized = file.to_string_lossy().contains("int4");
            assert_eq!(ms("dequantization") > 0.0, quantized, "{}", file.display());
        }
        // 256 tokens, 64 of them kept: three blocks of each of the layers leave in the prompt.
        let quantize = kernels["prefill"]["quantize"]["count"].as_u64().unwrap();
        assert_eq!(quantize > 0, file.to_string_lossy().contains("int4"));
    }
    let events: Vec<Value> = serde_json::from_slice(&std::fs::read(&trace).unwrap()).unwrap();
    let passes = events.iter().filter(|e| e["name"] == "process_name").count();
    assert_eq!(passes, 2, "one process for each traced pass");
    assert!(events.iter().any(|e| e["cat"] == "ffn" && e["dur"].as_f64().unwrap() > 0.0));
}

#[test]
fn what_ran_is_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let run = kvprof()
        .args(["run", "--kv-quant", "int4-hqq", "--benchmarks", "none", "--seed", "7", "--quiet", "--device", "cpu"])
        .arg("--output-dir")
        .arg(folder.path())
        .args(QUICK)
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let result = read(&json_files(folder.path())[0]);
    let environment = &result["environment"];
    for field in ["kvprof_version", "cpu"] {
        assert!(environment[field].as_str().is_some_and(|text| !text.is_empty()), "{field}: {environment}");
    }
    let command: Vec<&str> = environment["command_line"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(command.windows(2).any(|pair| pair == ["--seed", "7"]), "{command:?}");
    assert_eq!((&result["config"]["seed"], &result["model_config"]["dtype"]), (&7.into(), &"f32".into()));
    assert_eq!(result["hardware"]["device"], "cpu");
    assert!(result["measurements"][0]["attention_kernel"].as_str().unwrap().contains("step:"));
    // What a CPU does not have is null or absent with a reason, never invented.
    assert!(environment["gpu_name"].is_null() && environment["compute_capability"].is_null());
    let energy = &result["measurements"][0]["energy"];
    assert!(energy["decode"].is_object() || energy["reason"].as_str().is_some_and(|why| !why.is_empty()), "{energy}");
}
