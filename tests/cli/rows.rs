//! What single rows of the profile say.

use std::path::PathBuf;

use serde_json::Value;

use crate::QUICK;
use crate::program::{json_files, kvprof, read};

/// A row of a quick run with `args`, and what the run printed to standard error.
fn quick_row(args: &[&str]) -> (Value, String) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = kvprof();
    command.args(["run", "--benchmarks", "none", "--quiet", "--warmup-runs", "0", "--measure-runs", "1"]);
    let output = command.args(args).arg("--output-dir").arg(folder.path()).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{text}");
    (read(&json_files(folder.path())[0])["measurements"][0].clone(), text)
}

#[test]
fn one_decode_step_can_be_traced() {
    let (row, _) = quick_row(&["--kv-quant", "none", "--context-lengths", "64", "--output-tokens", "1", "--trace"]);
    assert_eq!(row["kernels"]["source"], "timers", "{row}");
    assert!(row["decode_ms"].as_f64().unwrap() > 0.0);
}

#[test]
fn a_trace_that_cannot_be_written_costs_no_times() {
    let (row, _) = quick_row(&[
        "--kv-quant",
        "none",
        "--context-lengths",
        "64",
        "--output-tokens",
        "4",
        "--trace-out",
        "/dev/full",
    ]);
    assert!(row["decode_ms"].as_f64().unwrap() > 0.0);
    let warnings = row["warnings"].to_string();
    assert!(warnings.contains("trace was not written") && warnings.contains("/dev/full"), "{warnings}");
}

#[test]
fn a_context_longer_than_the_models_window_is_told_once_and_in_each_row_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("m.config.json");
    let shape = r#"{"model_type": "mistral", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 1,
        "num_key_value_heads": 1, "vocab_size": 64, "intermediate_size": 64, "max_position_embeddings": 4096, "head_dim": 64,
        "rms_norm_eps": 1e-5, "sliding_window": 128}"#;
    std::fs::write(&config, shape).unwrap();
    let run = |window: &str| {
        let few = "run --weights dummy --kv-quant none int8-hqq,residual=32 --context-lengths 128 192 256 --output-tokens 4 --warmup-runs 0 \
                   --measure-runs 1 --quiet --energy-seconds 0.01 --sliding-window";
        let (out, mut command) = (folder.path().join(window), kvprof());
        command.args(few.split_whitespace()).arg(window).arg("--output-dir").arg(&out).arg("--model").arg(&config);
        let told = String::from_utf8(command.output().unwrap().stderr).unwrap();
        let files: Vec<Value> = json_files(&out).iter().map(|file| read(file)).collect();
        assert_eq!(files.len(), 2, "{told}");
        let warned = |row: &Value| row["warnings"].to_string().contains("the model's own sliding window");
        let rows =
            files.iter().map(|file| file["measurements"].as_array().unwrap().iter().map(warned).collect::<Vec<_>>());
        (told.matches("the model's own sliding window").count(), rows.collect::<Vec<_>>())
    };
    assert_eq!(run("on"), (1, vec![vec![false, true, true]; 2]));
    assert_eq!(run("off"), (0, vec![vec![false; 3]; 2]));
}

#[test]
fn a_follow_up_prompt_is_in_the_row_in_the_table_and_resumed_and_patched_by_its_own_setting() {
    let folder = tempfile::tempdir().unwrap();
    let run = |more: &str| {
        let few = "run --kv-quant int4-hqq --context-lengths 256 --output-tokens 16 --benchmarks none --warmup-runs 0 --measure-runs 2";
        let mut command = kvprof();
        command.args(few.split(' ')).args(more.split_whitespace()).arg("--output-dir").arg(folder.path());
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    assert!(!run("").contains("follow-up"), "what was not asked for has no column");
    let plain = json_files(folder.path()).pop().unwrap();
    assert!(read(&plain)["measurements"][0].get("follow_up").is_none());
    assert!(run("--follow-up-tokens 16 --resume").contains("follow-up ms"));
    assert_eq!(json_files(folder.path()).len(), 2, "a run that asks for it is another");
    run("--follow-up-tokens 16 --resume");
    assert_eq!(json_files(folder.path()).len(), 2, "and has nothing left to do");
    let with = json_files(folder.path()).into_iter().find(|file| *file != plain).unwrap();
    let with = read(&with);
    let follow_up = &with["measurements"][0]["follow_up"];
    assert_eq!((&follow_up["tokens"], follow_up["runs_ms"]["raw"].as_array().unwrap().len()), (&16.into(), 2));
    assert_eq!(with["config"]["flags"]["follow-up-tokens"], 16);
    assert_eq!(with["measurements"][0]["kv_bytes"], read(&plain)["measurements"][0]["kv_bytes"]);
    let patch = ["--follow-up-tokens", "8", "--no-backup", "--quiet", "--benchmarks", "profile"];
    assert!(kvprof().arg("patch").arg(&plain).args(patch).output().unwrap().status.success());
    let row = read(&plain)["measurements"][0].clone();
    assert_eq!((&row["follow_up"]["tokens"], &row["settings"]["follow-up-tokens"]), (&8.into(), &8.into()));
    assert!(kvprof().arg("validate").arg(folder.path()).output().unwrap().status.success());
}

#[test]
fn a_row_says_how_many_tokens_of_its_prompt_were_computed_together() {
    let chunk = |more: &[&str]| {
        let few = ["--kv-quant", "none", "--context-lengths", "96", "--output-tokens", "4"];
        quick_row(&[&few, more].concat()).0["prefill_chunk"].clone()
    };
    // The built-in model has four layers.
    assert_eq!(chunk(&[]), 64);
    assert_eq!(chunk(&["--prefill-chunk", "32"]), 32);
    assert_eq!(chunk(&["--prefill-chunk", "4096"]), 96);
}

#[test]
fn a_row_in_which_no_code_was_read_says_so() {
    let warned = |context: &str| {
        let (row, _) = quick_row(&["--kv-quant", "int4-hqq", "--context-lengths", context, "--output-tokens", "8"]);
        row["warnings"].to_string().contains("no code was read")
    };
    assert!(warned("100"));
    assert!(!warned("256"));
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

/// The limit on file sizes stands in for a full disk, as in the tests of sweeps.
#[cfg(unix)]
#[test]
fn a_trace_file_that_fills_the_disk_ends_with_the_last_whole_pass() {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace.chrome");
    let run = |limit: &str| {
        let out = tempfile::tempdir().unwrap();
        let run = std::process::Command::new("sh")
            .args(["-c", "ulimit -f $1; shift; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_kvprof"), limit])
            .args(["run", "--kv-quant", "none", "int4-hqq,residual=64", "--benchmarks", "none", "--quiet"])
            .args(QUICK)
            .arg("--trace-out")
            .arg(&trace)
            .arg("--output-dir")
            .arg(out.path())
            .output()
            .unwrap();
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        let warned = |file: &PathBuf| read(file)["measurements"][0]["warnings"].to_string().contains("not written");
        let passes = |events: &[Value]| events.iter().filter(|e| e["name"] == "process_name").count();
        let events: Vec<Value> = serde_json::from_slice(&std::fs::read(&trace).unwrap()).unwrap();
        (passes(&events), json_files(out.path()).iter().filter(|file| warned(file)).count())
    };
    assert_eq!(run("unlimited"), (2, 0));
    // Room for one pass and half of the other, in units of 512 bytes.
    let bytes = std::fs::metadata(&trace).unwrap().len();
    assert_eq!(run(&(bytes * 3 / 4 / 512).to_string()), (1, 1));
}

#[test]
fn a_context_too_long_for_the_model_is_a_row_that_says_so_and_the_others_are_measured() {
    let folder = tempfile::tempdir().unwrap();
    let line = "run --kv-quant none int4-hqq --context-lengths 256,5000 --warmup-runs 0 --measure-runs 1 --output-tokens 8 \
                --benchmarks needle --needle-depths 0.5 --quiet --resume --output-dir";
    let run = || kvprof().args(line.split_whitespace()).arg(folder.path()).output().unwrap();
    let output = run();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && output.stdout.is_empty(), "{text}");
    // Quiet, and yet told.
    assert!(text.contains("int4-hqq at 5000: skipped: --context-lengths 5000 is longer"), "{text}");
    let files = json_files(folder.path());
    assert_eq!(files.len(), 2);
    for file in &files {
        let result = read(file);
        let (rows, needle) = (&result["measurements"], &result["benchmarks"]["needle_in_haystack"]);
        assert!(rows[0]["decode_ms"].as_f64().unwrap() > 0.0, "{rows}");
        assert!(rows[1]["skipped"] == true && rows[1]["skip_reason"].as_str().unwrap().contains("5000"), "{rows}");
        let scored: Vec<_> = needle["per_context"].as_object().unwrap().keys().collect();
        assert!(
            scored == ["256"] && needle["skipped_contexts"]["5000"].as_str().unwrap().contains("longer"),
            "{needle}"
        );
    }
    kvprof().arg("validate").arg(folder.path()).assert().success();
    let bytes = || -> Vec<_> { json_files(folder.path()).iter().map(|p| std::fs::read(p).unwrap()).collect() };
    let before = bytes();
    assert!(run().status.success());
    assert!(bytes() == before, "there is nothing to go on with");
}

/// A CPU's memory is the process's, whose allocator keeps what was freed.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[test]
fn the_peak_memory_of_a_row_does_not_depend_on_the_rows_before_it() {
    let peak = |contexts: &str| {
        let folder = tempfile::tempdir().unwrap();
        let line = format!(
            "run --kv-quant none --attn-backend eager --batch-sizes 8 --benchmarks none --quiet --context-lengths {contexts} \
             --output-tokens 4"
        );
        let mut command = kvprof();
        command.args(line.split_whitespace()).args(["--warmup-runs", "0", "--measure-runs", "1", "--output-dir"]);
        assert!(command.arg(folder.path()).output().unwrap().status.success());
        let rows = read(&json_files(folder.path())[0])["measurements"].clone();
        let row = rows.as_array().unwrap().iter().find(|row| row["context_len"] == 128).unwrap().clone();
        row["vram_peak_mb"].as_f64().unwrap()
    };
    // What the threads keep for themselves is a few MiB of 60; of the longer row's 20 nothing may be left.
    let (alone, after) = (peak("128"), peak("2048 128"));
    assert!((after / alone - 1.0).abs() < 0.15, "{alone} MiB alone, {after} MiB after a longer row");
}

#[test]
fn a_text_is_read_once_for_the_check_and_for_every_cache_and_benchmark() {
    let folder = tempfile::tempdir().unwrap();
    let run = kvprof()
        .args(["--log-level", "kvprof=info", "run", "--kv-quant", "none", "int4-hqq", "int8-hqq", "--quiet"])
        .args(["--no-profile", "--benchmarks", "ppl", "kld", "--output-dir"])
        .arg(folder.path())
        .args(QUICK)
        .output()
        .unwrap();
    let text = String::from_utf8(run.stderr).unwrap();
    assert!(run.status.success() && json_files(folder.path()).len() == 3, "{text}");
    assert_eq!(text.matches("tokens to score").count(), 1, "{text}");
}

#[test]
fn a_burn_in_that_ends_before_the_first_codes_is_warned_of_once() {
    let warned = |burn_in: &str| {
        let folder = tempfile::tempdir().unwrap();
        let mut run = kvprof();
        run.args(["run", "--no-profile", "--kv-quant", "int4-hqq", "--attn-backend", "sdpa", "eager"]);
        run.args(["--benchmarks", "ppl", "kld", "--ppl-window", "512"]);
        run.args(["--ppl-burn-in", burn_in, "--quiet", "--ppl-tokens", "256", "--output-dir"]);
        let output = run.arg(folder.path()).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{text}");
        text.matches("are predicted without codes").count()
    };
    assert_eq!(warned("64"), 1, "by two benchmarks in two runs");
    // The token after the first 192 is the first to read a code, and predicts the next one.
    assert_eq!((warned("192"), warned("193")), (1, 0));
}
