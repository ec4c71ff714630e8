//! The command line as a person meets it: wrong requests and runs, on the model inside the binary.

#![allow(clippy::unwrap_used, reason = "a test that panics fails, as it should")]

#[path = "cli/exit_codes.rs"]
mod exit_codes;
#[path = "cli/messages.rs"]
mod messages;
#[path = "support/program.rs"]
mod program;
#[path = "cli/published_format.rs"]
mod published_format;
#[path = "cli/refusals.rs"]
mod refusals;
#[path = "cli/resume.rs"]
mod resume;
#[path = "cli/rows.rs"]
mod rows;
#[path = "support/thesis_data.rs"]
mod thesis_data;

use std::path::Path;

use serde_json::Value;

use program::{json_files, kvprof, read};

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

#[test]
fn a_negative_number_is_a_bad_value_of_its_option() {
    const NUMBERS: [&str; 11] =
        ["<N>", "<TOKENS>", "<B>", "<S>", "<DEPTH>", "<SIZE>", "<GB/s>", "<TFLOP/s>", "<PERCENT>", "<POINTS>", "<I/N>"];
    let text = |args: &[&str]| {
        let output = kvprof().args(args).output().unwrap();
        (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    };
    let (folder, mut seen) = (tempfile::tempdir().unwrap(), 0);
    let sweep = folder.path().join("sweep.toml");
    std::fs::write(&sweep, "[[matrix]]\n").unwrap();
    let sweep = sweep.to_str().unwrap();
    // Those of `patch` are those of `run`.
    for command in [vec!["run"], vec!["sweep", sweep, "--dry-run"], vec!["models"], vec!["report"]] {
        let help = text(&[command[0], "--help"]).1;
        for line in help.lines().map(str::trim).filter(|line| line.starts_with("--")) {
            let (option, value) = line.split_once(' ').unwrap_or((line, ""));
            if !NUMBERS.iter().any(|number| value.starts_with(number)) {
                continue;
            }
            for number in ["-5", "-0.5"] {
                let args: Vec<&str> = [command.as_slice(), &[option, number]].concat();
                let (code, said) = text(&args);
                assert_eq!(code, Some(2), "{args:?}: {said}");
                assert!(said.contains(option) && said.contains(number), "{args:?}: {said}");
                assert!(!said.contains("unexpected"), "{args:?}: {said}");
            }
            seen += 1;
        }
    }
    assert!(seen > 25, "only {seen} options found: the help is read wrongly");
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
fn settings_of_a_file_are_used_and_flags_win() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("run.toml");
    let settings = "context-lengths = [256]\nwarmup-runs = 0\nmeasure-runs = 1\ndecode-tokens = 8\nppl-tokens = 64\n";
    std::fs::write(
        &config,
        format!("[settings]\n{settings}[[matrix]]\nkv-quants = ['int8-hqq']\nbenchmarks = ['ppl']\n"),
    )
    .unwrap();
    let run = kvprof()
        .args(["run", "--decode-tokens", "4", "--quiet", "--config"])
        .arg(&config)
        .arg("--output-dir")
        .arg(folder.path())
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let files = json_files(folder.path());
    assert_eq!(files.len(), 1);
    let result = read(&files[0]);
    assert_eq!(result["kv_quant"]["name"], "int8-hqq");
    assert_eq!(
        (&result["measurements"][0]["context_len"], &result["measurements"][0]["decode_tokens"]),
        (&256.into(), &4.into())
    );
    assert_eq!(result["benchmarks"]["perplexity_quantized"]["tokens"], 64);
    // A key that is none is named with its file.
    std::fs::write(&config, "[settings]\ncontext-length = [256]\n").unwrap();
    let output = kvprof().args(["run", "--config"]).arg(&config).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("run.toml") && error.contains("unknown field `context-length`"), "{error}");
    // As is a number that is none, which is told as a flag's would be.
    std::fs::write(&config, "[settings]\ncontext-lengths = ['4x']\n").unwrap();
    let output = kvprof().args(["run", "--config"]).arg(&config).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{error}");
    let told =
        "run.toml: line 2: invalid value '4x' for settings.context-lengths: give a whole number, such as 4096 or 4k";
    assert!(error.contains(told), "{error}");
}

#[test]
fn more_examples_than_a_subject_has_are_not_claimed() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("mmlu");
    for (split, subject, rows) in
        [("dev", "houses", 5), ("dev", "letters", 3), ("test", "houses", 1), ("test", "letters", 1)]
    {
        std::fs::create_dir_all(data.join(split)).unwrap();
        let rows: String = (0..rows).map(|i| format!("Which house is number {i}?,one,two,three,four,A\n")).collect();
        std::fs::write(data.join(format!("{split}/{subject}_{split}.csv")), rows).unwrap();
    }
    let run = |shots: &str| {
        let out = tempfile::tempdir().unwrap();
        let run = kvprof()
            .args([
                "run",
                "--no-profile",
                "--kv-quant",
                "none",
                "--benchmarks",
                "mmlu",
                "--quiet",
                "--mmlu-shots",
                shots,
            ])
            .arg("--data")
            .arg(&data)
            .arg("--output-dir")
            .arg(out.path())
            .output()
            .unwrap();
        let errors = String::from_utf8(run.stderr).unwrap();
        assert!(run.status.success(), "{errors}");
        (read(&json_files(out.path())[0])["benchmarks"]["mmlu"].clone(), errors)
    };
    let (score, errors) = run("500");
    assert!(errors.contains("500") && errors.contains("at most 5"), "{errors}");
    assert_eq!(score["shots"], 5);
    let of = |subject: &str| score["items"].as_array().unwrap().iter().find(|item| item["subject"] == subject).unwrap();
    assert!(of("houses")["shots"].is_null(), "it has all five: {score}");
    assert_eq!(of("letters")["shots"], 3);
    let (as_many, errors) = run("5");
    assert_eq!(errors, "");
    assert_eq!(as_many["plan"], score["plan"], "the same questions were put");
}

#[test]
fn env_completions_and_log_levels_answer() {
    let run = |args: &[&str]| {
        let output = kvprof().args(args).env("HF_HUB_OFFLINE", "1").output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, text, _) = run(&["env"]);
    assert_eq!(code, Some(0));
    for line in ["kvprof", "build", "cpu", "memory", "hub"] {
        assert!(text.lines().any(|l| l.starts_with(line)), "{line}: {text}");
    }
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let (code, script, _) = run(&["completions", shell]);
        assert!(code == Some(0) && script.contains("sweep") && script.contains("kv-quant"), "{shell}");
    }
    let (code, _, error) = run(&["--log-level", "wran", "env"]);
    assert!(code == Some(2) && error.contains("wran") && error.contains("debug"), "{error}");
    for level in ["debug", "off", "kvprof=debug"] {
        assert_eq!(run(&["--log-level", level, "env"]).0, Some(0), "{level}");
    }
}

/// What `kvprof models` prints.
fn models(args: &[&str]) -> String {
    let output = kvprof().arg("models").args(args).env("HF_HUB_OFFLINE", "1").output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn models_lists_the_families_and_says_what_fits() {
    let families = models(&[]);
    for family in ["gpt2", "llama", "mistral", "qwen2", "qwen3", "builtin"] {
        assert!(families.lines().any(|line| line.starts_with(family)), "{family}: {families}");
    }
    let builtin = models(&["builtin", "--memory", "1GiB", "--kv-quant", "none", "int4-hqq"]);
    assert!(builtin.contains("0.003 billion parameters") && builtin.contains("2048 (all)"), "{builtin}");
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("big.config.json");
    std::fs::write(
        &config,
        r#"{"model_type": "llama", "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
            "hidden_size": 4096, "intermediate_size": 14336, "vocab_size": 128256, "max_position_embeddings": 131072}"#,
    )
    .unwrap();
    let config = config.to_str().unwrap();
    let fits = models(&[config, "--memory", "24GiB", "--kv-quant", "none"]);
    for fact in ["8.030 billion parameters, weights 15.0 GiB as f16", "8 KV heads (4:1)", "131072", "16.0 GiB"] {
        assert!(fits.contains(fact), "{fact}: {fits}");
    }
    let fits = models(&[config, "--memory", "24GiB", "--kv-quant", "none", "--context-lengths", "16k..32k"]);
    let rows: Vec<&str> = fits.lines().filter(|line| line.contains("384") || line.contains("768")).collect();
    // 24 − 14.96 GiB hold four sequences of 16384 tokens, of 128 KiB each, or two of twice as many.
    for (row, [tokens, bytes, sequences]) in rows.iter().zip([["16384", "2.0 GiB", "4"], ["32768", "4.0 GiB", "2"]]) {
        let cells: Vec<&str> = row.split(['│', '┆']).map(str::trim).collect();
        assert_eq!(cells[4..7], [tokens, bytes, sequences], "{fits}");
    }
    assert_eq!(rows.len(), 2, "{fits}");
    assert!(
        models(&["builtin", "--context-lengths", "4k"]).contains("4096 is longer than the model allows (2048 tokens)")
    );
    assert!(models(&[config, "--memory", "8GiB"]).contains("the weights do not fit"));
    // On a GPU of this machine or, with --memory, of another.
    std::fs::write(
        Path::new(config),
        std::fs::read_to_string(config).unwrap().replace("\"vocab_size\"", "\"head_dim\": 96, \"vocab_size\""),
    )
    .unwrap();
    assert!(models(&[config, "--device", "cpu"]).contains("head dim 96"));
    let told = models(&[config, "--memory", "24GiB"]);
    assert!(
        told.contains("does not serve it") && told.contains("96 channels") && told.contains("--device cpu"),
        "{told}"
    );
    // More are not looked for.
    assert!(models(&["builtin", "--memory", "64TiB", "--kv-quant", "none"]).contains("65536 or more"));
}

#[test]
fn models_says_why_a_configuration_cannot_be_had() {
    let error = |args: &[&str]| {
        let cache = tempfile::tempdir().unwrap();
        let output =
            kvprof().arg("models").args(args).env("HF_HUB_OFFLINE", "1").env("HF_HOME", cache.path()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, text) = error(&["--kv-quant", "none", "int4-hqq", "builtin"]);
    assert!(code == Some(2) && text.contains("'builtin'") && text.contains("MODEL stands before --kv-quant"), "{text}");
    let help = models(&["--help"]);
    assert!(help.contains("kvprof models [MODEL]... [OPTIONS]"), "{help}");
    let (code, text) = error(&["org/never-downloaded"]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("org/never-downloaded") && text.contains("HF_HUB_OFFLINE"), "{text}");
    assert_eq!(text.trim().lines().count(), 1, "{text}");
    // One that cannot be had does not hide the others.
    assert_eq!(error(&["builtin", "org/never-downloaded"]).0, Some(1));
    assert!(error(&["builtin", "--memory", "much"]).1.contains("24GiB"));
}

#[test]
fn rule_8_what_ran_is_recorded() {
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

#[test]
fn env_says_which_build_it_is_and_what_devices_there_are() {
    let output = kvprof().arg("env").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.starts_with("kvprof"), "{text}");
    let has = |start: &str| text.lines().any(|line| line.starts_with(start));
    if cfg!(feature = "cuda") {
        assert!(has("build     CUDA and CPU") && (has("gpu 0") || has("gpu       none: ")), "{text}");
    } else {
        assert!(has("build     CPU only (build with --features cuda for a GPU)") && !has("gpu"), "{text}");
    }
}

#[cfg(unix)]
#[test]
fn output_that_cannot_be_written_is_an_error_and_no_panic() {
    // A full disk; and what the system calls an error of input and output, as a broken disk gives it.
    for place in ["/dev/full", "/proc/self/mem"].into_iter().filter(|place| std::path::Path::new(place).exists()) {
        for line in [
            "schema",
            "models",
            "env",
            "completions bash",
            "models builtin",
            "--help",
            "--version",
            "run --help",
            "help",
        ] {
            let full = std::fs::OpenOptions::new().write(true).open(place).unwrap();
            let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_kvprof"));
            let output = command.args(line.split(' ')).stdout(full).output().unwrap();
            let text = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(1), "{line} to {place}: {text}");
            assert!(text.contains("standard output") && !text.contains("panicked"), "{line} to {place}: {text}");
        }
    }
}

#[test]
fn a_flag_may_narrow_a_file_with_exclusions() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("runs.toml");
    let matrix = "[[matrix]]\nkv-quants = ['none', 'int4-hqq']\noutput-tokens = [8, 16]\nbenchmarks = []\n";
    std::fs::write(&file, format!("{matrix}exclude = [{{ kv-quants = ['int4-hqq'], output-tokens = [16] }}]\n"))
        .unwrap();
    let out = folder.path().join("out");
    let mut command = kvprof();
    command.args([
        "run",
        "--kv-quant",
        "none",
        "--output-tokens",
        "4",
        "--context-lengths",
        "64",
        "--quiet",
        "--config",
    ]);
    let output = command.arg(&file).arg("--output-dir").arg(&out).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(json_files(&out).len(), 1);
}
