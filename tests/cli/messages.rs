//! Messages on standard error: what is warned of, and what happens where they cannot be written.

use std::path::Path;

use crate::program::{builtin_in, json_files, kvprof, read};

/// The exit code of a command line whose messages have no room.
#[cfg(target_os = "linux")]
fn without_room_for_messages(line: &str, folder: &Path) -> Option<i32> {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let line = line.replace("FOLDER", &folder.display().to_string());
    let mut command = std::process::Command::new(kvprof().get_program());
    command.args(line.split_whitespace()).stdout(std::process::Stdio::null()).stderr(full).status().unwrap().code()
}

#[cfg(target_os = "linux")]
#[test]
fn messages_that_cannot_be_written_lose_no_measurement() {
    let folder = tempfile::tempdir().unwrap();
    // Progress lines, log lines, and the warning that no code was read.
    let line = "run --kv-quant none int4-hqq --benchmarks none --context-lengths 64 --decode-tokens 4 --measure-runs 1 --log-level debug \
                --output-dir FOLDER";
    assert_eq!(without_room_for_messages(line, folder.path()), Some(0));
    assert_eq!(json_files(folder.path()).len(), 2);
    for (line, code) in [("aggregate FOLDER", 0), ("validate FOLDER", 0), ("run --kv-quant int3-hqq", 2), ("rnu", 2)] {
        assert_eq!(without_room_for_messages(line, folder.path()), Some(code), "{line}");
    }
}

#[cfg(unix)]
#[test]
fn a_closed_pipe_ends_what_prints_results_and_not_what_prints_messages() {
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};
    /// SIGPIPE.
    const CLOSED: i32 = 13;
    let closed = || std::io::pipe().unwrap().1;
    let folder = tempfile::tempdir().unwrap();
    let line =
        "run --kv-quant none --benchmarks none --context-lengths 64 --decode-tokens 4 --measure-runs 1 --output-dir";
    let mut run = Command::new(kvprof().get_program());
    run.args(line.split_whitespace()).arg(folder.path()).stdout(Stdio::null()).stderr(closed());
    assert!(run.status().unwrap().success());
    assert_eq!(json_files(folder.path()).len(), 1);
    let printing = Command::new(kvprof().get_program()).arg("schema").stdout(closed()).output().unwrap();
    assert_eq!((printing.status.signal(), printing.stderr.len()), (Some(CLOSED), 0));
}

#[test]
fn needles_beyond_the_models_own_sliding_window_are_warned_of_once() {
    let folder = tempfile::tempdir().unwrap();
    let model = builtin_in(folder.path(), "windowed", false);
    let mut config = read(&model.join("config.json"));
    config["model_type"] = "mistral".into();
    config["sliding_window"] = 300.into();
    std::fs::write(model.join("config.json"), config.to_string()).unwrap();
    let said = |more: &str| {
        let mut run = kvprof();
        run.args(["run", "--no-profile", "--kv-quant", "none", "int4-hqq", "--benchmarks", "needle", "--quiet"]);
        run.args(["--needle-depths", "0.5", "--device", "cpu", "--model"]).arg(&model).args(more.split_whitespace());
        let output = run.arg("--output-dir").arg(folder.path()).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{text}");
        (text.matches("no layer reads more than the latest 300 of 320 tokens").count(), text)
    };
    let (times, text) = said("--context-lengths 256 320");
    assert!(times == 1 && text.contains("--sliding-window off"), "{text}");
    for more in ["--context-lengths 256", "--context-lengths 320 --sliding-window off"] {
        let (times, text) = said(more);
        assert!(times == 0 && !text.contains("sliding window"), "{text}");
    }
}

#[test]
fn flags_of_a_profile_that_is_left_out_are_told_to_have_no_effect() {
    let folder = tempfile::tempdir().unwrap();
    let said = |benchmark: &str| {
        let mut run = kvprof();
        run.args([
            "run",
            "--no-profile",
            "--kv-quant",
            "none",
            "--quiet",
            "--ppl-tokens",
            "64",
            "--needle-depths",
            "0.5",
        ]);
        run.args(["--measure-runs", "9", "--batch-sizes", "2", "--output-tokens", "1792", "--benchmarks", benchmark]);
        let output = run.arg("--output-dir").arg(folder.path()).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{text}");
        text
    };
    let told = "warning: --batch-sizes, --output-tokens (--decode-tokens), --measure-runs: no effect, since --no-profile leaves out the profile\n";
    assert_eq!(said("ppl"), told);
    // The context at which needles are hidden by default is what the output leaves of the model's tokens.
    assert_eq!(said("needle"), told.replace(" --output-tokens (--decode-tokens),", ""));
}
