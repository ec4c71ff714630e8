//! Follow-up prompts in files that are patched.

use std::path::{Path, PathBuf};

use crate::QUICK;
use crate::program::{json_files, kvprof, read};

/// The file of a run of [`QUICK`] and `flags` in `folder`.
fn run(folder: &Path, flags: &str) -> PathBuf {
    kvprof()
        .args(QUICK.split_whitespace())
        .arg(folder)
        .args(flags.split_whitespace())
        .arg("--quiet")
        .assert()
        .success();
    json_files(folder).pop().unwrap()
}

/// The exit code of a patch of `file`, and what it said.
fn patch(file: &Path, flags: &str) -> (Option<i32>, String) {
    let words = flags.split_whitespace();
    let output = kvprof().arg("patch").arg(file).args(["--no-backup", "--quiet"]).args(words).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_follow_up_prompt_that_a_file_records_holds_up_no_patch_that_reads_none() {
    let folder = tempfile::tempdir().unwrap();
    let file = run(folder.path(), "--follow-up-tokens 8");
    let (code, said) = patch(&file, "--benchmarks ppl --ppl-tokens 64 --output-tokens 4");
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("warning: --output-tokens (--decode-tokens): no effect, since --benchmarks without profile"));
    let before = std::fs::read(&file).unwrap();
    let (code, said) = patch(&file, "--benchmarks profile --output-tokens 4");
    assert!(code == Some(2) && said.contains("--follow-up-tokens 8 is more than --output-tokens"), "{said}");
    let (code, said) = patch(&file, "--benchmarks needle --follow-up-tokens 4");
    assert!(code == Some(2) && said.contains("--follow-up-tokens asks for what is measured in the profile"), "{said}");
    assert_eq!(std::fs::read(&file).unwrap(), before);
}

#[test]
fn a_run_that_goes_on_in_a_file_tells_the_follow_up_prompt_that_a_patch_added() {
    let folder = tempfile::tempdir().unwrap();
    let file = run(folder.path(), "");
    let (code, said) = patch(&file, "--benchmarks profile --context-lengths 300 --follow-up-tokens 8");
    let told = "int4-hqq at 300: patched with --follow-up-tokens 8 (the run's: the default)";
    assert!(code == Some(0) && said.contains(told), "{said}");
    let going_on = kvprof().args(QUICK.split_whitespace()).arg(folder.path()).args(["--resume", "--quiet"]).output();
    let said = String::from_utf8(going_on.unwrap().stderr).unwrap();
    assert!(said.contains(told) && !said.contains("at 256: patched"), "{said}");
    assert_eq!(read(&file)["measurements"][1]["follow_up"]["tokens"], 8);
    kvprof().arg("validate").arg(&file).assert().success();
}
