//! Sweeps that are made: sharded, killed, resumed, by two processes, and where memory or disk space is short.

use std::path::Path;

use kvprof::base::progress::Progress;
use kvprof::session::runner::{self, Existing, Output};
use kvprof::session::sweep::Sweep;
use serde_json::Value;

use crate::program::{json_files, kvprof, read};
use crate::{SWEEP, sweep_file};

/// What results say, times and environment aside.
fn essence(folder: &Path) -> Vec<Value> {
    let mut all: Vec<Value> = json_files(folder)
        .iter()
        .map(|path| {
            let result = read(path);
            let ppl = |key: &str| result["benchmarks"][key]["value"].clone();
            serde_json::json!([
                result["spec_hash"],
                ppl("perplexity"),
                ppl("perplexity_quantized"),
                result["completed"]
            ])
        })
        .collect();
    all.sort_by_key(|v| v.to_string());
    all
}

#[test]
fn shards_together_are_the_sweep() {
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = sweep_file(parts.path());
    kvprof().arg("sweep").arg(&file).args(["--quiet", "--output-dir"]).arg(whole.path()).assert().success();
    let shards: Vec<_> = (1..=4)
        .map(|index| {
            std::process::Command::new(env!("CARGO_BIN_EXE_kvprof"))
                .arg("sweep")
                .arg(&file)
                .args(["--quiet", "--shard", &format!("{index}/4"), "--output-dir"])
                .arg(parts.path())
                .spawn()
                .unwrap()
        })
        .collect();
    for mut shard in shards {
        assert!(shard.wait().unwrap().success());
    }
    assert_eq!(essence(whole.path()).len(), 4);
    assert_eq!(essence(parts.path()), essence(whole.path()));
}

#[test]
fn a_sweep_killed_again_and_again_ends_with_the_same_results() {
    let (undisturbed, killed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = sweep_file(killed.path());
    kvprof().arg("sweep").arg(&file).args(["--quiet", "--output-dir"]).arg(undisturbed.path()).assert().success();
    let mut moment = 40u64;
    for _ in 0..20 {
        let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_kvprof"))
            .arg("sweep")
            .arg(&file)
            .args(["--quiet", "--output-dir"])
            .arg(killed.path())
            .spawn()
            .unwrap();
        // Spread over loading, measuring and writing; fixed, so that a failure can be repeated.
        moment = (moment * 37 + 101) % 1300;
        std::thread::sleep(std::time::Duration::from_millis(moment));
        let _ = child.kill();
        let _ = child.wait();
        for path in json_files(killed.path()) {
            read(&path);
        }
    }
    kvprof().arg("sweep").arg(&file).args(["--quiet", "--output-dir"]).arg(killed.path()).assert().success();
    assert_eq!(essence(killed.path()), essence(undisturbed.path()));
    // What is complete is left alone.
    let before: Vec<_> = json_files(killed.path()).iter().map(|p| std::fs::read(p).unwrap()).collect();
    kvprof().arg("sweep").arg(&file).args(["--quiet", "--output-dir"]).arg(killed.path()).assert().success();
    let after: Vec<_> = json_files(killed.path()).iter().map(|p| std::fs::read(p).unwrap()).collect();
    assert!(before == after);
}

#[test]
fn a_sweep_shows_what_the_same_file_shows_as_a_run() {
    let folder = tempfile::tempdir().unwrap();
    let file = sweep_file(folder.path());
    std::fs::write(&file, SWEEP.replace("[\"ppl\"]", "[\"ppl\", \"kld\", \"needle\"]").replace(", \"int8-hqq\"", ""))
        .unwrap();
    let heads = |args: &[&str]| {
        let out = tempfile::tempdir().unwrap();
        let output = kvprof().args(args).arg(&file).arg("--output-dir").arg(out.path()).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(json_files(out.path()).iter().all(|path| text.contains(path.to_str().unwrap())), "{text}");
        let names = ["KV cache", "needle", "KL", "at 50 %", "For builtin, ", "The bound: "];
        names.map(|name| text.matches(name).count())
    };
    let (sweep, run) = (heads(&["sweep"]), heads(&["run", "--config"]));
    assert_eq!(sweep, run);
    assert!(run.iter().all(|count| *count > 0), "{run:?}");
}

#[test]
fn markdown_is_all_that_stands_on_standard_output() {
    let folder = tempfile::tempdir().unwrap();
    let file = sweep_file(folder.path());
    let out = folder.path().join("out");
    let shown = |args: &[&str]| {
        let mut command = kvprof();
        let output = command.arg("sweep").arg(&file).args(args).arg("--output-dir").arg(&out).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, text) = shown(&["--markdown"]);
    let (table, advice) = text.split_once("\n\n").unwrap();
    assert_eq!(code, Some(0));
    assert!(table.lines().count() > 2 && table.lines().all(|line| line.starts_with("| ")), "{text}");
    assert!(table.lines().nth(1).unwrap().contains("-: |"), "numbers stand right: {text}");
    assert!(advice.starts_with("For builtin, ") && advice.contains("\n- ") && !text.contains(".json"), "{text}");
    assert_eq!(shown(&["--markdown", "--quiet"]).0, Some(2));
}

#[test]
fn progress_says_which_run_of_the_plan_it_is_of() {
    #[derive(Default)]
    struct Stages(std::cell::RefCell<Vec<String>>);
    impl Progress for Stages {
        fn begin_run(&self, run: usize, of: usize, _name: &str) {
            self.0.borrow_mut().push(format!("{run}/{of}"));
        }
        fn end_run(&self, how: &str) {
            self.0.borrow_mut().push(how.into());
        }
        fn start(&self, stage: &str, _total: u64) {
            self.0.borrow_mut().push(stage.to_string());
        }
        fn advance(&self, _units: u64) -> kvprof::Result<()> {
            Ok(())
        }
        fn finish(&self) {}
    }
    let folder = tempfile::tempdir().unwrap();
    let settings = "[settings]\ncontext-lengths = [64]\ndecode-tokens = 2\nwarmup-runs = 0\nmeasure-runs = 1";
    let matrix = |model: &str| format!("[[matrix]]\nmodels = ['{model}']\nkv-quants = ['none']\nbenchmarks = []");
    // The runs of each model are made by themselves.
    let other = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/model/builtin");
    let text = format!("{settings}\n{}\n{}", matrix("builtin"), matrix(other.to_str().unwrap()));
    let runs = Sweep::parse(Path::new("sweep.toml"), &text).unwrap().plan().unwrap().runs;
    let progress = Stages::default();
    let existing = Existing::Keep;
    let output = Output { folder: folder.path().into(), existing, progress: &progress, show_loading: false };
    assert!(runner::run(&runs, &output).unwrap().iter().all(|outcome| outcome.error.is_none()));
    assert_eq!(progress.0.into_inner(), ["1/2", "profile none @ 64×1", "done", "2/2", "profile none @ 64×1", "done"]);
}

#[test]
fn what_cannot_fit_is_a_row_with_the_reason_and_the_rest_is_measured() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sweep.toml");
    let huge = folder.path().join("huge.config.json");
    // Petabytes of weights, so that a load that is tried all the same fails at once.
    std::fs::write(
        &huge,
        r#"{"model_type": "llama", "num_hidden_layers": 1, "num_attention_heads": 8, "num_key_value_heads": 8,
            "hidden_size": 1048576, "head_dim": 64, "intermediate_size": 64, "vocab_size": 1073741824,
            "max_position_embeddings": 4096}"#,
    )
    .unwrap();
    let sweep = format!(
        "[settings]\ncontext-lengths = [256]\nwarmup-runs = 0\nmeasure-runs = 1\ndecode-tokens = 8\n\
         [[matrix]]\nmodels = ['builtin']\nkv-quants = ['int4-hqq']\nbatch-sizes = [1, 1000000000]\nbenchmarks = []\n\
         [[matrix]]\nmodels = [{huge:?}]\nkv-quants = ['none']\nbenchmarks = []\n\
         [model.{huge:?}]\nweights = 'dummy'\n"
    );
    std::fs::write(&file, sweep).unwrap();
    let out = folder.path().join("out");
    let run = || kvprof().arg("sweep").arg(&file).args(["--quiet", "--output-dir"]).arg(&out).output().unwrap();
    let output = run();
    assert!(output.status.success(), "a row that says why is a result: {}", String::from_utf8_lossy(&output.stderr));
    let files = json_files(&out);
    assert_eq!(files.len(), 2);
    let rows = |part: &str| {
        let file = files.iter().find(|f| f.to_string_lossy().contains(part)).unwrap();
        read(file)["measurements"].as_array().unwrap().clone()
    };
    let builtin = rows("builtin");
    let of = |batch: u64| builtin.iter().find(|m| m["batch_size"] == batch).unwrap();
    assert!(of(1)["decode_ms"].as_f64().unwrap() > 0.0);
    assert_eq!(of(1_000_000_000)["skipped"], true);
    assert!(of(1_000_000_000)["skip_reason"].as_str().unwrap().contains("for the cache alone"));
    let huge = rows("huge");
    assert_eq!((huge.len(), &huge[0]["skipped"]), (1, &true.into()));
    assert!(huge[0]["skip_reason"].as_str().unwrap().contains("its weights take"), "{huge:?}");
    assert!(huge[0]["free_bytes"].as_u64() > Some(1 << 20) && of(1_000_000_000)["free_bytes"].is_u64(), "{huge:?}");
    // What still does not fit is not tried again, and what is complete is left alone.
    let before: Vec<_> = files.iter().map(|f| std::fs::read(f).unwrap()).collect();
    assert!(run().status.success());
    assert!(read(&files[0])["measurements"] == serde_json::from_slice::<Value>(&before[0]).unwrap()["measurements"]);
    kvprof().arg("validate").arg(&out).assert().success();
}

/// A row that ran out of memory is as if it had been foreseen: a sweep that is resumed tries it again where more is free than then.
#[test]
fn what_ran_out_of_memory_is_tried_again_with_more_memory_only() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sweep.toml");
    let sweep = SWEEP.replace("\"none\", \"int8-hqq\", ", "").replace(", \"int2-hqq-kivi\"", "");
    std::fs::write(&file, sweep.replace("benchmarks", "batch-sizes = [1, 2]\nbenchmarks")).unwrap();
    let sweep = || {
        kvprof().arg("sweep").arg(&file).args(["--quiet", "--output-dir"]).arg(folder.path()).assert().success();
    };
    sweep();
    let path = json_files(folder.path())[0].clone();
    let measured = read(&path);
    assert_eq!(measured["completed"], serde_json::json!(["profile@256x1", "profile@256x2", "ppl"]));
    // As a card too small for two sequences would have left it, with so much memory free.
    let ran_out = |free: Value, completed: Value| {
        let mut result = measured.clone();
        result["measurements"][1] = serde_json::json!({"context_len": 256, "batch_size": 2, "skipped": true,
            "skip_reason": "CUDA_ERROR_OUT_OF_MEMORY", "free_bytes": free});
        result["completed"] = completed;
        std::fs::write(&path, result.to_string()).unwrap();
    };
    let row = || read(&path)["measurements"][1].clone();
    let without_it = serde_json::json!(["profile@256x1", "ppl"]);
    let everything = u64::MAX / 2;
    ran_out(everything.into(), without_it.clone());
    let before = std::fs::read(&path).unwrap();
    sweep();
    assert_eq!(std::fs::read(&path).unwrap(), before, "there is no more memory: it is left alone");
    // Nor is it tried where something else of the run is.
    ran_out(everything.into(), serde_json::json!(["profile@256x1"]));
    sweep();
    assert_eq!(read(&path)["completed"], without_it);
    assert_eq!(row()["free_bytes"], everything);
    // With more memory, where a file does not say how much there was, and in a file of which it counted as complete.
    for (free, completed) in
        [(1.into(), &without_it), (Value::Null, &without_it), (Value::Null, &measured["completed"])]
    {
        ran_out(free, completed.clone());
        sweep();
        assert!(row()["decode_ms"].as_f64().is_some_and(|ms| ms > 0.0), "{}", row());
        assert!(row()["skipped"].is_null());
    }
    // Who asks for it has it tried.
    ran_out(everything.into(), without_it);
    kvprof().args(["patch", "--benchmarks", "profile", "--quiet"]).arg(&path).assert().success();
    assert!(row()["decode_ms"].as_f64().is_some_and(|ms| ms > 0.0), "{}", row());
    assert_eq!(json_files(folder.path()).len(), 1);
}

/// The limit on file sizes stands in for a full disk: the same call fails, at the same place, in the same way.
#[cfg(unix)]
#[test]
fn out_of_disk_space_is_reported_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sweep.toml");
    let sweep = SWEEP.replace("needle-depths = [0.5]", "needle-depths = [0.5]\nneedle-trials = 40");
    let sweep = sweep.replace("[\"ppl\"]", "[\"ppl\", \"needle\"]").replace("int8-hqq", "int8-hqq,residual=64");
    std::fs::write(&file, sweep).unwrap();
    let out = folder.path().join("out");
    // 24 units of 512 bytes hold the profile and the perplexity, and not 40 needle trials.
    let limited = std::process::Command::new("sh")
        .args(["-c", "ulimit -f 24; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_kvprof"), "sweep"])
        .arg(&file)
        .args(["--quiet", "--output-dir"])
        .arg(&out)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&limited.stderr);
    assert_eq!(limited.status.code(), Some(1), "{errors}");
    assert!(errors.contains("File too large") && errors.contains(".json"), "{errors}");
    assert!(errors.contains("no room") && errors.contains("3 runs"), "the sweep stops, and says so: {errors}");
    let files = json_files(&out);
    assert_eq!(files.len(), 1, "nothing was begun that could not be kept");
    let kept = read(&files[0]);
    assert_eq!(kept["completed"], serde_json::json!(["profile@256x1", "ppl"]));
    assert!(kept["benchmarks"]["perplexity"]["value"].as_f64().unwrap() > 1.0);
    assert_eq!(std::fs::read_dir(&out).unwrap().count(), 1, "no temporary file stays behind");
    // With room again, the sweep goes on where it was.
    kvprof().arg("sweep").arg(&file).args(["--quiet", "--output-dir"]).arg(&out).assert().success();
    let files = json_files(&out);
    assert_eq!(files.len(), 4);
    assert!(files.iter().all(|f| read(f)["completed"].as_array().unwrap().len() == 3));
}

/// Two processes on one folder share the work: every run is made once.
#[test]
fn two_processes_on_one_folder_do_not_do_the_same_work() {
    let folder = tempfile::tempdir().unwrap();
    let file = sweep_file(folder.path());
    let start = || {
        std::process::Command::new(env!("CARGO_BIN_EXE_kvprof"))
            .arg("sweep")
            .arg(&file)
            .args(["--quiet", "--output-dir"])
            .arg(folder.path())
            .spawn()
            .unwrap()
    };
    let both = [start(), start()];
    for mut one in both {
        assert!(one.wait().unwrap().success());
    }
    let hashes: Vec<String> = json_files(folder.path()).iter().map(|f| read(f)["spec_hash"].to_string()).collect();
    let distinct: std::collections::BTreeSet<_> = hashes.iter().collect();
    assert_eq!((hashes.len(), distinct.len()), (4, 4), "{hashes:?}");
    kvprof().arg("sweep").arg(&file).args(["--quiet", "--output-dir"]).arg(folder.path()).assert().success();
    assert!(essence(folder.path()).iter().all(|run| run[3].as_array().unwrap().len() == 2));
}

#[test]
fn what_only_costs_depend_on_has_no_score_measured_anew() {
    let (folder, results) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let question = "How many sheep are one and two sheep, and how many are left of them when both of the two are sold?";
    let problem = serde_json::json!({"problem": question, "answer": "1"});
    std::fs::write(folder.path().join("test.jsonl"), problem.to_string()).unwrap();
    let file = sweep_file(folder.path());
    let text = SWEEP
        .replace("decode-tokens = 8", &format!("data = '{}'\nmax-new-tokens = 120", folder.path().display()))
        .replace(r#""none", "int8-hqq", "int4-hqq", "int2-hqq-kivi""#, r#""int4-hqq,residual=64""#)
        .replace(r#"["ppl"]"#, "['ppl', 'kld', 'needle', 'math']\noutput-tokens = [4, 8]");
    std::fs::write(&file, text).unwrap();
    kvprof().arg("sweep").arg(&file).args(["--quiet", "--output-dir"]).arg(results.path()).assert().success();
    let files: Vec<Value> = json_files(results.path()).iter().map(|path| read(path)).collect();
    let tokens: Vec<_> = files.iter().map(|file| &file["measurements"][0]["decode_tokens"]).collect();
    assert!(tokens == [4, 8] || tokens == [8, 4], "{tokens:?}");
    // To the last digit of the time that it took.
    assert_eq!(files[0]["benchmarks"], files[1]["benchmarks"]);
    for block in ["perplexity_quantized", "kld", "needle_in_haystack", "math"] {
        assert!(files[0]["benchmarks"][block]["elapsed_s"].as_f64().unwrap() > 0.0, "{block}");
    }
    assert_eq!(files[0]["completed"].as_array().unwrap().len(), 5);
    assert_eq!(files[0]["completed"], files[1]["completed"]);
}
