//! Runs that differ in what they measure are not taken for repetitions of one another, and are not compared as if they were.

use std::path::{Path, PathBuf};

use kvprof::schema::{DataSource, FollowUp, Outcome, QuestionItem, RunResult};

use crate::results::{self, Cache};
use crate::{kvprof, stderr};

fn int4() -> RunResult {
    results::run("m", &Cache::new("int4-hqq", 4, 0.004))
}

/// The same, begun a day later.
fn later(mut result: RunResult) -> RunResult {
    result.timestamp = "2026-11-02T12:00:00".into();
    result.experiment_id.push_str("_later");
    result
}

fn flag(mut result: RunResult, name: &str, value: impl Into<serde_json::Value>) -> RunResult {
    result.config.flags.insert(name.into(), value.into());
    result
}

/// Without a sliding window, or with one of 4096 tokens.
fn window(mut result: RunResult, on: bool) -> RunResult {
    result.model_config.sliding_window = on.then_some(4096);
    result.model_config.extra.insert("sliding_window_switch".into(), if on { "on" } else { "off" }.into());
    result
}

fn scored_on(mut result: RunResult, sha256: &str) -> RunResult {
    let b = &mut result.benchmarks;
    for p in b.perplexity.iter_mut().chain(b.perplexity_quantized.iter_mut()) {
        p.data = Some(DataSource { name: "book".into(), revision: None, sha256: sha256.repeat(32) });
    }
    result
}

fn write(folder: &Path, name: &str, files: &[RunResult]) -> PathBuf {
    let folder = folder.join(name);
    std::fs::create_dir_all(&folder).unwrap();
    files.iter().for_each(|file| drop(results::write(&folder, file)));
    folder
}

/// The rows of `aggregate` on a folder of `files`, and what it says.
fn aggregate(files: &[RunResult]) -> (Vec<std::collections::HashMap<String, String>>, String) {
    let folder = tempfile::tempdir().unwrap();
    let output = kvprof().arg("aggregate").arg(write(folder.path(), "raw", files)).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let rows = csv::Reader::from_reader(&output.stdout[..]).deserialize().map(Result::unwrap).collect();
    (rows, stderr(&output))
}

/// The lines of `compare`, and what it says.
fn compare(base: &[RunResult], new: &[RunResult]) -> (Vec<serde_json::Value>, String) {
    let folder = tempfile::tempdir().unwrap();
    let (base, new) = (write(folder.path(), "base", base), write(folder.path(), "new", new));
    let output = kvprof().arg("compare").arg(base).arg("--against").arg(new).args(["-f", "json"]).output().unwrap();
    (serde_json::from_slice(&output.stdout).unwrap_or_default(), stderr(&output))
}

fn of<'a>(lines: &'a [serde_json::Value], metric: &str) -> Vec<&'a serde_json::Value> {
    lines.iter().filter(|line| line["metric"] == metric).collect()
}

#[test]
fn what_changes_a_cost_keeps_rows_apart_and_a_repetition_does_not() {
    let plain = |result| flag(flag(result, "prefill-chunk", serde_json::Value::Null), "step-mode", "graph");
    let mut other_card = plain(int4());
    other_card.hardware.gpu_name = Some("NVIDIA A100".into());
    for (what, other) in [
        ("prefill chunk", flag(plain(int4()), "prefill-chunk", 256)),
        ("step mode", flag(plain(int4()), "step-mode", "plain")),
        ("sliding window", window(plain(int4()), true)),
        ("device", other_card),
    ] {
        let (rows, said) = aggregate(&[plain(int4()), later(other)]);
        assert_eq!(rows.len(), 2 * results::CONTEXTS.len(), "{what}: {said}");
        assert!(!said.contains("measurements are left out"), "{what}: {said}");
    }
    for (what, same) in [("seed", flag(plain(int4()), "seed", 7)), ("no window", window(plain(int4()), false))] {
        let (rows, said) = aggregate(&[plain(int4()), later(same)]);
        assert_eq!(rows.len(), results::CONTEXTS.len(), "{what}");
        assert!(said.contains("3 measurements are left out"), "{what}: {said}");
    }
}

#[test]
fn a_step_mode_counts_where_it_had_an_effect() {
    let with = |mode: &str, change: &dyn Fn(&mut RunResult)| {
        let mut result = flag(int4(), "step-mode", mode);
        change(&mut result);
        result
    };
    let unserved = |result: &mut RunResult| {
        let kernel = "decode_int4_d80; step: plain decoder (heads of 80 channels)";
        result.measurements.iter_mut().for_each(|m| m.attention_kernel = Some(kernel.into()));
    };
    let recorded = |result: &mut RunResult| {
        result.measurements.iter_mut().for_each(|m| m.step_mode = Some("plain".into()));
    };
    let on_cpu = |result: &mut RunResult| result.hardware.device = Some("cpu".into());
    let eager = |result: &mut RunResult| result.attn_backend = "eager".into();
    for change in [&unserved as &dyn Fn(&mut RunResult), &recorded, &on_cpu, &eager] {
        let (rows, said) = aggregate(&[with("graph", change), later(with("launches", change))]);
        assert_eq!(rows.len(), results::CONTEXTS.len(), "{said}");
    }
    let asked = |result: &mut RunResult| {
        let kernel = "decode_int4_d64; step: plain decoder (asked for)";
        result.measurements.iter_mut().for_each(|m| m.attention_kernel = Some(kernel.into()));
    };
    for change in [&asked as &dyn Fn(&mut RunResult), &recorded] {
        let (rows, said) = aggregate(&[with("graph", &|_| ()), later(with("plain", change))]);
        assert_eq!(rows.len(), 2 * results::CONTEXTS.len(), "{said}");
    }
}

#[test]
fn aggregate_says_how_steps_were_made_whatever_was_asked_for() {
    let ran = |words: &str| {
        let mut result = flag(int4(), "step-mode", "graph");
        result.measurements.iter_mut().for_each(|m| m.attention_kernel = (!words.is_empty()).then(|| words.into()));
        aggregate(&[result]).0[0]["step_mode"].clone()
    };
    assert_eq!(ran("decode_int4_d128; step: 199 kernels, one CUDA graph"), "graph");
    assert_eq!(ran("decode_int4_d128; step: 199 kernels, launched one by one"), "launches");
    assert_eq!(ran("decode_int4_d80; step: plain decoder (heads of 80 channels)"), "plain");
    assert_eq!(ran("flash"), "", "an older file does not say");
    let mut recorded = int4();
    recorded.measurements.iter_mut().for_each(|m| m.step_mode = Some("launches".into()));
    assert_eq!(aggregate(&[recorded]).0[0]["step_mode"], "launches", "the field, where a file has it");
    assert_eq!(ran(""), "");
}

#[test]
fn a_name_leaves_out_what_is_usual() {
    let row = |chunk: serde_json::Value, mode: &str| flag(flag(int4(), "prefill-chunk", chunk), "step-mode", mode);
    let mut third = row(256.into(), "graph");
    third.experiment_id.push_str("_third");
    let folder = tempfile::tempdir().unwrap();
    let files = [row(serde_json::Value::Null, "graph"), later(row(serde_json::Value::Null, "plain")), third];
    let (raw, out) = (write(folder.path(), "raw", &files), folder.path().join("out"));
    let output = kvprof().arg("report").arg(raw).arg("-o").arg(&out).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let latency = std::fs::read_to_string(out.join("tables/latency.csv")).unwrap();
    for name in ["m,", "m · prefill chunks of 256,", "m · step mode plain,"] {
        let rows = latency.lines().filter(|line| line.starts_with(name)).count();
        assert_eq!(rows, results::CONTEXTS.len(), "{name} in\n{latency}");
    }
}

#[test]
fn rows_say_which_setting_is_theirs() {
    let row = |chunk: usize, on: bool| flag(window(int4(), on), "prefill-chunk", chunk);
    let mut third = row(512, true);
    third.experiment_id.push_str("_third");
    let files = [row(256, true), later(row(512, false)), third];
    let folder = tempfile::tempdir().unwrap();
    let (raw, out) = (write(folder.path(), "raw", &files), folder.path().join("out"));
    let output = kvprof().arg("report").arg(raw).arg("-o").arg(&out).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let latency = std::fs::read_to_string(out.join("tables/latency.csv")).unwrap();
    for name in [
        "m · sliding window of 4096 · prefill chunks of 256,",
        "m · sliding window of 4096 · prefill chunks of 512,",
        "m · no sliding window,",
    ] {
        assert_eq!(latency.matches(name).count(), results::CONTEXTS.len(), "{name} in\n{latency}");
    }
    let (rows, _) = aggregate(&files);
    let mut told: Vec<_> = rows.iter().map(|row| (&*row["sliding_window"], &*row["prefill_chunk"])).collect();
    told.sort_unstable();
    told.dedup();
    assert_eq!(told, [("", "512"), ("4096", "256"), ("4096", "512")]);
}

#[test]
fn rows_that_a_patch_measured_with_another_setting_are_told_apart_within_a_file() {
    let mut patched = flag(int4(), "prefill-chunk", 256);
    let row = &mut patched.measurements[0];
    row.settings = Some([("prefill-chunk".to_string(), 512.into())].into());
    row.prefill_ms = Some(777.0);
    // An older file, all of it with the patch's setting: of the two rows that were measured alike, the newer one counts.
    let mut older = flag(int4(), "prefill-chunk", 512);
    older.timestamp = "2026-10-01T12:00:00".into();
    older.experiment_id = "older".into();
    let (rows, said) = aggregate(&[patched, older]);
    assert_eq!(rows.len(), 3 + 3 - 1, "{said}");
    assert!(said.contains("1 measurement is left out"), "{said}");
    assert!(rows.iter().all(|row| row["ln_ppl_ratio"] == "0.004"), "a file's scores are those of all its rows");
}

#[test]
fn a_score_on_another_text_replaces_none_and_its_cost_is_a_repetition() {
    let (rows, said) = aggregate(&[scored_on(int4(), "ab"), later(scored_on(int4(), "cd"))]);
    let digests: Vec<&str> = rows.iter().map(|row| &row["ppl_data_sha256"][..2]).collect();
    assert_eq!(digests.iter().filter(|d| **d == "cd").count(), results::CONTEXTS.len(), "{digests:?}");
    assert_eq!(digests.iter().filter(|d| **d == "ab").count(), 1, "the older score stands by itself: {digests:?}");
    assert!(said.contains("3 measurements are left out") && said.contains("3 scores are left out"), "{said}");
    let apart = rows.iter().find(|row| row["ppl_data_sha256"].starts_with("ab")).unwrap();
    assert_eq!((apart["context_len"].as_str(), apart["ln_ppl_ratio"].as_str()), ("", "0.004"));
    let (rows, said) = aggregate(&[scored_on(int4(), "ab"), later(scored_on(int4(), "ab"))]);
    assert_eq!(rows.len(), results::CONTEXTS.len());
    assert!(said.contains("4 scores are left out"), "{said}");
}

#[test]
fn a_score_that_was_set_apart_is_shown_and_gives_no_advice() {
    let folder = tempfile::tempdir().unwrap();
    let files = [scored_on(int4(), "ab"), later(scored_on(int4(), "cd"))];
    let (raw, out) = (write(folder.path(), "raw", &files), folder.path().join("out"));
    let output = kvprof().arg("report").arg(raw).arg("-o").arg(&out).output().unwrap();
    assert!(stderr(&output).contains("3 measurements are left out"), "{}", stderr(&output));
    let delta = std::fs::read_to_string(out.join("tables/delta_ppl.csv")).unwrap();
    assert!(delta.contains("m · scored: SHA-256 abababab,SHA-256 abababab,"), "{delta}");
    let page = std::fs::read_to_string(out.join("report.html")).unwrap();
    assert!(page.contains("For m, ") && !page.contains("For m · scored"));
    assert_eq!(page.matches("m_fused_int4_hqq_20261101_120000_later.json</a>").count(), 1, "each file is listed once");
}

#[test]
fn compare_leaves_out_what_other_settings_change() {
    let outputs = |mut result: RunResult, tokens: usize| {
        result.config.decode_tokens = tokens;
        result.measurements.iter_mut().for_each(|m| m.decode_tokens = Some(tokens));
        result
    };
    let (lines, said) = compare(&[int4()], &[outputs(int4(), 1280)]);
    for metric in ["kv", "memory", "decode", "energy"] {
        assert_eq!(of(&lines, metric).len(), 0, "{metric}");
    }
    assert_eq!(of(&lines, "prefill").len(), results::CONTEXTS.len(), "a prompt takes what it takes");
    let told = "m int4-hqq, 1280 tokens out against 128 tokens out at 1024 tokens, batch 1: kv, memory, decode, energy";
    assert!(said.contains(told), "{said}");

    let (lines, said) = compare(&[flag(int4(), "prefill-chunk", 256)], &[flag(int4(), "prefill-chunk", 512)]);
    for metric in ["kv", "memory", "prefill"] {
        assert_eq!(of(&lines, metric).len(), 0, "{metric}");
    }
    assert_eq!(of(&lines, "decode").len(), results::CONTEXTS.len());
    assert!(said.contains("prefill chunks of 512 against prefill chunks of 256"), "{said}");

    let follow_ups = |mut result: RunResult, tokens: usize| {
        let runs_ms = kvprof::base::stats::Summary::of(&[tokens as f64; 3]).unwrap();
        for m in &mut result.measurements {
            let (ms, tokens_per_sec) = (runs_ms.median, 1e3);
            m.follow_up =
                Some(FollowUp { tokens, ms, tokens_per_sec, runs_ms: runs_ms.clone(), ..FollowUp::default() });
        }
        result
    };
    let (lines, said) = compare(&[follow_ups(int4(), 64)], &[follow_ups(int4(), 64)]);
    assert_eq!(of(&lines, "follow-up").len(), results::CONTEXTS.len(), "{said}");
    let (lines, said) = compare(&[follow_ups(int4(), 64)], &[follow_ups(int4(), 96)]);
    assert_eq!((of(&lines, "follow-up").len(), of(&lines, "decode").len()), (0, results::CONTEXTS.len()));
    assert!(said.contains("follow-up prompts of 96 against follow-up prompts of 64"), "{said}");

    // The base has both: like is paired with like.
    let both = [flag(int4(), "prefill-chunk", 256), later(flag(int4(), "prefill-chunk", 512))];
    let (lines, said) = compare(&both, &both[1..]);
    assert_eq!(of(&lines, "prefill").len(), results::CONTEXTS.len(), "{said}");
    assert!(lines.iter().all(|line| line["change_value"] == 0.0 && line["cache"] == "int4-hqq"), "{lines:?}");
}

#[test]
fn compare_holds_prefill_chunks_to_what_was_used() {
    let used = |mut result: RunResult, most: usize| {
        result.measurements.iter_mut().for_each(|m| m.prefill_chunk = Some(most.min(m.context_len)));
        result
    };
    let asked = |chunk: usize| flag(int4(), "prefill-chunk", chunk);
    let usual = || flag(int4(), "prefill-chunk", serde_json::Value::Null);
    let alike = [
        (used(usual(), 2048), used(asked(2048), 2048)),
        // Older files say what was asked for: no chunk is longer than the prompt.
        (asked(4096), asked(8192)),
        (used(usual(), 2048), asked(2048)),
        (usual(), usual()),
    ];
    for (base, new) in alike {
        let (lines, said) = compare(&[base], &[new]);
        assert!(!said.contains("not compared"), "{said}");
        assert_eq!(of(&lines, "prefill").len(), results::CONTEXTS.len());
        assert!(lines.iter().all(|line| line["cache"] == "int4-hqq"), "{lines:?}");
    }
    let both = [used(usual(), 2048), later(used(asked(2048), 2048))];
    let (lines, said) = compare(&both, &both);
    assert!(!said.contains("not compared"), "each of two rows that were run alike has a partner of its own: {said}");
    assert_eq!(of(&lines, "prefill").len(), 2 * results::CONTEXTS.len());
    // What is usual has changed: prompts of 4096 tokens alone were longer than either.
    let (lines, said) = compare(&[used(usual(), 2048)], &[used(usual(), 4096)]);
    assert_eq!(of(&lines, "prefill").len(), 2);
    let told = "m int4-hqq, prefill chunks of 4096 against prefill chunks of 2048 at 4096 tokens, batch 1: kv, memory, prefill";
    assert!(said.contains(told), "{said}");
    let (rows, _) = aggregate(&[used(usual(), 2048)]);
    let shown: Vec<&str> = rows.iter().map(|row| &*row["prefill_chunk"]).collect();
    assert_eq!(shown, ["1024", "2048", "2048"]);
}

#[test]
fn compare_says_where_sliding_window_or_machine_differ() {
    let (lines, _) = compare(&[window(int4(), false)], &[window(int4(), true)]);
    assert!(lines.iter().all(|line| line["cache"] == "int4-hqq, sliding window of 4096 against no sliding window"));
    let mut other_card = int4();
    other_card.hardware.gpu_name = Some("NVIDIA A100".into());
    let (lines, _) = compare(&[int4()], &[other_card]);
    assert_eq!(of(&lines, "decode")[0]["cache"], "int4-hqq, NVIDIA A100 against NVIDIA H200");
    // Where the base has both, nothing differs.
    let both = [window(int4(), false), later(window(int4(), true))];
    let (lines, _) = compare(&both, &both);
    assert!(lines.iter().all(|line| line["change_value"] == 0.0 && line["cache"] == "int4-hqq"), "{lines:?}");
}

#[test]
fn compare_finds_the_score_on_the_same_text_among_several() {
    let base = [scored_on(int4(), "ab"), later(scored_on(results::run("m", &Cache::new("int4-hqq", 4, 0.1)), "cd"))];
    let (lines, said) = compare(&base, &base[..1]);
    let ppl = of(&lines, "ppl");
    assert_eq!(ppl.len(), 1, "{said}");
    assert_eq!(ppl[0]["change_value"], 0.0);
    let (lines, said) = compare(&base[1..], &base[..1]);
    assert_eq!(of(&lines, "ppl").len(), 0);
    assert!(said.contains("m int4-hqq: ppl (SHA-256 abababab against SHA-256 cdcdcdcd)"), "{said}");
}

#[test]
fn compare_holds_needles_to_kind_text_and_depths() {
    let needle = |change: &dyn Fn(&mut RunResult)| {
        let mut other = int4();
        change(&mut other);
        let (lines, said) = compare(&[int4()], &[other]);
        (of(&lines, "needle").len(), said)
    };
    assert_eq!(needle(&|_| ()).0, 1);
    let block = |change: fn(&mut kvprof::schema::Needle)| {
        needle(&|r| r.benchmarks.needle_in_haystack.iter_mut().for_each(change))
    };
    for (found, said) in [
        block(|n| n.kind = Some("words".into())),
        block(|n| n.haystack = Some("book.txt".into())),
        block(|n| n.data = Some(DataSource { sha256: "ab".repeat(32), ..Default::default() })),
        needle(&|r| r.benchmarks.needle_in_haystack_trials.iter_mut().flatten().for_each(|t| t.depth_percent *= 0.5)),
    ] {
        assert!(found == 0 && said.contains("m int4-hqq: needle ("), "{said}");
    }
    let (found, said) = needle(&|r| {
        let trials = r.benchmarks.needle_in_haystack_trials.iter_mut().flatten();
        trials.filter(|t| t.trial == Some(1)).for_each(|t| t.needle = Some("1".into()));
    });
    assert!(
        found == 0 && said.contains("m int4-hqq: needle (needles ") && said.contains(" against needles "),
        "{said}"
    );
}

/// With the outcome of 200 questions, of which those that `right` accepts are right.
fn asked(mut result: RunResult, first: usize, right: fn(usize) -> bool) -> RunResult {
    let mmlu = result.benchmarks.mmlu.as_mut().unwrap();
    let item = |at: usize| QuestionItem {
        id: format!("algebra/{at}"),
        outcome: Outcome { correct: right(at), ..Default::default() },
        ..Default::default()
    };
    mmlu.items = (first..first + 200).map(item).collect();
    mmlu.correct = mmlu.items.iter().filter(|item| item.outcome.correct).count();
    mmlu.accuracy = mmlu.correct as f64 / 200.0;
    result
}

#[test]
fn compare_pairs_questions_one_by_one_where_files_hold_them() {
    let even: fn(usize) -> bool = |at| at % 2 == 0;
    let but_one: fn(usize) -> bool = |at| at % 2 == 0 && at != 0;
    let (lines, _) = compare(&[asked(int4(), 0, even)], &[asked(int4(), 0, but_one)]);
    let mmlu = of(&lines, "mmlu")[0];
    let (low, high) = (mmlu["change_low"].as_f64().unwrap(), mmlu["change_high"].as_f64().unwrap());
    assert!((mmlu["change_value"].as_f64().unwrap() + 0.005).abs() < 1e-12 && mmlu["remark"].is_null());
    assert!(low > -0.03 && high < 0.02, "one question of 200 changed: {low} {high}");
    // Others of the same number.
    let (lines, said) = compare(&[asked(int4(), 0, even)], &[asked(int4(), 100, even)]);
    assert_eq!(of(&lines, "mmlu").len(), 0);
    assert!(said.contains("m int4-hqq: mmlu (other questions: 100 of 200 on both sides)"), "{said}");
    // Without them it is said that nothing is paired.
    let (lines, _) = compare(&[asked(int4(), 0, even)], &[int4()]);
    let mmlu = of(&lines, "mmlu")[0];
    assert!(mmlu["remark"].as_str().unwrap().contains("item by item"), "{mmlu}");
    assert!(mmlu["change"].as_str().unwrap().ends_with(", unpaired"), "{mmlu}");
}

#[test]
fn a_window_in_some_layers_is_told_from_none_in_files_of_real_runs() {
    let folder = tempfile::tempdir().unwrap();
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/models/qwen2/config.sliding.json");
    for switch in ["on", "off"] {
        let mut command = kvprof();
        command.args(["run", "--model", model, "--weights", "dummy", "--device", "cpu", "--kv-quant", "none"]);
        command.args(["--context-lengths", "32", "--output-tokens", "4", "--warmup-runs", "0", "--measure-runs", "1"]);
        command.args(["--energy-seconds", "0.01", "--benchmarks", "none", "--sliding-window", switch]);
        let output = command.arg("--output-dir").arg(folder.path()).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
    }
    let output = kvprof().arg("aggregate").arg(folder.path()).output().unwrap();
    let rows = String::from_utf8(output.stdout.clone()).unwrap();
    for name in ["sliding window in 2 of 3 layers,", "no sliding window,"] {
        assert_eq!(rows.matches(name).count(), 1, "{rows}\n{}", stderr(&output));
    }
    assert_eq!(rows.matches(",plain,").count(), 2, "the step mode, whatever was asked for: {rows}");
}
