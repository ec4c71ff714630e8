//! `kvprof patch`: blocks of existing files measured again, everything else as it was.

#![allow(clippy::unwrap_used, reason = "a test that panics fails, as it should")]

#[path = "patch/follow_up.rs"]
mod follow_up;
#[path = "support/thesis_data.rs"]
mod thesis_data;

#[path = "support/program.rs"]
mod program;

use std::path::{Path, PathBuf};

use serde_json::Value;

use program::{builtin_in, json_files, kvprof, read};

/// A file as the thesis tool writes them, with fields kvprof knows nothing of.
const THESIS_FILE: &str = r#"{
  "schema_version": "2.0", "experiment_id": "old", "timestamp": "2026-05-03T16:20:11", "model": "builtin",
  "model_config": {"num_params_b": 0.0031, "num_layers": 4, "num_q_heads": 4, "num_kv_heads": 2, "gqa_ratio": "2:1",
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
fn a_patch_shows_what_it_measured_and_names_the_files() {
    let folder = tempfile::tempdir().unwrap();
    let paths = ["a.json", "b.json"].map(|name| folder.path().join(name));
    std::fs::write(&paths[0], THESIS_FILE).unwrap();
    std::fs::write(&paths[1], THESIS_FILE.replace("\"nbits\": 4", "\"nbits\": 8")).unwrap();
    let patch = |more: &[&str]| {
        let line = ["--benchmarks", "needle", "--context-lengths", "256", "--needle-depths", "0.5", "--no-backup"];
        let output = kvprof().arg("patch").args(&paths).args(line).args(more).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let shown = patch(&[]);
    for told in ["INT4", "INT8", "at 50 %"].into_iter().chain(paths.iter().map(|path| path.to_str().unwrap())) {
        assert!(shown.contains(told), "{told} in\n{shown}");
    }
    // Of the needles, not of what the files had before.
    assert!(!shown.contains("prefill ms") && !shown.contains("PPL"), "{shown}");
    assert_eq!(patch(&["--quiet"]), "");
}

#[test]
fn repetitions_of_a_run_in_one_folder_are_patched_together_and_a_file_given_twice_once() {
    let folder = tempfile::tempdir().unwrap();
    let hashed = THESIS_FILE.replacen("{", "{\n  \"spec_hash\": \"0123456789abcdef\",", 1);
    let paths = ["a.json", "b.json"].map(|name| folder.path().join(name));
    paths.iter().for_each(|path| std::fs::write(path, &hashed).unwrap());
    let line =
        ["--benchmarks", "needle", "--context-lengths", "256", "--needle-depths", "0.5", "--no-backup", "--quiet"];
    let respelt = folder.path().join(".").join("a.json");
    let patch = kvprof().arg("patch").args(&paths).arg(respelt).args(line).output().unwrap();
    assert!(patch.status.success(), "{}", String::from_utf8_lossy(&patch.stderr));
    for path in &paths {
        assert_eq!(read(path)["patched"].as_array().map(Vec::len), Some(1), "{}", path.display());
    }
    assert_eq!(names(folder.path()), ["a.json", "b.json"], "no lock is left");
}

#[test]
fn a_patch_that_brings_a_block_that_was_missing_takes_away_the_warning_that_said_why() {
    let folder = tempfile::tempdir().unwrap();
    kvprof().args(QUICK.split_whitespace()).arg(folder.path()).arg("--quiet").assert().success();
    let path = json_files(folder.path()).pop().unwrap();
    let mut result = read(&path);
    let lack = "not tried for lack of memory: 2 GiB are free";
    let (needle, math) = ("needle: the haystack could not be read", "math: problem 3 fills the model's 256 tokens");
    for (row, context) in [256, 300].into_iter().enumerate() {
        let row = &mut result["measurements"][row];
        *row = serde_json::json!({"context_len": context, "batch_size": 1, "skipped": true, "skip_reason": lack});
    }
    result["completed"] = serde_json::json!([]);
    result["benchmarks"] = serde_json::json!({});
    result["warnings"] = serde_json::json!([lack, needle, math, "interrupted"]);
    std::fs::write(&path, serde_json::to_string(&result).unwrap()).unwrap();
    let patch = |flags: &str| {
        let words = flags.split_whitespace();
        kvprof().arg("patch").arg(&path).args(["--no-backup", "--quiet"]).args(words).assert().success();
        read(&path)["warnings"].clone()
    };
    // The rows are still skipped, and math is still not there.
    assert_eq!(patch("--benchmarks needle"), serde_json::json!([lack, math]));
    assert_eq!(patch("--benchmarks profile --context-lengths 256"), serde_json::json!([lack, math]));
    assert_eq!(patch("--benchmarks profile"), serde_json::json!([math]));
    kvprof().arg("validate").arg(&path).assert().success();
}

#[test]
fn a_trace_that_would_not_be_written_is_refused_before_anything_is_measured() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("old.json");
    std::fs::write(&path, THESIS_FILE).unwrap();
    let refused = |blocks: &str, trace: &Path| {
        let mut patch = kvprof();
        patch.arg("patch").arg(&path).args(["--benchmarks", blocks, "--trace-out"]).arg(trace);
        let output = patch.output().unwrap();
        assert!(!output.status.success());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), THESIS_FILE);
        String::from_utf8(output.stderr).unwrap()
    };
    let said = refused("needle", &folder.path().join("trace.json"));
    assert!(said.contains("--trace-out") && said.contains("profile"), "{said}");
    let said = refused("profile", &folder.path().join("absent/trace.json"));
    assert!(said.contains("absent"), "{said}");
    let said = refused("profile", &path);
    assert!(said.contains("is one of the result files"), "{said}");
    assert_eq!(names(folder.path()), ["old.json"]);
}

#[cfg(unix)]
#[test]
fn a_patch_of_a_link_changes_the_file_that_it_leads_to() {
    let folder = tempfile::tempdir().unwrap();
    let (real, link) = (folder.path().join("raw/old.json"), folder.path().join("latest.json"));
    std::fs::create_dir(folder.path().join("raw")).unwrap();
    std::fs::write(&real, THESIS_FILE).unwrap();
    std::os::unix::fs::symlink("raw/old.json", &link).unwrap();
    let patch = ["--benchmarks", "needle", "--needle-depths", "0.5", "--quiet"];
    kvprof().arg("patch").arg(&link).args(patch).assert().success();
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(read(&real)["benchmarks"]["needle_in_haystack"]["total_trials"], 1);
    assert_eq!(std::fs::read_to_string(folder.path().join("raw/old.json.bak")).unwrap(), THESIS_FILE);
}

/// A run of the built-in model; the folder follows.
const QUICK: &str = "run --kv-quant int4-hqq --context-lengths 256 300 --warmup-runs 0 --measure-runs 1 --decode-tokens 8 \
                     --needle-depths 0.5 --benchmarks needle --output-dir";

#[test]
fn a_patched_block_carries_the_settings_it_was_measured_with_and_the_others_keep_the_runs() {
    let folder = tempfile::tempdir().unwrap();
    kvprof().args(QUICK.split_whitespace()).arg(folder.path()).arg("--quiet").assert().success();
    let path = json_files(folder.path()).pop().unwrap();
    let before = read(&path);
    assert!(before["measurements"][0]["settings"].is_null(), "the run's own blocks have those of config");
    let patch = |flags: &str| {
        let words = flags.split_whitespace();
        kvprof().arg("patch").arg(&path).args(["--no-backup", "--quiet"]).args(words).assert().success();
        read(&path)
    };
    let after = patch("--benchmarks needle --needle-trials 2");
    let needle = &after["benchmarks"]["needle_in_haystack"];
    assert_eq!((&needle["total_trials"], &needle["settings"]["needle-trials"]), (&4.into(), &2.into()));
    assert_eq!(needle["settings"]["decode-tokens"], 8, "what no flag says is as the run had it: {needle}");
    assert_eq!(after["measurements"], before["measurements"]);
    // The other row stays, and stays complete.
    let after = patch("--benchmarks profile --context-lengths 256 --decode-tokens 4");
    let rows = &after["measurements"];
    assert_eq!((&rows[0]["decode_tokens"], &rows[0]["settings"]["decode-tokens"]), (&4.into(), &4.into()));
    assert_eq!(rows[1], before["measurements"][1]);
    assert_eq!(after["benchmarks"]["needle_in_haystack"]["settings"]["needle-trials"], 2, "a patch leaves another's");
    let mut completed: Vec<&str> = after["completed"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    completed.sort_unstable();
    assert_eq!(completed, ["needle", "profile@256x1", "profile@300x1"]);
    // Without flags the run's settings are in force again.
    let needle = patch("--benchmarks needle")["benchmarks"]["needle_in_haystack"].clone();
    assert_eq!((&needle["total_trials"], &needle["settings"]["needle-trials"]), (&2.into(), &1.into()));
    assert_eq!(read(&path)["config"], before["config"], "which config goes on to tell");
    kvprof().arg("validate").arg(folder.path()).assert().success();
    // The file is complete for the run that it was: what somebody had patched is not taken away by a run that goes on. It is told.
    let patched = std::fs::read(&path).unwrap();
    let going_on = kvprof().args(QUICK.split_whitespace()).arg(folder.path()).arg("--resume").output().unwrap();
    assert!(going_on.status.success());
    assert_eq!(json_files(folder.path()).len(), 1);
    assert!(std::fs::read(&path).unwrap() == patched);
    let told = String::from_utf8(going_on.stderr).unwrap();
    assert!(told.contains("int4-hqq at 256: patched with --decode-tokens 4 (the run's: 8)"), "{told}");
    assert!(!told.contains("needle"), "which has the run's settings again: {told}");
}

#[test]
fn a_file_of_another_model_is_refused_and_left_untouched_and_one_that_was_moved_is_not() {
    let Some(files) = thesis_data::files() else { return };
    let folder = tempfile::tempdir().unwrap();
    let thesis = folder.path().join("thesis.json");
    std::fs::copy(&files[0], &thesis).unwrap();
    let run = |flags: &str| kvprof().args(flags.split_whitespace()).arg(folder.path()).arg("--quiet").output().unwrap();
    assert!(run(QUICK).status.success());
    let own = json_files(folder.path()).into_iter().find(|path| *path != thesis).unwrap();
    let (same, other) = (builtin_in(folder.path(), "moved", false), builtin_in(folder.path(), "other", true));
    let patch = |file: &Path, model: &Path| {
        let before = std::fs::read(file).unwrap();
        let output = kvprof()
            .arg("patch")
            .arg(file)
            .args(["--benchmarks", "needle", "--no-backup", "--model"])
            .arg(model)
            .output();
        let output = output.unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), said, std::fs::read(file).unwrap() == before)
    };
    let (code, said, untouched) = patch(&thesis, Path::new("builtin"));
    assert!(code == Some(2) && untouched && said.contains("layers 32, here 4"), "{said}");
    let (code, said, untouched) = patch(&own, &other);
    assert!(code == Some(2) && untouched && said.contains("weights ") && said.contains("--model"), "{said}");
    let (code, said, untouched) = patch(&own, &same);
    assert!(code == Some(0) && !untouched, "{said}");
}

#[test]
fn a_patch_with_another_tokenizer_is_refused_where_texts_are_read() {
    let folder = tempfile::tempdir().unwrap();
    kvprof().args(QUICK.split_whitespace()).arg(folder.path()).arg("--quiet").assert().success();
    let path = json_files(folder.path()).pop().unwrap();
    let model = builtin_in(folder.path(), "model", false);
    let tokenizer = model.join("tokenizer.json");
    std::fs::write(&tokenizer, std::fs::read_to_string(&tokenizer).unwrap() + "\n").unwrap();
    let patch = |block: &str| {
        let mut command = kvprof();
        command.arg("patch").arg(&path).args(["--no-backup", "--quiet", "--benchmarks", block, "--model"]).arg(&model);
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, said) = patch("needle");
    assert!(
        code == Some(2) && said.contains("tokenizer (with its chat template) ") && said.contains("--model"),
        "{said}"
    );
    let (code, said) = patch("profile");
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn the_usage_line_can_be_followed_and_all_stands_for_every_benchmark() {
    let help = kvprof().args(["patch", "--help"]).output().unwrap();
    assert!(
        String::from_utf8(help.stdout).unwrap().contains("kvprof patch [OPTIONS] <FILE>... --benchmarks <NAME>...")
    );
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("old.json");
    std::fs::write(&path, THESIS_FILE).unwrap();
    let patch =
        kvprof().arg("patch").arg(&path).args(["--benchmarks", "all", "--data", "no/such/folder"]).output().unwrap();
    let said = String::from_utf8(patch.stderr).unwrap();
    assert!(said.contains("no/such/folder") && !said.contains("unknown"), "{said}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), THESIS_FILE, "nothing was measured");
}

#[test]
fn a_patch_warns_of_what_it_measured_and_not_of_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    // A row that says that it measured an unquantized cache, and a context that has no needles.
    let run = "run --kv-quant int4-hqq --context-lengths 128 256 --warmup-runs 0 --measure-runs 1 --decode-tokens 8 \
               --needle-depths 0.5 --benchmarks needle --quiet --output-dir";
    let run = kvprof().args(run.split_whitespace()).arg(folder.path()).output().unwrap();
    let said = String::from_utf8(run.stderr).unwrap();
    assert!(said.contains("int4-hqq at 128: no code was read"), "{said}");
    assert!(said.contains("int4-hqq, needle at 128: no score: no key was read from codes"), "{said}");
    let path = json_files(folder.path()).pop().unwrap();
    let patch = |block: &str| {
        let patch = kvprof().arg("patch").arg(&path).args(["--no-backup", "--quiet", "--benchmarks", block]).output();
        String::from_utf8(patch.unwrap().stderr).unwrap()
    };
    let (needle, profile) = (patch("needle"), patch("profile"));
    assert!(needle.contains("no score") && !needle.contains("no code was read"), "{needle}");
    assert!(!profile.contains("no score") && profile.contains("no code was read"), "{profile}");
}

#[test]
fn help_says_what_patch_takes_where_a_setting_is_not_given() {
    let help = |command: &str| {
        let output = kvprof().args([command, "--help"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let patch = help("patch");
    let (_, settings) = patch.split_once("(what is not given is as each file's run had it)").unwrap();
    assert!(settings.contains("--ppl-tokens") && settings.contains("--seed"), "{settings}");
    assert!(!settings.contains("[default"), "{settings}");
    assert!(patch.contains("whatever an earlier patch measured it with"), "{patch}");
    assert!(help("run").contains("0: the whole text [default: 4096]"));
    assert!(help("run").contains("what `kvprof patch` measured with other settings stays"));
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

/// The names of a folder's files, sorted.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Copies of the thesis' ten files in `folder`, in order, as if they told of a model of the built-in one's shape, which stands in for
/// theirs.
fn copies(files: &[PathBuf], folder: &Path) -> Vec<PathBuf> {
    let copy = |file: &PathBuf| {
        let to = folder.join(file.file_name().unwrap());
        let mut result = read(file);
        let builtin: Value = serde_json::from_str(THESIS_FILE).unwrap();
        for (key, value) in builtin["model_config"].as_object().unwrap() {
            result["model_config"][key] = value.clone();
        }
        std::fs::write(&to, serde_json::to_string_pretty(&result).unwrap()).unwrap();
        to
    };
    files.iter().map(copy).collect()
}

/// Settings that let the built-in model stand in for the thesis' models, and make a block take a second.
const STAND_IN: [&str; 10] = [
    "--model",
    "builtin",
    "--device",
    "cpu",
    "--context-lengths",
    "256",
    "--needle-depths",
    "0.5",
    "--ppl-data",
    "builtin",
];

#[test]
fn every_field_of_the_thesis_files_that_a_patch_does_not_own_comes_back() {
    let Some(files) = thesis_data::files() else { return };
    let folder = tempfile::tempdir().unwrap();
    let copies = copies(&files, folder.path());
    let originals: Vec<Vec<u8>> = copies.iter().map(|copy| std::fs::read(copy).unwrap()).collect();
    let patch = kvprof().arg("patch").args(&copies).args(["--benchmarks", "needle", "--quiet"]).args(STAND_IN).output();
    let patch = patch.unwrap();
    assert!(patch.status.success(), "{}", String::from_utf8_lossy(&patch.stderr));
    for (original, copy) in originals.iter().zip(&copies) {
        let before: Value = serde_json::from_slice(original).unwrap();
        let mut after = read(copy);
        let needle = &after["benchmarks"]["needle_in_haystack"];
        assert_eq!(needle["total_trials"], 1, "measured again: {needle}");
        assert_ne!(needle, &before["benchmarks"]["needle_in_haystack"]);
        let note = &after["patched"][0];
        assert_eq!((&note["blocks"][0], &note["model"]), (&"needle".into(), &"builtin".into()));
        // What is left after taking out what the patch owns is the file as it was, in the same order and with the same numbers.
        for owned in ["needle_in_haystack", "needle_in_haystack_trials"] {
            let old = before["benchmarks"].get(owned);
            let block = after["benchmarks"].as_object_mut().unwrap();
            match old {
                Some(old) => block[owned] = old.clone(),
                None => drop(block.shift_remove(owned)),
            }
        }
        after.as_object_mut().unwrap().retain(|key, _| key != "patched" && key != "completed");
        assert_eq!(
            serde_json::to_string(&after).unwrap(),
            serde_json::to_string(&before).unwrap(),
            "{}",
            copy.display()
        );
        let backup = PathBuf::from(format!("{}.bak", copy.display()));
        assert_eq!(&std::fs::read(backup).unwrap(), original);
    }
}

#[test]
fn damaged_thesis_files_are_refused_and_left_byte_for_byte_and_the_others_are_patched() {
    let Some(files) = thesis_data::files() else { return };
    let folder = tempfile::tempdir().unwrap();
    let good = copies(&files[..1], folder.path()).remove(0);
    let text = std::fs::read_to_string(&files[1]).unwrap();
    let damaged = [
        ("cut.json", text[..text.len() * 2 / 3].to_string()),
        ("typed.json", text.replacen("\"context_len\": ", "\"context_len\": -", 1)),
        ("empty.json", String::new()),
        ("newer.json", text.replacen("\"2.0\"", "\"4.0\"", 1)),
        ("foreign.json", "{\"name\": \"package\"}".to_string()),
    ];
    for (name, content) in &damaged {
        assert_ne!(content, &text, "{name} is damaged");
        std::fs::write(folder.path().join(name), content).unwrap();
    }
    let patch =
        kvprof().arg("patch").arg(folder.path()).args(["--benchmarks", "needle", "--quiet"]).args(STAND_IN).output();
    let patch = patch.unwrap();
    assert_eq!(patch.status.code(), Some(1), "some files failed");
    let errors = String::from_utf8(patch.stderr).unwrap();
    for (name, content) in &damaged {
        assert!(errors.lines().any(|line| line.contains(name)), "{name} is named: {errors}");
        assert_eq!(&std::fs::read_to_string(folder.path().join(name)).unwrap(), content, "{name}");
    }
    assert_eq!(read(&good)["patched"][0]["blocks"][0], "needle");
    let mut expected: Vec<String> = damaged.iter().map(|(name, _)| name.to_string()).collect();
    let good = good.file_name().unwrap().to_str().unwrap();
    expected.extend([good.to_string(), format!("{good}.bak")]);
    expected.sort();
    assert_eq!(names(folder.path()), expected, "nothing but one backup was added");
}
