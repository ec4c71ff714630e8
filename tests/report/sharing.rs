//! Which file's quality blocks speak for a cache that several files measured.

use std::path::Path;

use kvprof::schema::RunResult;

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
