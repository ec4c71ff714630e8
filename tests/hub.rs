//! Loading through the hub's protocol, online and from the cache it leaves. The environment decides where the hub is, so
//! each load runs in a process of its own: this program again, running one ignored test.

#![allow(clippy::unwrap_used, reason = "a test that panics fails, as it should")]

mod support;

mod hub {
    mod gguf;
}

use std::path::Path;
use std::process::{Command, Output};

use kvprof::model::{LoadOptions, Subject};
use support::fixture;
use support::hub::{COMMIT, LoopbackHub, assert_passed, in_environment, run_child, silent_hub};

fn run(mut command: Command, home: &Path, environment: &[(&str, &str)]) -> Output {
    in_environment(&mut command, home, environment).output().unwrap()
}

/// Whether this is such a process: with `--ignored` alone, the children would run without their hub.
fn is_child() -> bool {
    std::env::var_os("KVPROF_TEST_CHILD").is_some()
}

#[test]
fn a_model_loads_from_the_hub_and_again_offline_from_the_cache() {
    let hub = LoopbackHub::serving(&[("gpt2", fixture("models/gpt2")), ("tiny/yi", fixture("models/yi"))]);
    let home = tempfile::tempdir().unwrap();
    let endpoint = hub.endpoint();
    let online = [("HF_ENDPOINT", endpoint.as_str()), ("HF_TOKEN", "hf_secret")];
    assert_passed(&run_child("child_loads_both_models", home.path(), &online));
    let seen = hub.seen();
    assert!(seen.iter().any(|s| s.path.ends_with(&format!("/gpt2/resolve/{COMMIT}/model.safetensors"))), "{seen:?}");
    assert!(seen.iter().all(|s| s.authorization.as_deref() == Some("Bearer hf_secret")), "{seen:?}");

    drop(hub);
    let offline = [("HF_ENDPOINT", endpoint.as_str()), ("HF_HUB_OFFLINE", "1")];
    assert_passed(&run_child("child_loads_both_models", home.path(), &offline));
    // Not declared offline, but without a network: the cache is enough.
    assert_passed(&run_child("child_loads_both_models", home.path(), &online));
    let nowhere = tempfile::tempdir().unwrap();
    assert_passed(&run_child("child_is_told_that_the_cache_is_empty", nowhere.path(), &offline));
    assert_passed(&run_child("child_is_told_that_the_hub_is_away", nowhere.path(), &online));
}

#[test]
fn the_command_line_runs_gpt2_from_the_hub_and_again_offline() {
    let hub = LoopbackHub::serving(&[("gpt2", fixture("models/gpt2"))]);
    let endpoint = hub.endpoint();
    let home = tempfile::tempdir().unwrap();
    let profile_gpt2 = |environment: &[(&str, &str)]| {
        let results = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_kvprof"));
        command.args(["run", "--model", "gpt2", "--context-lengths", "128", "256"]);
        command.args(["--kv-quant", "none", "int4-hqq", "--decode-tokens", "4", "--measure-runs", "1"]);
        command.args(["--device", "cpu", "--output-dir"]);
        command.arg(results.path());
        let output = run(command, home.path(), environment);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut files: Vec<_> = std::fs::read_dir(results.path()).unwrap().map(|e| e.unwrap().path()).collect();
        files.retain(|path| path.extension().is_some_and(|e| e == "json"));
        assert_eq!(files.len(), 2);
        for file in files {
            let result: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
            let lengths: Vec<_> = result["measurements"].as_array().unwrap().iter().collect();
            assert_eq!(lengths.iter().map(|m| m["context_len"].as_u64()).collect::<Vec<_>>(), [Some(128), Some(256)]);
        }
    };
    profile_gpt2(&[("HF_ENDPOINT", &endpoint)]);
    drop(hub);
    profile_gpt2(&[("HF_ENDPOINT", &endpoint), ("HF_HUB_OFFLINE", "1")]);
}

#[test]
fn a_patch_measures_the_commit_that_a_file_records_though_the_branch_has_moved() {
    let hub = LoopbackHub::serving(&[("gpt2", fixture("models/gpt2"))]);
    let endpoint = hub.endpoint();
    let (home, results) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let quick =
        ["--context-lengths", "64", "--decode-tokens", "4", "--measure-runs", "1", "--quiet", "--device", "cpu"];
    let kvprof = |arguments: &[&str], environment: &[(&str, &str)]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kvprof"));
        command.args(arguments).args(quick);
        run(command, home.path(), environment)
    };
    let folder = results.path().to_str().unwrap();
    let measure = ["run", "--model", "gpt2", "--kv-quant", "none", "--output-dir", folder];
    let patch = ["patch", folder, "--benchmarks", "profile"];
    let online = [("HF_ENDPOINT", endpoint.as_str())];
    let said = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    let output = kvprof(&measure, &online);
    assert!(output.status.success(), "{}", said(&output));
    let branch = home.path().join("hub/models--gpt2/refs/main");
    assert_eq!(std::fs::read_to_string(&branch).unwrap(), COMMIT);
    std::fs::write(&branch, COMMIT.replace('0', "f")).unwrap();
    let offline = [("HF_HUB_OFFLINE", "1")];
    let output = kvprof(&measure, &offline);
    assert!(!output.status.success() && said(&output).contains("config.json of gpt2"), "{}", said(&output));
    let output = kvprof(&patch, &offline);
    assert!(output.status.success(), "{}", said(&output));
    // A model that is named is taken as it is there now.
    let output = kvprof(&[&patch[..], &["--model", "gpt2"]].concat(), &offline);
    assert!(!output.status.success() && said(&output).contains("config.json of gpt2"), "{}", said(&output));
    // A folder of the hub's name is another model, unless somebody says that it is this one.
    let elsewhere = tempfile::tempdir().unwrap();
    let folder = elsewhere.path().join("gpt2");
    std::fs::create_dir(&folder).unwrap();
    for entry in std::fs::read_dir(fixture("models/gpt2")).unwrap().map(Result::unwrap) {
        std::fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
    }
    let patch_there = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kvprof"));
        command.current_dir(elsewhere.path()).args(patch).args(more).args(quick);
        run(command, home.path(), &offline)
    };
    let output = patch_there(&[]);
    let told = said(&output);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains(COMMIT) && told.contains("work in another folder") && told.contains("--model"), "{told}");
    let output = patch_there(&["--model", "gpt2"]);
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn a_revision_is_asked_for_by_name_and_a_repository_that_is_not_there_is_said_to_be_so() {
    let hub = LoopbackHub::serving(&[("gpt2", fixture("models/gpt2"))]);
    let home = tempfile::tempdir().unwrap();
    assert_passed(&run_child("child_loads_a_revision", home.path(), &[("HF_ENDPOINT", &hub.endpoint())]));
    let seen = hub.seen();
    assert!(seen.iter().any(|s| s.path.contains("/gpt2/resolve/v1%2Ffinal/")), "{seen:?}");
    assert!(seen.iter().all(|s| s.authorization.is_none()), "{seen:?}");
}

/// Runs the tiny GPT-2 of the hub.
fn run_of_gpt2(results: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvprof"));
    command.args(["run", "--model", "gpt2", "--kv-quant", "none", "--benchmarks", "none", "--context-lengths", "64"]);
    command.args(["--decode-tokens", "4", "--measure-runs", "1", "--device", "cpu", "--output-dir"]).arg(results);
    command
}

#[test]
fn a_cached_model_loads_though_the_hub_never_answers_and_one_that_is_not_cached_is_an_error() {
    let home = tempfile::tempdir().unwrap();
    let served = LoopbackHub::serving(&[("gpt2", fixture("models/gpt2"))]);
    let results = tempfile::tempdir().unwrap();
    assert!(run(run_of_gpt2(results.path()), home.path(), &[("HF_ENDPOINT", &served.endpoint())]).status.success());
    drop(served);
    let (endpoint, _listener) = silent_hub();
    let environment = [("HF_ENDPOINT", endpoint.as_str())];
    let again = || {
        let output = run(run_of_gpt2(results.path()), home.path(), &environment);
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    // What the repository does not have is in the cache too.
    let (done, said) = again();
    assert!(done && !said.contains("no answer within"), "{said}");
    let repository = home.path().join("hub/models--gpt2");
    std::fs::remove_dir_all(repository.join(".no_exist")).unwrap();
    let started = std::time::Instant::now();
    let (done, said) = again();
    assert!(done && said.contains("no answer within"), "{said}");
    // One wait, not one for each file that is looked for.
    assert!(started.elapsed().as_secs() < 20, "{:?}: {said}", started.elapsed());
    // Without its weights nobody knows what else is missing.
    std::fs::remove_file(repository.join(format!("snapshots/{COMMIT}/model.safetensors"))).unwrap();
    let (done, said) = again();
    assert!(!done && said.contains("generation_config.json of gpt2"), "{said}");
    let nowhere = tempfile::tempdir().unwrap();
    let output = run(run_of_gpt2(results.path()), nowhere.path(), &environment);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("no answer within") && said.contains("HF_ENDPOINT"), "{said}");
}

#[test]
fn a_file_that_the_hub_fails_to_give_is_not_taken_for_one_that_it_does_not_have() {
    let files = [("gpt2", fixture("models/gpt2"))];
    let (home, results) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let broken = LoopbackHub::out_of_order_for("/tokenizer.json", &files);
    // The second time all else is cached.
    for _ in 0..2 {
        let output = run(run_of_gpt2(results.path()), home.path(), &[("HF_ENDPOINT", &broken.endpoint())]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains("tokenizer.json of gpt2"), "{said}");
    }
    drop(broken);
    let mended = LoopbackHub::serving(&files);
    let output = run(run_of_gpt2(results.path()), home.path(), &[("HF_ENDPOINT", &mended.endpoint())]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn what_fits_is_told_by_config_json_alone() {
    let hub = LoopbackHub::serving(&[("gpt2", fixture("models/gpt2"))]);
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvprof"));
    command.args(["models", "gpt2", "--memory", "1GiB"]);
    let output = run(command, home.path(), &[("HF_ENDPOINT", &hub.endpoint())]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(hub.seen().iter().all(|s| s.path.ends_with("/config.json")), "{:?}", hub.seen());
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_the_wait_for_a_hub_that_does_not_answer() {
    let (home, results) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (endpoint, listener) = silent_hub();
    let mut command = run_of_gpt2(results.path());
    let command = in_environment(&mut command, home.path(), &[("HF_ENDPOINT", &endpoint)]);
    let mut child = command.stderr(std::process::Stdio::null()).spawn().unwrap();
    let connection = listener.accept().unwrap();
    // Heeded as Ctrl-C is, which is ignored where a shell has started the tests in the background.
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    let interrupted = std::time::Instant::now();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(interrupted.elapsed().as_secs() < 5, "{:?}", interrupted.elapsed());
    drop(connection);
}

#[test]
#[ignore = "runs in a process that another test starts"]
fn child_loads_both_models() {
    if !is_child() {
        return;
    }
    for (id, family) in [("gpt2", "gpt2"), ("tiny/yi", "llama")] {
        let subject = Subject::load(&LoadOptions::new(id)).unwrap();
        assert_eq!(subject.config().family, family);
        assert_eq!(subject.revision.as_deref(), Some(COMMIT));
        assert_eq!(subject.weights_sha256, None);
    }
    let gpt2 = Subject::load(&LoadOptions::new("gpt2")).unwrap();
    let text = "every byte — and no cut at 50 tokens, which this tokenizer.json asks for";
    let tokens = gpt2.tokenizer().unwrap().encode(text, true).unwrap();
    assert_eq!(tokens.len(), text.len());
    assert_eq!(gpt2.tokenizer().unwrap().decode(&tokens).unwrap(), text);
}

#[test]
#[ignore = "runs in a process that another test starts"]
fn child_loads_a_revision() {
    if !is_child() {
        return;
    }
    let options = LoadOptions { revision: Some("v1/final".into()), ..LoadOptions::new("gpt2") };
    assert_eq!(Subject::load(&options).unwrap().revision.as_deref(), Some(COMMIT));
    let error = Subject::load(&LoadOptions::new("owner/nothing")).unwrap_err();
    assert!(error.is_usage() && error.to_string().contains("owner/nothing"), "{error}");
}

#[test]
#[ignore = "runs in a process that another test starts"]
fn child_is_told_that_the_cache_is_empty() {
    if !is_child() {
        return;
    }
    let error = Subject::load(&LoadOptions::new("gpt2")).unwrap_err();
    assert!(error.is_usage() && error.to_string().contains("HF_HUB_OFFLINE"), "{error}");
}

#[test]
#[ignore = "runs in a process that another test starts"]
fn child_is_told_that_the_hub_is_away() {
    if !is_child() {
        return;
    }
    let error = Subject::load(&LoadOptions::new("gpt2")).unwrap_err();
    assert!(!error.is_usage() && error.to_string().contains("HF_ENDPOINT"), "{error}");
}
