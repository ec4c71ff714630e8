//! `kvprof compare`.

use std::path::{Path, PathBuf};

use kvprof::base::stats::Summary;

use crate::results::{self, Cache};
use crate::{kvprof, stderr};

pub fn one(folder: &Path, name: &str, result: &kvprof::schema::RunResult) -> PathBuf {
    let sub = folder.join(name);
    std::fs::create_dir_all(&sub).unwrap();
    results::write(&sub, result)
}

#[test]
fn a_quantized_cache_against_the_unquantized_one_is_paired_through_its_reference() {
    let folder = tempfile::tempdir().unwrap();
    let base = one(folder.path(), "a", &results::run("m", &Cache::new("none", 16, 0.0)));
    let new = one(folder.path(), "b", &results::run("m", &Cache { slowdown: 2.0, ..Cache::new("int4-hqq", 4, 0.004) }));
    let output =
        kvprof().arg("compare").arg(&base).arg("--against").arg(&new).arg("--format").arg("json").output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let rows: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
    let find = |metric: &str| rows.iter().find(|r| r["metric"] == metric).unwrap();
    let ppl = find("ppl");
    let error: f64 = 0.004 / 8.0 + 0.0001;
    assert!((ppl["change_value"].as_f64().unwrap() - 0.004f64.exp_m1()).abs() < 1e-12);
    assert!((ppl["change_low"].as_f64().unwrap() - (0.004 - 1.959_964 * error).exp_m1()).abs() < 1e-6);
    assert_eq!(ppl["verdict"], "worse");
    assert_eq!(find("kv")["verdict"], "better");
    let decode = find("decode");
    assert!((decode["change_value"].as_f64().unwrap() + 0.5).abs() < 1e-9, "{decode}");
    assert_eq!(decode["verdict"], "worse");
    assert_eq!(find("needle")["verdict"], "no clear change");
    assert_eq!(rows.iter().filter(|r| r["metric"] == "decode").count(), results::CONTEXTS.len());
    // The other way round, the interval is that of the inverse ratio.
    let rows = lines(&new, &base);
    let ppl = rows.iter().find(|r| r["metric"] == "ppl").unwrap();
    assert!((ppl["change_value"].as_f64().unwrap() - (-0.004f64).exp_m1()).abs() < 1e-12, "{ppl}");
    assert!((ppl["change_low"].as_f64().unwrap() - (-0.004 - 1.959_964 * error).exp_m1()).abs() < 1e-6, "{ppl}");
}

#[test]
fn perplexities_of_two_quantized_caches_are_paired_through_a_reference_that_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let base = results::run("m", &Cache::new("int8-hqq", 8, 0.0002));
    let mut new = results::run("m", &Cache::new("int4-hqq", 4, 0.004));
    let of = |new: &kvprof::schema::RunResult, name: &str| {
        let rows = lines(&one(folder.path(), "a", &base), &one(folder.path(), name, new));
        let ppl = rows.iter().find(|r| r["metric"] == "ppl").unwrap().clone();
        ["change_value", "change_low", "change_high"].map(|column| ppl[column].as_f64().unwrap())
    };
    let [change, low, high] = of(&new, "b");
    // The errors of 0.004 and 0.0002 against the reference, as if they were independent.
    let error = (0.004f64 / 8.0 + 0.0001).hypot(0.0002 / 8.0 + 0.0001);
    assert!((change - 0.0038f64.exp_m1()).abs() < 1e-12);
    assert!((low - (0.0038 - 1.959_964 * error).exp_m1()).abs() < 1e-6, "{low}");
    assert!((high - (0.0038 + 1.959_964 * error).exp_m1()).abs() < 1e-6, "{high}");
    // Through another reference nothing is shared: each side is as unsure as its text, 0.4 of 16.
    let through = new.benchmarks.perplexity_quantized.as_mut().unwrap();
    through.reference_value = Some(results::REFERENCE * 1.01);
    let [_, low, high] = of(&new, "c");
    assert!(high - low > 0.1, "{low} {high}");
}

#[test]
fn conditions_decide_the_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let base = one(folder.path(), "a", &results::run("m", &Cache::new("none", 16, 0.0)));
    let new = one(folder.path(), "b", &results::run("m", &Cache { slowdown: 1.1, ..Cache::new("int4-hqq", 4, 0.004) }));
    let code = |conditions: &[&str]| {
        let mut command = kvprof();
        command.arg("compare").arg(&base).arg("--against").arg(&new);
        for condition in conditions {
            command.arg("--fail-if").arg(condition);
        }
        let output = command.output().unwrap();
        (output.status.code(), stderr(&output))
    };
    assert_eq!(code(&[]).0, Some(0));
    assert_eq!(code(&["ppl>1%", "decode<-20%"]).0, Some(0));
    let (status, message) = code(&["ppl>1%", "decode<-5%"]);
    assert_eq!(status, Some(1));
    assert_eq!(
        message.lines().filter(|l| l.starts_with("failed: decode<-5%")).count(),
        results::CONTEXTS.len(),
        "{message}"
    );
    let (status, message) = code(&["math<-1pt"]);
    assert!(status == Some(1) && message.contains("cannot be told"), "{message}");
    let (status, message) = code(&["pplx>1%"]);
    assert!(status == Some(2) && message.contains("pplx>1%"), "{message}");
}

/// A run of one context whose repeats of prefill and decode took `prefill` and `decode` ms.
fn timed(folder: &Path, name: &str, prefill: &[f64], decode: &[f64]) -> PathBuf {
    let mut result = results::run("m", &Cache::new("int4-hqq", 4, 0.004));
    result.measurements.truncate(1);
    let m = &mut result.measurements[0];
    (m.prefill_runs_ms, m.decode_runs_ms) = (Summary::of(prefill), Summary::of(decode));
    m.prefill_ms = m.prefill_runs_ms.as_ref().map(|runs| runs.median);
    m.decode_ms = m.decode_runs_ms.as_ref().map(|runs| runs.median);
    one(folder, name, &result)
}

/// The lines of a comparison as JSON has them.
pub fn lines(base: &Path, new: &Path) -> Vec<serde_json::Value> {
    let output = kvprof().arg("compare").arg(base).arg("--against").arg(new).args(["-f", "json"]).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_change_is_that_of_the_two_numbers_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    // By their means the new times of decode are shorter, by their medians longer.
    let base = timed(folder.path(), "a", &[210.0, 212.0, 213.0, 215.0, 290.0], &[10.0, 10.1, 10.2, 14.0, 15.0]);
    let new = timed(folder.path(), "b", &[239.0, 241.0, 243.7, 244.0, 245.0], &[10.5, 10.6, 10.7, 10.8, 10.9]);
    let lines = lines(&base, &new);
    for line in &lines {
        let of = |column: &str| line[column].as_f64().unwrap();
        if line["base"] != 0.0 && !line["change"].as_str().unwrap().contains("pt") {
            assert!((of("change_value") - (of("new") / of("base") - 1.0)).abs() < 1e-12, "{line}");
        }
        if line["change_low"].is_number() {
            assert!(of("change_low") <= of("change_value") && of("change_value") <= of("change_high"), "{line}");
        }
    }
    let decode = lines.iter().find(|line| line["metric"] == "decode").unwrap();
    assert!(decode["change_value"].as_f64().unwrap() < 0.0 && decode["change_low"].is_number(), "{decode}");
    // Twice the time is half the rate, and the interval is that of the rate.
    let slow = timed(folder.path(), "c", &[210.0, 212.0, 213.0], &[20.0, 20.2, 20.4, 20.5, 20.6]);
    let lines = super::compare::lines(&base, &slow);
    let decode = lines.iter().find(|line| line["metric"] == "decode").unwrap();
    assert!(decode["change_high"].as_f64().unwrap() < 0.0 && decode["verdict"] == "worse", "{decode}");
}

#[test]
fn a_gate_goes_by_what_is_told_from_noise_and_says_what_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let decode = [10.0, 10.1, 10.2, 10.3, 10.4];
    let base = timed(folder.path(), "a", &[210.0, 211.0, 212.1, 213.0, 214.0], &decode);
    let slower = timed(folder.path(), "b", &[241.0, 242.0, 243.7, 244.0, 245.0], &decode);
    let noisy = timed(folder.path(), "c", &[180.0, 190.0, 243.7, 260.0, 300.0], &decode);
    let gate = |new: &Path| {
        let output = kvprof()
            .arg("compare")
            .arg(&base)
            .arg("--against")
            .arg(new)
            .args(["--fail-if", "prefill>10%", "--fail-if", "decode<-5%"])
            .output()
            .unwrap();
        (output.status.code(), stderr(&output))
    };
    let (code, said) = gate(&slower);
    assert!(
        code == Some(1) && said.contains("failed: prefill>10%: m int4-hqq at 1024 tokens, batch 1: +14.90 % ["),
        "{said}"
    );
    assert!(said.contains("passed: decode<-5%: 1 compared"), "{said}");
    let (code, said) = gate(&noisy);
    assert!(code == Some(0) && said.contains("passed: prefill>10%: 1 compared"), "{said}");
    assert!(
        said.contains("not told from noise: prefill>10%: m int4-hqq at 1024 tokens, batch 1: +14.90 % ["),
        "{said}"
    );
}

#[test]
fn equal_results_do_not_change() {
    let folder = tempfile::tempdir().unwrap();
    results::write_sweep(folder.path(), "m");
    let output = kvprof()
        .arg("compare")
        .arg(folder.path())
        .arg("--against")
        .arg(folder.path())
        .arg("-f")
        .arg("json")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let rows: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert!(rows.len() > 50);
    for row in rows {
        assert_eq!(
            (row["change_value"].as_f64(), row["verdict"].as_str()),
            (Some(0.0), Some("no clear change")),
            "{row}"
        );
    }
}

#[test]
fn what_has_no_partner_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let base = one(folder.path(), "a", &results::run("m", &Cache::new("none", 16, 0.0)));
    let other = one(folder.path(), "b", &results::run("another", &Cache::new("none", 16, 0.0)));
    let output = kvprof().arg("compare").arg(&base).arg("--against").arg(&other).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("another") && stderr(&output).contains("no partner"), "{}", stderr(&output));
}

#[test]
fn runs_of_several_output_lengths_are_compared_length_by_length() {
    let folder = tempfile::tempdir().unwrap();
    let write = |side: &str, tokens: usize, cache: &Cache| {
        let mut result = results::run("m", cache);
        result.experiment_id.push_str(&format!("_{tokens}"));
        result.config.decode_tokens = tokens;
        for m in &mut result.measurements {
            // Ten times as many tokens take ten times as long.
            m.decode_ms = m.decode_ms.map(|ms| ms * tokens as f64 / 128.0);
            m.decode_tokens = Some(tokens);
        }
        one(&folder.path().join(side), &tokens.to_string(), &result)
    };
    for tokens in [128, 1280] {
        write("base", tokens, &Cache::new("none", 16, 0.0));
        write("new", tokens, &Cache { slowdown: 2.0, ..Cache::new("int4-hqq", 4, 0.004) });
    }
    let [base, new] = ["base", "new"].map(|side| folder.path().join(side));
    let output =
        kvprof().arg("compare").arg(&base).arg("--against").arg(&new).arg("--format").arg("json").output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let rows: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
    let decode: Vec<_> = rows.iter().filter(|r| r["metric"] == "decode").collect();
    assert_eq!(decode.len(), 2 * results::CONTEXTS.len());
    assert!(decode.iter().all(|r| (r["change_value"].as_f64().unwrap() + 0.5).abs() < 1e-9), "{decode:?}");
    for tokens in ["128 tokens out", "1280 tokens out"] {
        let of_length = decode.iter().filter(|r| r["cache"].as_str().unwrap().ends_with(&format!(", {tokens}")));
        assert_eq!(of_length.count(), results::CONTEXTS.len(), "{decode:?}");
    }
}

#[test]
fn random_weights_are_compared_in_cost_alone_and_every_form_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let base = one(folder.path(), "a", &results::run("m", &Cache::new("int4-hqq", 4, 0.004)));
    let mut random = results::run("m", &Cache { slowdown: 2.0, ..Cache::new("int4-hqq", 4, 0.004) });
    random.model_config.weights = Some("dummy".into());
    let new = one(folder.path(), "b", &random);
    let compare = |format: &str| {
        let output =
            kvprof().arg("compare").arg(&base).arg("--against").arg(&new).args(["-f", format]).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        (String::from_utf8(output.stdout.clone()).unwrap(), stderr(&output))
    };
    let sentence = "times and sizes are comparable, quality is not";
    let (json, said) = compare("json");
    assert!(
        said.contains("not compared: m int4-hqq, random against trained weights: quality") && said.contains(sentence)
    );
    let rows: Vec<serde_json::Value> = serde_json::from_str(&json).unwrap();
    assert!(rows.iter().any(|row| row["metric"] == "decode"), "times are compared");
    for row in &rows {
        assert!(!["ppl", "kld", "needle", "mmlu", "math"].contains(&row["metric"].as_str().unwrap()), "{row}");
        assert!(row["remark"].as_str().unwrap().contains(sentence), "{row}");
    }
    for format in ["md", "latex", "csv"] {
        let (text, _) = compare(format);
        assert!(
            text.contains(sentence) && text.contains("int4-hqq, random against trained weights"),
            "{format}: {text}"
        );
    }
    // Where both sides have both, like is paired with like, and nothing is to be said.
    let both = |side: &str| {
        let (trained, random) = (results::run("m", &Cache::new("int4-hqq", 4, 0.004)), random.clone());
        one(&folder.path().join(side), "trained", &trained);
        one(&folder.path().join(side), "random", &random);
        folder.path().join(side)
    };
    let output =
        kvprof().arg("compare").arg(both("c")).arg("--against").arg(both("d")).args(["-f", "json"]).output().unwrap();
    let rows: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
    let random = |row: &serde_json::Value| row["remark"].as_str().is_some_and(|remark| remark.contains(sentence));
    assert!(rows.iter().all(|row| !random(row) && row["change_value"] == 0.0), "{rows:?}");
    assert_eq!(rows.iter().filter(|row| row["metric"] == "decode").count(), 2 * results::CONTEXTS.len());
    assert!(rows.iter().any(|row| row["metric"] == "ppl"));
}

#[test]
fn the_usage_line_can_be_followed() {
    let folder = tempfile::tempdir().unwrap();
    let base = one(folder.path(), "a", &results::run("m", &Cache::new("none", 16, 0.0)));
    let help = kvprof().args(["compare", "--help"]).output().unwrap().stdout;
    let help = String::from_utf8(help).unwrap();
    let usage = help.lines().find_map(|line| line.strip_prefix("Usage: kvprof ")).unwrap();
    let words = usage.split_whitespace().flat_map(|word| match word {
        "[OPTIONS]" => vec!["--format".to_string(), "json".into()],
        "<BASE>..." | "<NEW>..." => vec![base.to_str().unwrap().to_string(); 2],
        word => vec![word.to_string()],
    });
    let output = kvprof().args(words).output().unwrap();
    assert!(output.status.success(), "{usage}: {}", stderr(&output));
}

/// What `kvprof compare` says on standard error, and its exit code.
pub fn said(base: &Path, new: &Path) -> (Option<i32>, String) {
    let output = kvprof().arg("compare").arg(base).arg("--against").arg(new).output().unwrap();
    (output.status.code(), stderr(&output))
}

#[test]
fn rows_and_scores_of_one_side_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let whole = results::run("m", &Cache::new("int4-hqq", 4, 0.004));
    let mut part = whole.clone();
    part.measurements.retain(|m| m.context_len != results::CONTEXTS[1]);
    part.benchmarks.kld = None;
    let (whole, part) = (one(folder.path(), "a", &whole), one(folder.path(), "b", &part));
    for (base, new, side) in [(&whole, &part, "base"), (&part, &whole, "new")] {
        let (code, said) = said(base, new);
        assert_eq!(code, Some(0), "{said}");
        let lines: Vec<&str> = said.lines().filter(|line| line.starts_with("not compared")).collect();
        assert_eq!(lines.len(), 2, "{said}");
        assert!(lines[0].starts_with(&format!("not compared: {side}: m int4-hqq: kld (")), "{said}");
        assert_eq!(lines[1], format!("not compared: {side}: m int4-hqq at 2048 tokens, batch 1 has no partner"));
    }
}

#[test]
fn costs_that_one_side_of_a_row_lacks_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let whole = results::run("m", &Cache::new("int4-hqq", 4, 0.004));
    let mut part = whole.clone();
    let m = &mut part.measurements[1];
    (m.energy, m.vram_peak_mb, m.prefill_ms) = (None, None, None);
    let (whole, part) = (one(folder.path(), "a", &whole), one(folder.path(), "b", &part));
    for (base, new, side) in [(&whole, &part, "new"), (&part, &whole, "base")] {
        let (code, said) = said(base, new);
        assert_eq!(code, Some(0), "{said}");
        let lines: Vec<&str> = said.lines().filter(|line| line.starts_with("not compared")).collect();
        let expected = format!("m int4-hqq at 2048 tokens, batch 1: memory, prefill, energy ({side} has none)");
        assert_eq!(lines, [format!("not compared: {expected}")], "{said}");
    }
    assert!(!said(&part, &part).1.contains("not compared"), "what neither side has is no difference");
}

#[test]
fn a_gate_does_not_pass_where_the_new_side_lost_its_metric() {
    let folder = tempfile::tempdir().unwrap();
    let whole = results::run("m", &Cache::new("int4-hqq", 4, 0.004));
    let base = one(folder.path(), "a", &whole);
    let gate = |name: &str, metric: &str, change: &dyn Fn(&mut kvprof::schema::RunResult)| {
        let mut part = whole.clone();
        change(&mut part);
        let new = one(folder.path(), name, &part);
        let condition = format!("{metric}>5%");
        let output =
            kvprof().arg("compare").arg(&base).arg("--against").arg(new).args(["--fail-if", &condition]).output();
        let output = output.unwrap();
        (output.status.code(), stderr(&output))
    };
    let (code, said) = gate("b", "energy", &|part| part.measurements[1].energy = None);
    let line = "failed: energy>5% cannot be told: m int4-hqq at 2048 tokens, batch 1: energy (new has none)";
    assert!(code == Some(1) && said.contains(line), "{said}");
    let skip = |part: &mut kvprof::schema::RunResult| {
        part.measurements[2].skipped = Some(true);
        part.measurements[2].skip_reason = Some("out of memory".into());
    };
    let (code, said) = gate("c", "decode", &skip);
    let line = "failed: decode>5% cannot be told: m int4-hqq at 4096 tokens, batch 1: skipped on a side";
    assert!(code == Some(1) && said.contains(line), "{said}");
    let (code, said) = gate("d", "kld", &|part| part.benchmarks.kld = None);
    assert!(code == Some(1) && said.contains("failed: kld>5% cannot be told: base: m int4-hqq: kld ("), "{said}");
    // Fewer contexts than the base has are no loss of what was measured.
    let (code, said) = gate("e", "decode", &|part| part.measurements.truncate(2));
    assert!(code == Some(0) && said.contains("passed: decode>5%: 2 compared"), "{said}");
    let (code, said) = gate("f", "decode", &|part| part.measurements[1].energy = None);
    assert!(code == Some(0) && said.contains("passed: decode>5%: 3 compared"), "{said}");
}

#[test]
fn where_nothing_is_compared_the_error_points_to_the_reasons() {
    let folder = tempfile::tempdir().unwrap();
    let scores = |name: &str, window: usize| {
        let mut result = results::run("m", &Cache::new("int4-hqq", 4, 0.004));
        result.measurements.clear();
        let b = &mut result.benchmarks;
        b.perplexity.iter_mut().chain(&mut b.perplexity_quantized).for_each(|p| p.window = Some(window));
        (b.kld, b.mmlu, b.math, b.needle_in_haystack, b.needle_in_haystack_trials) = Default::default();
        one(folder.path(), name, &result)
    };
    let (code, said) = said(&scores("a", 512), &scores("b", 1024));
    assert_eq!(code, Some(2));
    assert!(said.contains("ppl (windows of 1024 against windows of 512)"), "{said}");
    assert!(said.contains("error: nothing could be compared, for the reasons above"), "{said}");
}

#[test]
fn a_gate_on_the_divergence_goes_by_quantized_caches_alone() {
    let folder = tempfile::tempdir().unwrap();
    for cache in [Cache::new("none", 16, 0.0), Cache::new("int4-hqq", 4, 0.004)] {
        let mut result = results::run("m", &cache);
        // A run of `kld` writes the block for each cache.
        result.benchmarks.kld.get_or_insert_with(|| kvprof::schema::Kld { tokens: 4096, ..Default::default() });
        one(folder.path(), "a", &result);
    }
    let both = folder.path().join("a");
    let output =
        kvprof().arg("compare").arg(&both).arg("--against").arg(&both).args(["--fail-if", "kld>1%"]).output().unwrap();
    let said = stderr(&output);
    assert!(output.status.success() && said.contains("passed: kld>1%: 1 compared"), "{said}");
    assert!(!said.contains("not compared"), "{said}");
}

#[test]
fn times_and_energy_of_a_row_that_spilled_are_left_out_and_lost_to_a_gate() {
    let folder = tempfile::tempdir().unwrap();
    let mut result = results::run("m", &Cache::new("int4-hqq", 4, 0.004));
    result.measurements.truncate(1);
    let base = one(folder.path(), "a", &result);
    result.measurements[0].vram_overflow = Some(true);
    let new = one(folder.path(), "b", &result);
    let metrics: Vec<String> = lines(&base, &new).iter().map(|line| line["metric"].as_str().unwrap().into()).collect();
    for (metric, compared) in [("kv", true), ("memory", true), ("prefill", false), ("decode", false), ("energy", false)]
    {
        assert_eq!(metrics.iter().any(|name| name == metric), compared, "{metric} of {metrics:?}");
    }
    let output = kvprof()
        .arg("compare")
        .arg(&base)
        .arg("--against")
        .arg(&new)
        .args(["--fail-if", "decode<-50%"])
        .output()
        .unwrap();
    let told = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("prefill, decode, energy (device memory spilled in new)"), "{told}");
}
