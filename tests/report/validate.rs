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
