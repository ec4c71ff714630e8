//! `kvprof compare`: what was measured on the same tokens, trials and questions is compared number by number.

use std::path::Path;

use serde_json::Value;

use crate::compare::{lines, one, said};
use crate::results::{self, Cache};
use crate::{kvprof, stderr};

#[test]
fn question_sets_that_were_stopped_alike_are_compared_and_said_to_be_parts() {
    let folder = tempfile::tempdir().unwrap();
    let mut result = results::run("m", &Cache::new("int4-hqq", 4, 0.004));
    result.benchmarks.mmlu.iter_mut().for_each(|mmlu| mmlu.planned = Some(400));
    let (base, new) = (one(folder.path(), "a", &result), one(folder.path(), "b", &result));
    let lines = lines(&base, &new);
    let cache = |metric: &str| lines.iter().find(|line| line["metric"] == metric).unwrap()["cache"].as_str().unwrap();
    assert_eq!((cache("mmlu"), cache("ppl")), ("int4-hqq, 200 of 400 questions (stopped)", "int4-hqq"));
}

#[test]
fn unquantized_caches_of_other_float_types_are_paired() {
    let folder = tempfile::tempdir().unwrap();
    let side = |name: &str, dtype: &str| {
        for cache in [Cache::new("none", 16, 0.0), Cache::new("int4-hqq", 4, 0.004)] {
            let mut result = results::run("m", &cache);
            result.model_config.dtype = Some(dtype.into());
            one(folder.path(), name, &result);
        }
        folder.path().join(name)
    };
    let (base, new) = (side("a", "float32"), side("b", "bfloat16"));
    let output = kvprof().arg("compare").arg(base).arg("--against").arg(new).output().unwrap();
    let (table, said) = (String::from_utf8_lossy(&output.stdout), stderr(&output));
    assert!(!said.contains("not compared"), "{said}");
    assert!(table.contains("BF16 against FP32 ") && table.contains("int4-hqq, bf16 against f32 "), "{table}");
}

#[test]
fn needles_are_compared_at_the_contexts_that_both_sides_have() {
    let folder = tempfile::tempdir().unwrap();
    let all = results::run("m", &Cache::new("none", 16, 0.0));
    let mut fewer = results::run("m", &Cache { found: 2, ..Cache::new("int4-hqq", 4, 0.004) });
    // At the shortest context the quantized cache read nothing from codes.
    let shortest = results::CONTEXTS[0];
    let b = &mut fewer.benchmarks;
    b.needle_in_haystack_trials.as_mut().unwrap().retain(|trial| trial.context_length != shortest);
    let needle = b.needle_in_haystack.as_mut().unwrap();
    let gone = needle.per_context.remove(&shortest.to_string()).unwrap();
    needle.total_trials -= gone.trials;
    needle.successes -= gone.successes;
    needle.success_rate = needle.successes as f64 / needle.total_trials as f64;
    let (base, new) = (one(folder.path(), "a", &all), one(folder.path(), "b", &fewer));
    for (base, new, side, sign) in [(&base, &new, "base", -1.0), (&new, &base, "new", 1.0)] {
        let lines = lines(base, new);
        let needle = lines.iter().find(|line| line["metric"] == "needle").unwrap();
        assert!(needle["cache"].as_str().unwrap().ends_with(", at 2048 and 4096 tokens"), "{needle}");
        // Of twelve needles at each context six are lost at one, and that is known needle by needle.
        assert!((needle["change_value"].as_f64().unwrap() - sign * 0.25).abs() < 1e-12, "{needle}");
        assert!(needle["remark"].is_null() && needle["verdict"] != "no clear change", "{needle}");
        let (_, said) = said(base, new);
        let named = said.lines().find(|line| line.starts_with(&format!("not compared: {side}: "))).unwrap();
        assert!(named.ends_with(": needle at 1024 tokens has no partner"), "{said}");
    }
    // What was tried otherwise at the contexts of both is not compared by them.
    let trials = fewer.benchmarks.needle_in_haystack_trials.as_mut().unwrap();
    trials.iter_mut().for_each(|trial| trial.needle = Some("7".into()));
    let (_, said) = said(&base, &one(folder.path(), "c", &fewer));
    assert!(said.contains(": needle (at 2048 and 4096 tokens, 24 trials, needles"), "{said}");
}

#[test]
fn divergences_on_the_same_tokens_are_paired_section_by_section() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, factor: f64, sections: bool| {
        let mut result = results::run("m", &Cache::new("int4-hqq", 4, 0.004));
        let kld = result.benchmarks.kld.as_mut().unwrap();
        // Sections of a text differ far more from one another than two caches do in one of them.
        let shares = [0.05, 0.1, 0.25, 0.4, 0.7, 1.5, 2.0, 3.0];
        kld.mean = 0.002 * factor;
        kld.standard_error = Some(kld.mean / 2.0);
        let mean = |(i, share): (usize, &f64)| 0.002 * share * (factor + 0.01 * (i % 2) as f64);
        kld.by_section = shares.iter().enumerate().map(mean).take(if sections { 8 } else { 0 }).collect();
        one(folder.path(), name, &result)
    };
    let base = file("a", 1.0, true);
    let kld = |new: &Path| lines(&base, new).into_iter().find(|line| line["metric"] == "kld").unwrap();
    let same = kld(&base);
    assert_eq!((&same["change"], &same["verdict"]), (&"0.00 %".into(), &"no clear change".into()), "{same}");
    let worse = kld(&file("b", 1.1, true));
    assert_eq!(worse["verdict"], "worse", "{worse}");
    assert!(
        (worse["change_value"].as_f64().unwrap() - 0.1).abs() < 1e-9 && worse["change_low"].as_f64().unwrap() > 0.09
    );
    let unknown = kld(&file("c", 1.1, false));
    assert!(unknown["change_low"].is_null() && unknown["verdict"] == "worse? (spread unknown)", "{unknown}");
}

#[test]
fn perplexities_of_two_quantized_caches_are_paired_section_by_section() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, rise: f64, sections: bool| {
        let mut result = results::run("m", &Cache::new("int4-hqq", 4, 0.02 + rise));
        let ppl = result.benchmarks.perplexity_quantized.as_mut().unwrap();
        // Sections of a text differ far more from one another than two caches do in one of them.
        let nll = ppl.nll.unwrap();
        let mean = |i: u32| nll + 0.5 * (f64::from(i) - 3.5) + rise * [0.1, -0.1][i as usize % 2];
        ppl.by_section = (0..if sections { 8 } else { 0 }).map(mean).collect();
        one(folder.path(), name, &result)
    };
    let base = file("a", 0.0, true);
    let ppl = |new: &Path| lines(&base, new).into_iter().find(|line| line["metric"] == "ppl").unwrap();
    let same = ppl(&base);
    assert_eq!((&same["change"], &same["verdict"]), (&"0.00 %".into(), &"no clear change".into()), "{same}");
    let ends = |line: &Value| ["change_low", "change_high"].map(|end| line[end].as_f64().unwrap());
    let worse = ppl(&file("b", 0.001, true));
    let [low, high] = ends(&worse);
    // The sections' differences spread by 0.1069 ‰ about a mean of 1 ‰: of eight, the mean is sure to 0.038 ‰ (Student's t: 2.365).
    assert!((high - low - 2.0 * 2.3646 * 0.0378e-3).abs() < 1e-6 && worse["verdict"] == "worse", "{worse}");
    // Without them the two count as independent.
    let [low, high] = ends(&ppl(&file("c", 0.001, false)));
    assert!(low < 0.0 && high > 0.005, "{low} {high}");
}

#[test]
fn a_rate_of_nothing_on_both_sides_is_no_change_of_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut result = results::run("m", &Cache::new("int4-hqq", 4, 0.004));
    result.benchmarks.mmlu.iter_mut().for_each(|mmlu| (mmlu.correct, mmlu.accuracy) = (0, 0.0));
    let (base, new) = (one(folder.path(), "a", &result), one(folder.path(), "b", &result));
    let lines = lines(&base, &new);
    let of = |metric: &str| lines.iter().find(|line| line["metric"] == metric).unwrap();
    assert_eq!(of("mmlu")["change"], "no success on either side");
    assert!(of("mmlu")["remark"].as_str().unwrap().contains("says nothing"));
    assert!(of("needle")["remark"].is_null());
}

#[test]
fn what_is_said_of_a_side_names_it_and_the_same_files_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let mut result = results::run("m", &Cache::new("none", 16, 0.0));
    let base = one(folder.path(), "a", &result);
    result.timestamp = "2026-11-02T12:00:00".into();
    (result.experiment_id, result.combo_elapsed_s) = ("later".into(), 13.0);
    one(folder.path(), "b", &result);
    result.timestamp = "2026-11-03T12:00:00".into();
    result.experiment_id = "last".into();
    one(folder.path(), "b", &result);
    let (_, told) = said(&base, &folder.path().join("b"));
    assert!(told.contains("new: 3 measurements are left out") && !told.contains("base: "), "{told}");
    assert!(!told.contains("the same files"), "{told}");
    let (code, told) = said(&base, &folder.path().join("b/../a"));
    assert!(code == Some(0) && told.contains("BASE and --against are the same files"), "{told}");
}
