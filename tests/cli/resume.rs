//! What a run that goes on takes for its own.

use std::process::{Child, Command, Stdio};

use crate::QUICK;
use crate::program::{builtin_in, json_files, kvprof, read};

/// Waits until `there` is so, or `child` has ended.
fn wait_for(child: &mut Child, there: impl Fn() -> bool) {
    while !there() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// Is heeded as Ctrl-C is. A shell has Ctrl-C itself ignored by what it starts in the background, these tests with it.
#[cfg(unix)]
const INTERRUPT: &str = "-TERM";

#[cfg(unix)]
fn send(signal: &str, child: &Child) {
    let pid = child.id().to_string();
    assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
}

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
        let mut command = Command::new(env!("CARGO_BIN_EXE_kvprof"));
        command
            .args(["run", "--kv-quant", "none", "int4-hqq", "--quiet", "--output-dir"])
            .arg(folder.path())
            .args(QUICK);
        command.args(resume.then_some("--resume"));
        command
    };
    let mut stopped = run(false).spawn().unwrap();
    wait_for(&mut stopped, || !json_files(folder.path()).is_empty());
    let _ = stopped.kill();
    let _ = stopped.wait();
    assert!(run(true).status().unwrap().success());
    let bytes = || -> Vec<_> { json_files(folder.path()).iter().map(|p| std::fs::read(p).unwrap()).collect() };
    let complete = bytes();
    assert_eq!(complete.len(), 2, "one file for each quantization, the stopped one's own among them");
    assert!(run(true).status().unwrap().success());
    assert!(bytes() == complete, "a complete run is left alone");
}

#[cfg(unix)]
#[test]
fn a_run_that_is_interrupted_before_anything_was_measured_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut run = Command::new(env!("CARGO_BIN_EXE_kvprof"))
        .args([
            "run",
            "--kv-quant",
            "int4-hqq",
            "--no-profile",
            "--benchmarks",
            "ppl",
            "--ppl-tokens",
            "200000",
            "--quiet",
        ])
        .arg("--output-dir")
        .arg(folder.path())
        .spawn()
        .unwrap();
    wait_for(&mut run, || !json_files(folder.path()).is_empty());
    send(INTERRUPT, &run);
    assert_eq!(run.wait().unwrap().code(), Some(130));
    assert_eq!(json_files(folder.path()).len(), 0);
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_says_what_is_complete_and_how_to_go_on() {
    let folder = tempfile::tempdir().unwrap();
    // The second run is decoding for seconds when the first is complete.
    let line =
        "run --kv-quant none --benchmarks none --context-lengths 64 --output-tokens 4 1900 --measure-runs 20 --quiet";
    let mut run = Command::new(env!("CARGO_BIN_EXE_kvprof"))
        .args(line.split_whitespace())
        .arg("--output-dir")
        .arg(folder.path())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for(&mut run, || json_files(folder.path()).len() == 2);
    send(INTERRUPT, &run);
    let output = run.wait_with_output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), json_files(folder.path()).len()), (Some(130), 1), "{text}");
    assert!(text.contains("1 of 2 runs are complete") && text.contains("--resume"), "{text}");
}

#[cfg(unix)]
#[test]
fn a_signal_that_was_ignored_at_the_start_stays_ignored() {
    let folder = tempfile::tempdir().unwrap();
    let line = "run --kv-quant none --benchmarks none --context-lengths 64 --output-tokens 4 300 --measure-runs 5 --quiet --output-dir";
    // As nohup does, and a shell for what it starts in the background.
    let mut run = Command::new("sh")
        .args(["-c", "trap '' HUP INT; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_kvprof")])
        .args(line.split_whitespace())
        .arg(folder.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait_for(&mut run, || !json_files(folder.path()).is_empty());
    for signal in ["-HUP", "-INT"] {
        send(signal, &run);
    }
    assert_eq!((run.wait().unwrap().code(), json_files(folder.path()).len()), (Some(0), 2));
}

/// The second row's prompt is one chunk of minutes.
#[cfg(unix)]
#[test]
fn a_second_interrupt_ends_a_long_chunk_at_once_and_loses_no_finished_block() {
    use std::io::{BufRead, BufReader};
    let folder = tempfile::tempdir().unwrap();
    let line = "run --kv-quant none --benchmarks none --context-lengths 64 2000 --batch-sizes 64 --prefill-chunk 2000 --output-tokens 4 \
                --warmup-runs 0 --measure-runs 1 --energy-seconds 0.01 --output-dir";
    let mut run = Command::new(env!("CARGO_BIN_EXE_kvprof"))
        .args(line.split_whitespace())
        .arg(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let completed = || json_files(folder.path()).first().map(|path| read(path)["completed"].clone());
    let first = serde_json::json!(["profile@64x64"]);
    wait_for(&mut run, || completed().as_ref() == Some(&first));
    send(INTERRUPT, &run);
    let mut told = BufReader::new(run.stderr.take().unwrap());
    let mut text = String::new();
    while !text.contains("Ctrl-C again ends at once") {
        assert!(told.read_line(&mut text).unwrap() > 0, "{text}");
    }
    assert!(text.contains("a chunk of a long prompt") && text.contains("in their files already"), "{text}");
    send(INTERRUPT, &run);
    let output = run.wait_with_output().unwrap();
    assert_eq!(
        (output.status.code(), output.stdout.len()),
        (Some(130), 0),
        "no step was waited for, and nothing shown"
    );
    assert_eq!(completed(), Some(first));
}

#[test]
fn weights_that_changed_are_measured_anew_by_resume_and_what_was_there_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let run = |more: &[&str]| {
        let mut command = kvprof();
        command.args(["run", "--kv-quant", "none", "--benchmarks", "ppl", "--resume", "--model"]);
        command.arg(folder.path().join("model")).args(["--ppl-data", "builtin", "--output-dir"]).arg(&out);
        let output = command.args(QUICK).args(more).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{text}");
        (json_files(&out).len(), text)
    };
    builtin_in(folder.path(), "model", false);
    assert_eq!(run(&[]).0, 1);
    let (files, text) = run(&[]);
    assert!(files == 1 && text.contains("1 of 1 runs were complete before"), "{text}");
    // One byte of a file of the same name and size.
    builtin_in(folder.path(), "model", true);
    let (files, text) = run(&[]);
    assert!(files == 2 && text.contains("was measured with another") && text.contains("weights "), "{text}");
    assert!(!text.contains("complete before"), "{text}");
    let revisions: Vec<_> =
        json_files(&out).iter().map(|path| read(path)["model_config"]["revision"].clone()).collect();
    assert_ne!(revisions[0], revisions[1]);
    // Each has its own file from now on.
    assert_eq!(run(&[]).0, 2);
    builtin_in(folder.path(), "model", false);
    assert_eq!(run(&[]).0, 2);
    // What a file lacks is added to it, and the level `info` says what it had.
    let path = json_files(&out).into_iter().next().unwrap();
    let mut cut = read(&path);
    cut["completed"].as_array_mut().unwrap().retain(|block| block != "ppl");
    let digest = cut["model_config"]["revision"].as_str().unwrap().to_string();
    std::fs::write(&path, cut.to_string()).unwrap();
    builtin_in(folder.path(), "model", digest != revisions[0].as_str().unwrap());
    let (files, text) = run(&["--log-level", "kvprof=info"]);
    assert_eq!(files, 2);
    for told in [
        "1 of 1 runs went on in files with 1 block measured before",
        "it has profile@256x1",
        &digest,
        "tokens to score",
    ] {
        assert!(text.contains(told), "{told}: {text}");
    }
}

#[test]
fn a_tokenizer_or_a_rotation_that_changed_is_measured_anew_by_resume() {
    let folder = tempfile::tempdir().unwrap();
    let (out, model) = (folder.path().join("out"), builtin_in(folder.path(), "model", false));
    let run = || {
        let mut command = kvprof();
        command.args(["run", "--no-profile", "--kv-quant", "none", "--benchmarks", "ppl", "--ppl-tokens", "64"]);
        command.args(["--ppl-window", "64", "--ppl-burn-in", "8", "--ppl-data", "builtin", "--resume", "--model"]);
        let output = command.arg(&model).arg("--output-dir").arg(&out).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{text}");
        (json_files(&out).len(), text)
    };
    let edit = |file: &str, from: &str, to: &str| {
        let text = std::fs::read_to_string(model.join(file)).unwrap();
        assert!(text.contains(from), "{file}: {text}");
        std::fs::write(model.join(file), text.replacen(from, to, 1)).unwrap();
    };
    assert_eq!(run().0, 1);
    assert_eq!(run().0, 1);
    edit("config.json", "\"rope_theta\": 1", "\"rope_theta\": 2");
    let (files, text) = run();
    assert!(files == 2 && text.contains("rotation of positions {\"base\":1"), "{text}");
    // The same tokens, but who knows: the content is another.
    edit("tokenizer.json", "{", "{ ");
    let (files, text) = run();
    assert!(files == 3 && text.contains("tokenizer (with its chat template) "), "{text}");
    // A file from before tells neither, and is gone on with.
    for path in json_files(&out) {
        let mut old = read(&path);
        for field in ["rope", "tokenizer_sha256", "end_tokens"] {
            assert!(!old["model_config"].as_object_mut().unwrap().remove(field).unwrap().is_null(), "{field}");
        }
        std::fs::write(&path, old.to_string()).unwrap();
    }
    edit("tokenizer.json", "{", "{ ");
    assert_eq!(run().0, 3);
}

#[test]
fn where_there_is_no_terminal_a_line_says_that_a_run_begins_and_ends() {
    let folder = tempfile::tempdir().unwrap();
    let said = |more: &[&str]| {
        let mut run = kvprof();
        run.args(["run", "--kv-quant", "none", "int8-hqq", "--benchmarks", "none", "--context-lengths", "256"]);
        run.args(["--warmup-runs", "0", "--measure-runs", "1", "--output-tokens", "2", "--output-dir"]);
        let output = run.arg(folder.path()).args(more).output().unwrap();
        assert!(output.status.success());
        let text = String::from_utf8(output.stderr).unwrap();
        text.lines().filter(|line| line.contains("/2 ")).map(String::from).collect::<Vec<_>>()
    };
    let ends = |lines: &[String], wanted: &[&str]| {
        assert_eq!(lines.len(), wanted.len(), "{lines:?}");
        assert!(lines.iter().zip(wanted).all(|(line, wanted)| line.starts_with(wanted)), "{lines:?}");
    };
    let first = said(&[]);
    let begins = ["1/2 builtin fused none: measuring", "2/2 builtin fused int8-hqq: measuring"];
    let done = ["1/2 builtin fused none: done after", "2/2 builtin fused int8-hqq: done after"];
    ends(&first, &[begins[0], done[0], begins[1], done[1]]);
    let resumed = said(&["--resume"]);
    ends(&resumed, &["1/2 builtin fused none: was complete", "2/2 builtin fused int8-hqq: was complete"]);
    ends(&said(&["--quiet"]), &[]);
}
