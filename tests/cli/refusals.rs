//! Wrong requests: one line that says what to change, before anything is measured.

use crate::program::{json_files, kvprof, read};

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
fn results_do_not_go_into_a_file() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let output = kvprof().args(["run", "--output-dir"]).arg(file.path()).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("is a file, not a folder") && text.contains("--output-dir"), "{text}");
}

#[test]
fn a_context_longer_than_the_model_allows_is_refused() {
    assert!(refused(&["run", "--context-lengths", "100000"]).contains("100000"));
}

#[test]
fn an_output_that_leaves_no_useful_default_context_is_refused() {
    for (output, left) in [("2000", "leaves 48 of the model's 2048"), ("2047", "leaves 1 of the model's 2048")] {
        for benchmarks in [&["--benchmarks", "none"][..], &["--no-profile", "--benchmarks", "needle"]] {
            let text = refused(&[&["run", "--output-tokens", output], benchmarks].concat());
            assert!(text.contains(left) && text.contains("--context-lengths"), "{text}");
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let mut run = kvprof();
    run.args(["run", "--no-profile", "--benchmarks", "ppl", "--ppl-tokens", "64", "--kv-quant", "none", "--quiet"]);
    // What has no context goes by none.
    run.args(["--output-tokens", "2047", "--output-dir"]).arg(folder.path()).assert().success();
}

#[test]
fn requests_that_contradict_themselves_are_refused() {
    assert!(refused(&["run", "--benchmarks", "ppl", "none"]).contains("none stands alone"));
    for asked in [&["--trace-out", "t.json"][..], &["--trace"], &["--follow-up-tokens", "8"], &["--memory-timeline"]] {
        let text = refused(&[&["run", "--no-profile", "--benchmarks", "ppl"], asked].concat());
        assert!(text.contains("--no-profile") && text.contains(asked[0]), "{text}");
    }
    assert!(refused(&["run", "--benchmarks", "math", "--data", "no/such/folder"]).contains("no/such/folder"));
}

#[test]
fn a_refusal_names_the_flag_by_every_name_that_it_may_have_been_typed_by() {
    for line in [&["--output-tokens", "0"][..], &["--decode-tokens", "0"], &["--output-tokens", "8", "4000000000"]] {
        let text = refused(&[&["run"], line].concat());
        assert!(text.contains("--output-tokens") && text.contains("--decode-tokens"), "{text}");
    }
    assert!(refused(&["run", "--residual-length", "4000000000"]).contains("--residual-length 4000000000"));
    let gpt2 = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models/gpt2");
    let long = refused(&["run", "--model", gpt2.to_str().unwrap(), "--benchmarks", "none", "--output-tokens", "5000"]);
    assert!(long.contains("--output-tokens") && long.contains("5000"), "{long}");
}

#[test]
fn a_benchmark_that_cannot_be_scored_is_refused_before_anything_is_measured() {
    let refused = |args: &[&str]| refused(&[&["run", "--kv-quant", "int4-hqq"], args].concat());
    assert!(refused(&["--benchmarks", "ppl", "--ppl-window", "5000"]).contains("--ppl-window 5000"));
    assert!(refused(&["--benchmarks", "kld", "--ppl-window", "300", "--ppl-burn-in", "299"]).contains("--ppl-burn-in"));
    assert!(refused(&["--benchmarks", "ppl", "--ppl-tokens", "0"]).contains("--ppl-tokens"));
    assert!(refused(&["--benchmarks", "needle", "--context-lengths", "32"]).contains("32 tokens"));
    let two_phase = ["--benchmarks", "ppl", "--ppl-protocol", "two-phase", "--ppl-burn-in", "8"];
    assert!(refused(&two_phase).contains("--ppl-burn-in"));
}

#[test]
fn a_cache_whose_residual_window_is_longer_than_those_of_a_text_is_refused_alone() {
    let folder = tempfile::tempdir().unwrap();
    let mut run = kvprof();
    run.args(["run", "--no-profile", "--benchmarks", "ppl", "--ppl-window", "512", "--ppl-tokens", "64", "--quiet"]);
    run.args(["--kv-quant", "none", "int4-hqq", "int4-hqq,residual=500", "--output-dir"]);
    let output = run.arg(folder.path()).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), json_files(folder.path()).len()), (Some(1), 2), "{text}");
    assert!(text.contains("int4-hqq,residual=500") && text.contains("a burn-in of 565 tokens leaves no"), "{text}");
}

#[test]
fn a_refusal_speaks_of_no_flag_that_nobody_gave() {
    let long = ["run", "--kv-quant", "int4-hqq", "--benchmarks", "ppl", "--residual-length", "2000"];
    let text = refused(&long);
    assert!(text.contains("a burn-in of 2065 tokens") && !text.contains("--ppl-burn-in 2065"), "{text}");
}

#[test]
fn a_score_that_cannot_read_a_code_is_refused_before_anything_is_measured() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    std::fs::write(path("set.jsonl"), "{\"problem\": \"1+1?\", \"answer\": \"2\"}\n").unwrap();
    let row = "How many?,1,2,3,4,A\n";
    for name in ["test/houses_test.csv", "dev/houses_dev.csv"] {
        std::fs::create_dir_all(folder.path().join(name).parent().unwrap()).unwrap();
        std::fs::write(path(name), row).unwrap();
    }
    let (set, split) = (path("set.jsonl"), path(""));
    for benchmark in [
        &["ppl", "--ppl-window", "192", "--ppl-burn-in", "64"][..],
        // The only token that reads a code is the last, which predicts nothing.
        &["ppl", "--ppl-window", "193", "--ppl-burn-in", "64"],
        &["kld", "--ppl-window", "382", "--ppl-protocol", "two-phase"],
        &["needle", "--context-lengths", "128"],
        &["math", "--max-new-tokens", "4", "--data", &set],
        &["mmlu", "--mmlu-shots", "0", "--data", &split],
    ] {
        let text = refused(&[&["run", "--kv-quant", "int4-hqq", "--benchmarks"], benchmark].concat());
        let why = text.contains("no key was read from codes") && text.contains("once 192 tokens are held");
        assert!(why && text.contains(" tokens"), "{benchmark:?}: {text}");
    }
}

#[test]
fn data_that_cannot_be_scored_is_refused_before_anything_is_measured() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    for (name, content) in [
        ("empty.txt", ""),
        ("short.txt", "The miller went to the market."),
        ("set.jsonl", "{\"problem\": \"1+1?\", \"answer\": \"2\"}\n{\"problem\": "),
        ("test/houses_test.csv", "How many?,1,2,3\n"),
        ("dev/houses_dev.csv", "How many?,1,2,3,4,A\n"),
    ] {
        std::fs::create_dir_all(folder.path().join(name).parent().unwrap()).unwrap();
        std::fs::write(folder.path().join(name), content).unwrap();
    }
    let refused = |args: &[&str]| refused(&[&["run", "--benchmarks"], args].concat());
    for text in ["empty.txt", "short.txt"] {
        assert!(refused(&["ppl", "--ppl-data", &path(text)]).contains(text));
        assert!(refused(&["kld", "--ppl-data", &path(text)]).contains(text));
        assert!(refused(&["needle", "--needle-haystack", &path(text)]).contains(text));
    }
    assert!(refused(&["math", "--data", &path("set.jsonl")]).contains("set.jsonl"));
    assert!(refused(&["mmlu", "--data", folder.path().to_str().unwrap()]).contains("houses_test.csv"));
    assert!(refused(&["mmlu", "--data", &path("set.jsonl")]).contains("dev and test splits"));
}

#[test]
fn output_past_the_positions_of_a_model_is_refused_before_it_is_decoded() {
    let text = refused(&["run", "--output-tokens", "7000"]);
    assert!(text.contains("--output-tokens") && text.contains("7000"), "{text}");
}

#[test]
fn a_wrong_value_names_its_flag_once_and_as_it_is_typed() {
    for (flag, value, known) in [
        ("--step-mode", "graphs", "launches"),
        ("--ppl-protocol", "three-phase", "two-phase"),
        ("--needle-kind", "word", "multi-key"),
        ("--dtype", "fp16", "bf16"),
        ("--device", "gpu", "cuda:N"),
        ("--context-lengths", "4x", "give a whole number, such as 4096 or 4k, or 1k..32k for"),
        ("--output-tokens", "1k..5k", "doubling 1k does not come to 5k"),
        ("--ppl-window", "4M", "give a whole number, such as 4096 or 4k"),
        ("--residual-length", "1.5", "give a whole number"),
        ("--seed", "-1", "give a whole number"),
        ("--ppl-tokens", "99999999999999999999", "too large"),
        ("--needle-depths", "half", "give a number, such as 0.5"),
    ] {
        let output = kvprof().args(["run", flag, value]).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.matches(flag).count() == 1 && text.contains(value) && text.contains(known), "{text}");
    }
    let text = refused(&["run", "--model", "typo.config.json"]);
    assert_eq!(text.trim(), "error: model typo.config.json: no such file");
    let folder = tempfile::tempdir().unwrap();
    let offline = |model: &str| {
        let mut run = kvprof();
        run.env("HF_HUB_OFFLINE", "1").env("HF_HOME", folder.path()).args(["run", "--model", model, "--output-dir"]);
        String::from_utf8(run.arg(folder.path()).output().unwrap().stderr).unwrap()
    };
    for model in ["tmp", "models/typo"] {
        let text = offline(model);
        assert!(text.contains(&format!("there is no folder {model} here, and")), "{text}");
        assert!(text.contains("not in the cache"), "{text}");
    }
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
fn a_gpu_that_cannot_be_had_is_named_with_what_to_do_instead() {
    for device in ["cuda", "cuda:99"] {
        // A machine with a GPU has the first.
        if device == "cuda" && cfg!(feature = "cuda") {
            continue;
        }
        let text = refused(&["run", "--device", device]);
        assert!(text.contains("--device cpu"), "{text}");
        if cfg!(feature = "cuda") {
            assert!(text.contains("no CUDA device 99") || text.contains("nvidia-smi"), "{text}");
        } else {
            assert!(text.contains("this build of kvprof has no CUDA") && text.contains("--features cuda"), "{text}");
        }
    }
    assert!(refused(&["run", "--device", "gpu"]).contains("cuda:N"));
}

#[test]
fn random_weights_refuse_quality() {
    let text = refused(&["run", "--weights", "dummy", "--benchmarks", "ppl"]);
    assert!(text.contains("quality"), "{text}");
}

#[test]
fn a_checkpoint_with_more_layers_than_its_configuration_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let fixture = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models/llama");
    std::fs::copy(fixture.join("model.safetensors"), folder.path().join("model.safetensors")).unwrap();
    let mut config = read(&fixture.join("config.json"));
    let layers = config["num_hidden_layers"].as_u64().unwrap();
    config["num_hidden_layers"] = (layers - 1).into();
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let text = refused(&[
        "run",
        "--model",
        folder.path().to_str().unwrap(),
        "--benchmarks",
        "none",
        "--context-lengths",
        "32",
    ]);
    assert!(text.contains(&format!("layer {}", layers - 1)) && text.contains("model.safetensors"), "{text}");
}
