//! Energy and kernel traces of a GPU, by the binary as a person runs it.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

/// The binary under test: where it was built, or beside this test where both were carried to another machine.
fn binary() -> PathBuf {
    let built = PathBuf::from(env!("CARGO_BIN_EXE_kvprof"));
    if built.exists() { built } else { std::env::current_exe().unwrap().with_file_name("kvprof") }
}

/// Two caches of a small model of the step engine's kind, profiled with `more` arguments; `None` with a line where CUPTI is
/// lacking and no GPU is required.
fn profiled(test: &str, more: &[&str]) -> Option<Vec<Value>> {
    crate::gpu(test)?;
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.json");
    let shape = serde_json::json!({
        "model_type": "llama", "hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 8,
        "num_attention_heads": 16, "num_key_value_heads": 4, "vocab_size": 4096, "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": false,
    });
    std::fs::write(&config, shape.to_string()).unwrap();
    let run = Command::new(binary())
        .args(["run", "--weights", "dummy", "--dtype", "f16", "--device", "cuda", "--kv-quant", "none", "int4-hqq"])
        .args(["--context-lengths", "1024", "--decode-tokens", "128", "--measure-runs", "3", "--json", "--model"])
        .arg(&config)
        .arg("--output-dir")
        .arg(folder.path())
        .args(more)
        .output()
        .unwrap_or_else(|error| panic!("{} must be beside this test: {error}", binary().display()));
    let told = String::from_utf8_lossy(&run.stderr);
    if told.contains("libcupti") && std::env::var_os("KVPROF_REQUIRE_GPU").is_none() {
        println!("skipped {test}: {told}");
        return None;
    }
    assert!(run.status.success(), "{told}");
    Some(serde_json::from_slice(&run.stdout).unwrap())
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[test]
fn kernels_of_a_traced_pass_have_their_category_under_graph_replay_and_without() {
    let test = "kernels_of_a_traced_pass_have_their_category_under_graph_replay_and_without";
    for more in [vec!["--trace"], vec!["--trace", "--no-cuda-graph"], vec!["--trace", "--attn-backend", "sdpa"]] {
        let Some(results) = profiled(test, &more) else { return };
        for result in results {
            let kernels = &result["measurements"][0]["kernels"];
            assert_eq!(kernels["source"], "cupti", "{kernels}");
            assert!(kernels["notes"].is_null(), "{kernels}");
            for phase in ["prefill", "decode"] {
                let phase = &kernels[phase];
                let ms = |name: &str| number(&phase["categories"][name]["ms"]);
                let sum: f64 = phase["categories"].as_object().unwrap().keys().map(|name| ms(name)).sum();
                assert!(
                    (sum - number(&phase["busy_ms"])).abs() < 0.01 * sum && number(&phase["busy_share"]) <= 1.0,
                    "{phase}"
                );
                assert!(number(&phase["unclassified_share"]) < 0.03, "{more:?}: {phase}");
                assert!(ms("ffn") > 0.0, "{more:?}: {phase}");
                assert!(
                    ms("attention") > 0.0 && ms("normalization") > 0.0 && ms("sampling") > 0.0,
                    "{more:?}: {phase}"
                );
            }
            let quantizes = number(&kernels["prefill"]["quantize"]["ms"]) > 0.0;
            assert_eq!(quantizes, result["kv_quant"]["enabled"] == true, "{kernels}");
        }
    }
}

#[test]
fn energy_of_a_gpu_is_measured_and_adds_up() {
    let Some(results) = profiled("energy_of_a_gpu_is_measured_and_adds_up", &["--energy-seconds", "1.5"]) else {
        return;
    };
    for result in results {
        let energy = &result["measurements"][0]["energy"];
        assert!(energy["source"].is_string(), "{energy}");
        let idle = number(&energy["idle_w"]);
        for phase in ["prefill", "decode"] {
            let window = &energy[phase];
            // Other tests may use the GPU meanwhile, so neither is above the other for sure.
            assert!(number(&window["mean_w"]) > 0.0 && idle > 0.0, "{energy}");
            let tokens = number(&window["j_per_token"]) * number(&window["tokens"]);
            assert!((tokens - number(&window["gross_j"])).abs() < 1e-6 * tokens, "{window}");
            assert_eq!(window["short"], false);
        }
        assert!(energy["state"]["before"]["sm_clock_mhz"].is_number(), "{energy}");
        assert!(result["environment"]["driver_version"].is_string());
    }
}
