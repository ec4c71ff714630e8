//! Which file's quality blocks speak for a cache that several files measured.

use std::path::Path;

use kvprof::base::stats::Summary;
use kvprof::schema::{FollowUp, RunResult};

use crate::results::{self, Cache};
use crate::{kvprof, stderr};

/// What `aggregate` says of a folder in `column`, row by row, and on standard error.
fn column(folder: &Path, name: &str) -> (Vec<String>, String) {
    let output = kvprof().arg("aggregate").arg(folder).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let mut reader = csv::Reader::from_reader(&output.stdout[..]);
    let place = reader.headers().unwrap().iter().position(|head| head == name).unwrap();
    (reader.records().map(|row| row.unwrap()[place].to_string()).collect(), stderr(&output))
}

/// INT4 begun at `time`, generating `tokens`, with a perplexity that rose by `ln_ratio`.
fn int4(time: &str, tokens: usize, ln_ratio: f64) -> RunResult {
    let mut result = results::run("m", &Cache::new("int4-hqq", 4, ln_ratio));
    result.timestamp = format!("2026-11-01T{time}");
    result.experiment_id = format!("m_fused_int4_hqq_20261101_{}", time.replace(':', ""));
    result.config.decode_tokens = tokens;
    result.measurements.iter_mut().for_each(|m| m.decode_tokens = Some(tokens));
    result
}

#[test]
fn the_newest_score_counts_however_much_its_run_generated() {
    let folder = tempfile::tempdir().unwrap();
    let mut cost = int4("10:00:00", 128, 0.0);
    cost.benchmarks = Default::default();
    results::write(folder.path(), &cost);
    results::write(folder.path(), &int4("11:00:00", 1024, 0.5));
    results::write(folder.path(), &int4("12:00:00", 512, 0.004));
    let (ratios, errors) = column(folder.path(), "ln_ppl_ratio");
    assert_eq!(ratios.len(), 3 * results::CONTEXTS.len());
    assert!(ratios.iter().all(|ratio| ratio == "0.004"), "{ratios:?}");
    assert!(errors.contains("4 scores are left out"), "ppl, kld, needle and mmlu of one file: {errors}");
}

#[test]
fn aggregate_names_the_file_that_each_score_is_from() {
    let folder = tempfile::tempdir().unwrap();
    let [mut cost, mut ppl, mut rest] = ["10:00:00", "11:00:00", "12:00:00"].map(|time| int4(time, 128, 0.004));
    cost.benchmarks = Default::default();
    (ppl.measurements, rest.measurements) = Default::default();
    let b = &mut ppl.benchmarks;
    (b.needle_in_haystack, b.needle_in_haystack_trials, b.kld, b.mmlu) = Default::default();
    (rest.benchmarks.perplexity, rest.benchmarks.perplexity_quantized) = Default::default();
    let name = |result: &RunResult| format!("{}.json", result.experiment_id);
    let names = [&cost, &ppl, &rest].map(name);
    [cost, ppl, rest].iter().for_each(|result| drop(results::write(folder.path(), result)));
    let of = |head: &str| column(folder.path(), head).0;
    for (head, file) in [
        ("file", &names[0]),
        ("ppl_file", &names[1]),
        ("kld_file", &names[2]),
        ("needle_file", &names[2]),
        ("mmlu_file", &names[2]),
        ("math_file", &String::new()),
    ] {
        assert_eq!(of(head), vec![file.clone(); results::CONTEXTS.len()], "{head}");
    }
    // An unquantized cache has no divergence, though its file has a block of it.
    let folder = tempfile::tempdir().unwrap();
    let mut none = results::run("m", &Cache::new("none", 16, 0.0));
    none.benchmarks.kld = int4("10:00:00", 128, 0.004).benchmarks.kld;
    results::write(folder.path(), &none);
    for head in ["kld_mean", "kld_file"] {
        assert_eq!(column(folder.path(), head).0, vec![String::new(); results::CONTEXTS.len()], "{head}");
    }
}

#[test]
fn a_patch_makes_the_blocks_of_an_older_file_newer() {
    let folder = tempfile::tempdir().unwrap();
    let mut older = int4("10:00:00", 128, 0.5);
    older
        .extra
        .insert("patched".into(), serde_json::json!([{ "time": "2026-11-03T09:00:00", "blocks": ["ppl", "profile"] }]));
    older.measurements[0].prefill_ms = Some(777.0);
    let newer = int4("12:00:00", 128, 0.004);
    results::write(folder.path(), &newer);
    // The patch failed: what is there is what was there before.
    results::write(folder.path(), &older);
    assert_eq!(column(folder.path(), "ln_ppl_ratio").0[0], "0.004");
    assert_ne!(column(folder.path(), "prefill_ms").0[0], "777.0");
    older.completed = vec!["ppl".into(), "profile@1024x1".into()];
    results::write(folder.path(), &older);
    assert_eq!(column(folder.path(), "ln_ppl_ratio").0, ["0.5", "0.5", "0.5"]);
    assert_eq!(column(folder.path(), "prefill_ms").0[0], "777.0");
}

#[test]
fn scores_do_not_pass_between_float_types_or_to_random_weights() {
    let folder = tempfile::tempdir().unwrap();
    results::write(folder.path(), &int4("10:00:00", 128, 0.004));
    for (time, dtype, weights) in [("11:00:00", "bf16", "trained"), ("12:00:00", "f16", "dummy")] {
        let mut other = int4(time, 128, 0.0);
        other.benchmarks = Default::default();
        other.model_config.dtype = Some(dtype.into());
        other.model_config.weights = Some(weights.into());
        results::write(folder.path(), &other);
    }
    let (ratios, _) = column(folder.path(), "ln_ppl_ratio");
    assert_eq!(ratios.iter().filter(|ratio| *ratio == "0.004").count(), results::CONTEXTS.len(), "{ratios:?}");
    assert_eq!(ratios.iter().filter(|ratio| ratio.is_empty()).count(), 2 * results::CONTEXTS.len(), "{ratios:?}");
}

#[test]
fn a_patch_of_one_row_makes_no_other_row_newer() {
    let folder = tempfile::tempdir().unwrap();
    let (patched, other) = (results::CONTEXTS[0], results::CONTEXTS[1]);
    let mut older = int4("10:00:00", 128, 0.5);
    let note = serde_json::json!({
        "time": "2026-11-03T09:00:00", "blocks": ["profile"],
        "settings": { "context-lengths": [patched], "batch-sizes": [1] },
    });
    older.extra.insert("patched".into(), serde_json::json!([note]));
    older.completed = vec![format!("profile@{patched}x1"), format!("profile@{other}x1")];
    older.measurements.iter_mut().for_each(|m| m.prefill_ms = Some(777.0));
    results::write(folder.path(), &int4("12:00:00", 128, 0.004));
    results::write(folder.path(), &older);
    let shown = column(folder.path(), "prefill_ms").0;
    assert_eq!(shown[0], "777.0");
    assert_ne!(shown[1], "777.0");
}

#[test]
fn a_file_of_scores_alone_folds_into_every_setting_that_its_cache_was_measured_with() {
    let folder = tempfile::tempdir().unwrap();
    let raw = folder.path().join("raw");
    std::fs::create_dir_all(&raw).unwrap();
    for (time, tokens) in [("10:00:00", 128), ("11:00:00", 512)] {
        for cache in [Cache::new("none", 16, 0.0), Cache::new("int4-hqq", 4, 0.004)] {
            let mut cost = results::run("m", &cache);
            cost.timestamp = format!("2026-11-01T{time}");
            cost.experiment_id.push_str(&format!("_{tokens}"));
            cost.config.decode_tokens = tokens;
            cost.measurements.iter_mut().for_each(|m| m.decode_tokens = Some(tokens));
            let mut scores = cost.clone();
            cost.benchmarks = Default::default();
            results::write(&raw, &cost);
            scores.measurements.clear();
            scores.experiment_id.push_str("_scores");
            results::write(&raw, &scores);
        }
    }
    let out = folder.path().join("out");
    let output = kvprof().arg("report").arg(&raw).arg("-o").arg(&out).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(!stderr(&output).contains("measurement"), "no row was replaced: {}", stderr(&output));
    let page = std::fs::read_to_string(out.join("report.html")).unwrap();
    for tokens in [128, 512] {
        assert!(page.contains(&format!("For m · {tokens} tokens out, use int4-hqq.")), "{tokens}");
    }
    assert!(!page.contains("was not measured"), "sizes are in files of their own");
    for table in ["quality", "needle"] {
        let text = std::fs::read_to_string(out.join(format!("tables/{table}.csv"))).unwrap();
        for cache in ["m,FP16,", "m,int4-hqq,"] {
            assert_eq!(text.matches(cache).count(), 1, "{table}:\n{text}");
        }
        assert!(!text.contains("tokens out"), "scores do not depend on it:\n{text}");
    }
}

/// INT4 begun at `time`, which read a prompt of `tokens` after each context in `ms`.
fn followed_up(time: &str, tokens: usize, ms: f64) -> RunResult {
    let mut result = int4(time, 128, 0.004);
    let runs_ms = Summary::of(&[ms; 3]).unwrap();
    for m in &mut result.measurements {
        let follow_up = FollowUp { tokens, ms, tokens_per_sec: 1e3, runs_ms: runs_ms.clone(), ..Default::default() };
        m.follow_up = Some(follow_up);
    }
    result
}

#[test]
fn a_later_row_without_a_follow_up_prompt_counts_and_keeps_that_of_the_one_it_replaces() {
    let folder = tempfile::tempdir().unwrap();
    let (older, old) = (followed_up("10:00:00", 64, 7.0), followed_up("11:00:00", 64, 8.0));
    let mut newest = int4("12:00:00", 128, 0.004);
    newest.measurements.iter_mut().for_each(|m| m.vram_peak_mb = Some(1234.0));
    let name = |result: &RunResult| format!("{}.json", result.experiment_id);
    let (of_old, of_newest) = (name(&old), name(&newest));
    [older, old, newest].iter().for_each(|result| drop(results::write(folder.path(), result)));
    for (head, told) in [
        ("vram_peak_mb", "1234.0"),
        ("file", &of_newest),
        ("follow_up_ms", "8.0"),
        ("follow_up_tokens", "64"),
        ("follow_up_file", &of_old),
    ] {
        let (values, said) = column(folder.path(), head);
        assert_eq!(values, [told; results::CONTEXTS.len()], "{head}");
        assert!(said.contains("6 measurements are left out"), "{said}");
    }
    // A prompt of another length is another measurement.
    results::write(folder.path(), &followed_up("13:00:00", 96, 9.0));
    let (values, _) = column(folder.path(), "follow_up_ms");
    assert_eq!(values.iter().filter(|ms| *ms == "8.0").count(), results::CONTEXTS.len(), "{values:?}");
    assert_eq!(values.iter().filter(|ms| *ms == "9.0").count(), results::CONTEXTS.len(), "{values:?}");
}

#[test]
fn a_follow_up_prompt_of_an_older_row_is_linked_to_its_file_and_compared_by_its_length() {
    let folder = tempfile::tempdir().unwrap();
    let (base, new) = (folder.path().join("base"), folder.path().join("new"));
    [&base, &new].into_iter().for_each(|folder| std::fs::create_dir(folder).unwrap());
    results::write(&base, &followed_up("09:00:00", 96, 5.0));
    let old = followed_up("10:00:00", 64, 7.0);
    let file = results::write(&new, &old);
    results::write(&new, &int4("12:00:00", 128, 0.004));
    let output = kvprof().arg("report").arg(&new).arg("-o").arg(folder.path().join("out")).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let latency = std::fs::read_to_string(folder.path().join("out/tables/latency.csv")).unwrap();
    assert!(latency.lines().skip(1).all(|line| line.contains(",64,7.0,")), "{latency}");
    let page = std::fs::read_to_string(folder.path().join("out/report.html")).unwrap();
    let linked = page.split("<tr>").filter(|row| row.contains(file.file_name().unwrap().to_str().unwrap()));
    assert!(linked.count() >= results::CONTEXTS.len(), "each row links the prompt to its own file");
    let compared = |base: &Path| {
        let output =
            kvprof().arg("compare").arg(base).arg("--against").arg(&new).args(["-f", "json"]).output().unwrap();
        let lines: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
        (lines.iter().filter(|line| line["metric"] == "follow-up").count(), stderr(&output))
    };
    let (lines, said) = compared(&base);
    assert!(lines == 0 && said.contains("follow-up prompts of 64 against follow-up prompts of 96"), "{said}");
    std::fs::remove_dir_all(&base).unwrap();
    std::fs::create_dir(&base).unwrap();
    results::write(&base, &old);
    assert_eq!(compared(&base).0, results::CONTEXTS.len());
}
