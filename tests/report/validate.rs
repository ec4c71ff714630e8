//! `kvprof validate`: one line for each finding, exit code 1 if any.

use crate::kvprof;
use crate::results::{self, Cache};

/// What it prints about a folder that holds `files`.
fn findings(files: &[kvprof::schema::RunResult]) -> (Option<i32>, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    for (at, file) in files.iter().enumerate() {
        std::fs::write(folder.path().join(format!("{at}.json")), serde_json::to_vec(file).unwrap()).unwrap();
    }
    let output = kvprof().arg("validate").arg(folder.path()).output().unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap().lines().map(String::from).collect())
}

#[test]
fn broken_counts_and_old_versions_are_told_one_line_each() {
    let sound = results::run("org/Small-1B", &Cache::new("int4-hqq", 4, 0.01));
    let (code, lines) = findings(std::slice::from_ref(&sound));
    assert_eq!((code, lines.len()), (Some(0), 0), "{lines:?}");
    let told = |file: &kvprof::schema::RunResult, words: &str| {
        let (code, lines) = findings(std::slice::from_ref(file));
        assert_eq!((code, lines.len()), (Some(1), 1), "{words}: {lines:?}");
        assert!(lines[0].contains("0.json") && lines[0].contains(words), "{lines:?}");
    };
    let mut ledger = sound.clone();
    ledger.measurements[0].kv_bytes.as_mut().unwrap().codes_bytes += 1;
    told(&ledger, "ledger");
    let mut shares = sound.clone();
    let phase = shares.measurements[0].kernels.as_mut().unwrap().decode.as_mut().unwrap();
    phase.categories.get_mut("ffn").unwrap().share = 0.9;
    told(&shares, "shares");
    let mut counts = sound.clone();
    counts.benchmarks.mmlu.as_mut().unwrap().accuracy = 0.9;
    told(&counts, "mmlu");
    let mut stopped = sound.clone();
    stopped.completed.push("mmlu".into());
    stopped.benchmarks.mmlu.as_mut().unwrap().planned = Some(300);
    told(&stopped, "200 of 300 questions");
    let mut zero = sound.clone();
    zero.measurements[0].avg_power_watts = Some(0.0);
    told(&zero, "null");
    let mut old = sound.clone();
    old.benchmarks.kld.as_mut().unwrap().version = Some(999);
    told(&old, "kvprof patch --benchmarks kld");
}

#[test]
fn measuring_again_is_no_finding_and_a_copy_is_one() {
    let first = kvprof::schema::RunResult {
        spec_hash: Some("5eed".into()),
        ..results::run("org/Small-1B", &Cache::new("int4-hqq", 4, 0.01))
    };
    // The same command a minute later, into the same folder.
    let mut again = first.clone();
    again.experiment_id = first.experiment_id.replace("120000", "120100");
    assert_ne!(again.experiment_id, first.experiment_id);
    let (code, lines) = findings(&[first.clone(), again]);
    assert_eq!((code, lines.len()), (Some(0), 0), "{lines:?}");
    let (code, lines) = findings(&[first.clone(), first]);
    assert_eq!((code, lines.len()), (Some(1), 1), "{lines:?}");
    assert!(lines[0].contains("0.json") && lines[0].contains("the same run"), "{lines:?}");
}

#[test]
fn numbers_that_follow_from_others_are_held_to_them() {
    let sound = results::run("org/Small-1B", &Cache::new("int4-hqq", 4, 0.01));
    let told = |change: &dyn Fn(&mut kvprof::schema::RunResult), words: &str| {
        let mut file = sound.clone();
        change(&mut file);
        let (code, lines) = findings(&[file]);
        assert_eq!((code, lines.len()), (Some(1), 1), "{words}: {lines:?}");
        assert!(lines[0].contains(words), "{lines:?}");
    };
    told(&|r| r.measurements[0].kv_cache_mb = Some(1.0), "kv_cache_mb is 1");
    told(&|r| r.measurements[0].prefill_runs_ms.as_mut().unwrap().raw[2] *= 1.5, "prefill_runs_ms.mean is");
    told(
        &|r| {
            let m = &mut r.measurements[0];
            (m.prefill_ms, m.prefill_tokens_per_sec) = (Some(1.0), Some(1024e3));
        },
        "prefill_ms is 1, but the median",
    );
    told(&|r| r.measurements[0].prefill_tokens_per_sec = Some(7.0), "prefill_tokens_per_sec is 7");
    told(&|r| r.measurements[0].decode_tokens_per_sec = Some(7.0), "decode_tokens_per_sec is 7");
    told(&|r| r.benchmarks.perplexity_quantized.as_mut().unwrap().ln_ratio = Some(0.5), "exp(ln_ratio)");
    told(&|r| r.benchmarks.kld.as_mut().unwrap().mean = -0.1, "negative");
    told(&|r| r.timestamp = "yesterday".into(), "timestamp is \"yesterday\"");
}

#[test]
fn numbers_out_of_range_and_a_quantization_that_is_not_the_named_one_are_told() {
    let told = |change: &dyn Fn(&mut kvprof::schema::RunResult), words: &str| {
        let mut file = results::run("org/Small-1B", &Cache::new("int4-hqq", 4, 0.01));
        change(&mut file);
        let (code, lines) = findings(&[file]);
        assert_eq!((code, lines.len()), (Some(1), 1), "{words}: {lines:?}");
        assert!(lines[0].contains(words), "{lines:?}");
    };
    told(
        &|r| r.benchmarks.needle_in_haystack.as_mut().unwrap().quantized_read_fraction = Some(1.7),
        "benchmarks.needle_in_haystack.quantized_read_fraction is 1.7, which is not within 0 and 1",
    );
    told(&|r| r.measurements[1].vram_peak_mb = Some(-3.0), "measurements[1].vram_peak_mb is -3, which is negative");
    told(&|r| r.kv_quant.nbits = Some(8), "kv_quant.nbits is 8, but int4-hqq has 4");
    told(&|r| r.kv_quant.residual_length = Some(64), "kv_quant.residual_length is 64, but int4-hqq has 128");
    told(&|r| r.kv_quant.hadamard = Some("kv".into()), "kv_quant.hadamard is \"kv\", but int4-hqq has none");
    told(&|r| r.kv_quant.keep_layers = vec![0], "kv_quant.keep_layers is [0], but int4-hqq has none");
}

#[test]
fn numbers_out_of_range_are_told_of_files_of_2_0_too() {
    let mut old = results::run("org/Small-1B", &Cache::new("int4-hqq", 4, 0.01));
    old.schema_version = "2.0".into();
    // An estimate of 2.0, as the difference of two times.
    old.measurements[0].quant_overhead_ms = Some(-3.0);
    assert_eq!(findings(&[old.clone()]), (Some(0), Vec::new()));
    old.measurements[1].decode_tokens_per_sec = Some(-2.0);
    old.benchmarks.needle_in_haystack.as_mut().unwrap().per_context.get_mut("1024").unwrap().success_rate = 1.5;
    let (code, lines) = findings(&[old]);
    assert_eq!((code, lines.len()), (Some(1), 3), "{lines:?}");
    assert!(lines[0].contains("12 of 12 are not a rate of 1.5"), "{lines:?}");
    assert!(lines[1].contains("decode_tokens_per_sec is -2, which is negative"), "{lines:?}");
    assert!(lines[2].contains("success_rate is 1.5, which is not within 0 and 1"), "{lines:?}");
}

#[test]
fn every_file_of_a_sweep_passes() {
    let files: Vec<_> = results::sweep().iter().map(|cache| results::run("org/Small-1B", cache)).collect();
    assert_eq!(findings(&files), (Some(0), Vec::new()));
}

#[test]
fn files_of_the_thesis_tool_pass() {
    let Some(files) = crate::thesis_data::files() else { return };
    let output = kvprof().arg("validate").args(&files).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn a_folder_is_searched_below_as_for_a_report() {
    let folder = tempfile::tempdir().unwrap();
    let below = folder.path().join("raw/monday");
    std::fs::create_dir_all(&below).unwrap();
    results::write(&below, &results::run("m", &Cache::new("none", 16, 0.0)));
    std::fs::write(below.join(".hidden.json"), "{").unwrap();
    let output = kvprof().arg("validate").arg(folder.path()).output().unwrap();
    let said = crate::stderr(&output);
    assert!(output.status.success() && said.contains("1 file checked, 0 findings"), "{said}");
}
