//! Messages on standard error: what happens where they cannot be written.

use std::path::Path;

use crate::program::{json_files, kvprof};

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
