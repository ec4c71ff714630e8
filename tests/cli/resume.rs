//! What a run that goes on takes for its own.

use crate::QUICK;
use crate::program::{json_files, kvprof};

#[test]
fn a_text_that_changed_is_scored_again_by_resume_and_one_that_was_renamed_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let run = |name: &str, content: &str| {
        let text = folder.path().join(name);
        std::fs::write(&text, content.repeat(100)).unwrap();
        let mut command = kvprof();
        command.args(["run", "--no-profile", "--kv-quant", "none", "--benchmarks", "ppl", "--ppl-tokens", "64"]);
        command.args(["--ppl-window", "64", "--ppl-burn-in", "8", "--resume", "--quiet", "--ppl-data"]).arg(&text);
        assert!(command.arg("--output-dir").arg(folder.path().join("out")).output().unwrap().status.success());
        json_files(&folder.path().join("out")).len()
    };
    assert_eq!(run("text.txt", "The miller went to the market. "), 1);
    assert_eq!(run("text.txt", "The miller went to the market. "), 1, "nothing is left to do");
    assert_eq!(run("of_another_name.txt", "The miller went to the market. "), 1);
    assert_eq!(run("text.txt", "The baker stayed at home all day. "), 2);
}

#[test]
fn a_stopped_run_is_resumed_in_its_own_file() {
    let folder = tempfile::tempdir().unwrap();
    let run = |resume: bool| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_kvprof"));
        command
            .args(["run", "--kv-quant", "none", "int4-hqq", "--quiet", "--output-dir"])
            .arg(folder.path())
            .args(QUICK);
        command.args(resume.then_some("--resume"));
        command
    };
    let mut stopped = run(false).spawn().unwrap();
    while json_files(folder.path()).is_empty() && stopped.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let _ = stopped.kill();
    let _ = stopped.wait();
    assert!(run(true).status().unwrap().success());
    let bytes = || -> Vec<_> { json_files(folder.path()).iter().map(|p| std::fs::read(p).unwrap()).collect() };
    let complete = bytes();
    assert_eq!(complete.len(), 2, "one file for each quantization, the stopped one's own among them");
    assert!(run(true).status().unwrap().success());
    assert!(bytes() == complete, "a complete run is left alone");
}
