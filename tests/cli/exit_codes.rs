//! What the exit code tells a script: 0 all done, 1 something failed, 2 the request or what it names is wrong.

use std::path::Path;

use crate::program::{json_files, kvprof};

/// The exit code of a command line, `FOLDER` in it being `folder`, and what it printed to standard error.
fn outcome(line: &str, folder: &Path) -> (Option<i32>, String) {
    let folder = folder.display().to_string();
    let args = line.split_whitespace().map(|word| word.replace("FOLDER", &folder));
    let output = kvprof().args(args).env("HF_HUB_OFFLINE", "1").env("HF_HOME", &folder).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_wrong_request_or_input_ends_with_2() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::write(folder.join("cut.json"), "{").unwrap();
    std::fs::write(folder.join("typo.toml"), "[[matrx]]").unwrap();
    std::fs::create_dir(folder.join("empty")).unwrap();
    for line in [
        "",
        "rnu",
        "env --no-such-flag",
        "run --kv-quant int3-hqq",
        "run --no-profile --benchmarks none",
        "run --model FOLDER/absent --output-dir FOLDER/out",
        "run --config FOLDER/absent.toml",
        "run --output-dir FOLDER/cut.json",
        "sweep FOLDER/typo.toml",
        "patch FOLDER/cut.json --benchmarks ppl",
        "validate FOLDER/absent.json",
        "aggregate FOLDER/empty",
        "report FOLDER/empty -o FOLDER/report",
        "compare FOLDER/empty --against FOLDER/empty",
        "models org/never-downloaded",
        "schema -o FOLDER/absent/schema.json",
        "completions no-such-shell",
    ] {
        let (code, text) = outcome(line, folder);
        assert_eq!(code, Some(2), "{line}: {text}");
        assert!(!text.is_empty(), "{line}");
    }
}

#[test]
fn a_folder_that_holds_no_results_is_told_from_one_that_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("empty")).unwrap();
    for line in ["validate FOLDER/empty", "patch FOLDER/empty --benchmarks ppl"] {
        let (code, text) = outcome(line, folder.path());
        assert!(code == Some(2) && text.contains("the folder holds no result file"), "{line}: {text}");
    }
}

#[test]
fn a_hub_that_cannot_be_reached_is_work_that_failed_and_ends_with_1() {
    let folder = tempfile::tempdir().unwrap();
    for line in [
        "models org/name",
        "run --model org/name --output-dir FOLDER/out",
        "run --benchmarks mmlu --output-dir FOLDER/out",
    ] {
        let args = line.split_whitespace().map(|word| word.replace("FOLDER", &folder.path().display().to_string()));
        let mut command = kvprof();
        // Nothing listens there.
        command.args(args).env("HF_ENDPOINT", "http://127.0.0.1:9").env("HF_HOME", folder.path());
        for name in [
            "HF_HUB_OFFLINE",
            "TRANSFORMERS_OFFLINE",
            "HF_HUB_CACHE",
            "http_proxy",
            "HTTP_PROXY",
            "all_proxy",
            "ALL_PROXY",
        ] {
            command.env_remove(name);
        }
        let output = command.output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{line}: {text}");
        assert!(text.contains("check the network"), "{line}: {text}");
    }
}

#[test]
fn work_that_failed_in_part_ends_with_1_and_keeps_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    // The request is right; that this cache does not fit the model shows when its turn comes.
    let (code, text) = outcome(
        "run --kv-quant none int4-quanto,group=128 --no-profile --benchmarks ppl --ppl-tokens 64 --quiet --output-dir FOLDER",
        folder,
    );
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("do not divide the model's head dimension"), "{text}");
    assert!(!json_files(folder).is_empty());
    std::fs::write(folder.join("cut.json"), "{").unwrap();
    for line in [
        "validate FOLDER/cut.json",
        "aggregate FOLDER -o FOLDER/table.csv",
        "patch FOLDER --benchmarks ppl --ppl-tokens 32 --no-backup --quiet",
        "models builtin org/never-downloaded",
    ] {
        let (code, text) = outcome(line, folder);
        assert_eq!(code, Some(1), "{line}: {text}");
    }
    assert!(folder.join("table.csv").exists(), "what can be read is in the table");
}

#[test]
fn what_skipped_every_row_has_measured_nothing_and_ends_with_1() {
    let folder = tempfile::tempdir().unwrap();
    let run = "run --kv-quant none int4-hqq --context-lengths 64 --output-tokens 4 --warmup-runs 0 --measure-runs 1 --benchmarks none";
    let ended = |line: &str| {
        let (code, text) = outcome(line, folder.path());
        (code, text.lines().last().unwrap_or_default().contains("nothing was measured"), text)
    };
    for form in ["", "--quiet", "--json", "--resume"] {
        let (code, told, text) = ended(&format!("{run} --batch-sizes 1000000000 --output-dir FOLDER/none {form}"));
        assert!(code == Some(1) && told, "{form}: {text}");
    }
    let (code, told, text) = ended(&format!("{run} --batch-sizes 1 1000000000 --output-dir FOLDER/some"));
    assert!(code == Some(0) && !told, "one row is a result: {text}");
    // A patch goes by what it was to measure, whatever else its files hold.
    let patch = "patch FOLDER/some --benchmarks profile --batch-sizes 1000000000 --no-backup --quiet";
    let (code, told, text) = ended(patch);
    assert!(code == Some(1) && told, "{text}");
}

#[test]
fn what_was_done_as_asked_ends_with_0() {
    let folder = tempfile::tempdir().unwrap();
    for line in ["--help", "--version", "env", "schema -o FOLDER/schema.json", "models builtin", "completions zsh"] {
        let (code, text) = outcome(line, folder.path());
        assert_eq!(code, Some(0), "{line}: {text}");
    }
}
