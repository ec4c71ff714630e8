//! GGUF models of the hub: `owner/name:Q4_K_M`, and `owner/name:file.gguf`.

use std::path::{Path, PathBuf};
use std::process::Command;

use candle_core::quantized::gguf_file::Value;
use kvprof::model::{LoadOptions, Subject};
use serde_json::Value as Json;

use crate::support::gguf::{convert, llama, split};
use crate::support::hub::{COMMIT, LoopbackHub, assert_passed, run_child, silent_hub};
use crate::{is_child, run};

/// A repository with a quantization in one file, whose context is 1024 tokens, and one in two parts, whose context is 128.
fn repository() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    llama(folder.path(), "m-Q4_K_M.gguf");
    let whole = folder.path().join("m-Q8_0.gguf");
    convert("llama", "llama", &[("context_length", Value::U32(128))], &whole);
    split(&whole, &[5]);
    std::fs::remove_file(whole).unwrap();
    for companion in ["mmproj-m-Q4_K_M.gguf", "README.md"] {
        std::fs::write(folder.path().join(companion), "no model").unwrap();
    }
    folder
}

/// kvprof with a cache and a folder for results of its own.
struct Bench {
    home: tempfile::TempDir,
    results: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Bench { home: tempfile::tempdir().unwrap(), results: tempfile::tempdir().unwrap() }
    }

    /// Exit code, and what stood on standard output and standard error.
    fn kvprof(&self, arguments: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kvprof"));
        command.args(arguments);
        let output = run(command, self.home.path(), environment);
        let [said, told] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        (output.status.code(), said + &told)
    }

    fn measure(&self, model: &str, environment: &[(&str, &str)]) -> (Option<i32>, String) {
        let folder = self.results.path().to_str().unwrap();
        let what = ["run", "--model", model, "--kv-quant", "none", "--benchmarks", "none", "--output-dir", folder];
        self.kvprof(&[&what[..], &QUICK].concat(), environment)
    }

    /// Result files by name.
    fn files(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.results.path()).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|e| e == "json")).collect();
        files.sort();
        files
    }
}

const QUICK: [&str; 8] = ["--context-lengths", "64", "--decode-tokens", "4", "--measure-runs", "1", "--device", "cpu"];

fn read(path: &Path) -> Json {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

#[test]
fn a_quantization_is_run_from_the_hub_and_again_offline() {
    let files = repository();
    let hub = LoopbackHub::serving(&[("tiny/m-GGUF", files.path().into())]);
    let (bench, endpoint) = (Bench::new(), hub.endpoint());
    let online = [("HF_ENDPOINT", endpoint.as_str())];
    let (code, said) = bench.measure("tiny/m-GGUF:q4_k_m", &online);
    assert_eq!(code, Some(0), "{said}");
    let [file] = bench.files().try_into().unwrap();
    assert!(name(&file).starts_with("m_gguf_q4_k_m_"), "{file:?}");
    let result = read(&file);
    assert_eq!(result["model"], "tiny/m-GGUF:Q4_K_M");
    let model = &result["model_config"];
    assert_eq!((&model["revision"], &model["gguf_file"]), (&COMMIT.into(), &"m-Q4_K_M.gguf".into()));
    let fetched: Vec<String> =
        hub.seen().into_iter().map(|seen| seen.path).filter(|p| p.contains("/resolve/")).collect();
    assert!(!fetched.is_empty() && fetched.iter().all(|path| path.ends_with("/m-Q4_K_M.gguf")), "{fetched:?}");

    drop(hub);
    let offline = [("HF_HUB_OFFLINE", "1")];
    let (code, said) = bench.measure("tiny/m-GGUF:Q4_K_M", &offline);
    assert_eq!(code, Some(0), "{said}");
    // Not declared offline, but without a network.
    let (code, said) = bench.measure("tiny/m-GGUF:Q4_K_M", &online);
    assert!(code == Some(0) && said.contains("going on with m-Q4_K_M.gguf of the cache"), "{said}");
    let (silent, _listener) = silent_hub();
    let (code, said) = bench.measure("tiny/m-GGUF:Q4_K_M", &[("HF_ENDPOINT", &silent)]);
    assert!(code == Some(0) && said.contains("no answer within"), "{said}");
    let (code, said) = bench.measure("tiny/m-GGUF:Q8_0", &offline);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("in the cache at") && said.contains("has no GGUF model Q8_0; there are Q4_K_M"), "{said}");
    assert!(said.contains("HF_HUB_OFFLINE forbids a download"), "{said}");
    let (code, said) = bench.measure("tiny/m-GGUF:Q8_0", &online);
    assert!(code == Some(1) && said.contains("tiny/m-GGUF cannot be fetched from the hub"), "{said}");
}

#[test]
fn all_parts_of_a_quantization_are_fetched_and_its_tokenizer_is_the_files() {
    let files = repository();
    let hub = LoopbackHub::serving(&[("tiny/m-GGUF", files.path().into())]);
    let home = tempfile::tempdir().unwrap();
    let endpoint = hub.endpoint();
    assert_passed(&run_child("hub::gguf::child_loads_a_model_in_parts", home.path(), &[("HF_ENDPOINT", &endpoint)]));
    assert!(hub.seen().iter().any(|seen| seen.path.contains("/resolve/v1/m-Q8_0-00001")), "{:?}", hub.seen());
    drop(hub);
    // One part is gone from the cache.
    let cache = home.path().join("hub/models--tiny--m-GGUF/snapshots").join(COMMIT);
    std::fs::remove_file(cache.join("m-Q8_0-00002-of-00002.gguf")).unwrap();
    let bench = Bench { home, results: tempfile::tempdir().unwrap() };
    let (code, said) = bench.measure("tiny/m-GGUF:Q8_0", &[("HF_HUB_OFFLINE", "1")]);
    assert_eq!(code, Some(2), "{said}");
}

#[test]
#[ignore = "runs in a process that another test starts"]
fn child_loads_a_model_in_parts() {
    if !is_child() {
        return;
    }
    for (named, revision) in [("Q8_0", Some("v1")), ("m-Q8_0-00002-of-00002.gguf", None)] {
        let options =
            LoadOptions { revision: revision.map(Into::into), ..LoadOptions::new(format!("tiny/m-GGUF:{named}")) };
        let subject = Subject::load(&options).unwrap();
        assert_eq!(subject.config().max_positions, 128);
        assert_eq!(subject.revision.as_deref(), Some(COMMIT));
        assert_eq!(subject.gguf_file.as_deref(), Some("m-Q8_0-00001-of-00002.gguf"));
        assert_eq!(subject.weights_sha256, None);
        assert!(!subject.tokenizer().unwrap().encode("piece7", true).unwrap().is_empty());
        assert_eq!(Subject::identity_of(&options).unwrap(), subject.identity());
        assert_eq!(&Subject::shape(&options).unwrap(), subject.config());
    }
}

#[test]
fn what_a_repository_has_is_told_where_a_name_fits_none_or_several() {
    let (files, several) = (repository(), repository());
    std::fs::copy(files.path().join("m-Q4_K_M.gguf"), several.path().join("n-Q4_K_M.gguf")).unwrap();
    // Configurations lie beside GGUF files too.
    std::fs::write(several.path().join("config.json"), "{}").unwrap();
    let fixture = crate::support::fixture("models/gpt2");
    let served =
        [("tiny/m-GGUF", files.path().into()), ("tiny/several", several.path().into()), ("tiny/gpt2", fixture)];
    let hub = LoopbackHub::serving(&served);
    let (bench, endpoint) = (Bench::new(), hub.endpoint());
    for (model, told) in [
        (
            "tiny/m-GGUF:Q3_K_S",
            "tiny/m-GGUF has no GGUF model Q3_K_S; there are Q4_K_M, Q8_0: give one, as tiny/m-GGUF:Q4_K_M",
        ),
        ("tiny/m-GGUF:Q4_K", "has no GGUF model Q4_K; there are Q4_K_M, Q8_0"),
        ("tiny/m-GGUF:mmproj-m-Q4_K_M.gguf", "has no GGUF model mmproj-m-Q4_K_M.gguf; there are Q4_K_M, Q8_0"),
        (
            "tiny/m-GGUF",
            "tiny/m-GGUF has no safetensors but GGUF models; there are Q4_K_M, Q8_0: give one, as tiny/m-GGUF:Q4_K_M",
        ),
        (
            "tiny/several:q4_k_m",
            "has several GGUF models Q4_K_M: m-Q4_K_M.gguf, n-Q4_K_M.gguf; give one, as tiny/several:m-Q4_K_M.gguf",
        ),
        ("tiny/several", "there are m-Q4_K_M.gguf, Q8_0, n-Q4_K_M.gguf: give one, as tiny/several:m-Q4_K_M.gguf"),
        ("tiny/gpt2:Q4_K_M", "tiny/gpt2 has no GGUF models; give tiny/gpt2 to load safetensors"),
        ("tiny/nothing:Q4_K_M", "tiny/nothing cannot be fetched from the hub"),
    ] {
        let (code, said) = bench.measure(model, &[("HF_ENDPOINT", &endpoint)]);
        assert!(code == Some(2) && said.contains(told), "{model}: {code:?} {said}");
    }
    assert!(hub.seen().iter().all(|seen| !seen.path.ends_with(".gguf")), "{:?}", hub.seen());
    let (code, said) = bench.measure("tiny/several:n-Q4_K_M.gguf", &[("HF_ENDPOINT", &endpoint)]);
    assert_eq!(code, Some(0), "{said}");
    assert!(name(&bench.files()[0]).starts_with("n_q4_k_m_"), "{:?}", bench.files());
}

#[test]
fn models_and_sweep_take_quantizations_and_keep_them_apart() {
    let files = repository();
    let hub = LoopbackHub::serving(&[("tiny/m-GGUF", files.path().into())]);
    let (bench, endpoint) = (Bench::new(), hub.endpoint());
    let online = [("HF_ENDPOINT", endpoint.as_str())];
    let (code, said) = bench.kvprof(&["models", "tiny/m-GGUF:Q4_K_M", "tiny/m-GGUF:q8_0", "--memory", "1GiB"], &online);
    assert!(
        code == Some(0) && said.contains("context of 1024 tokens") && said.contains("context of 128 tokens"),
        "{said}"
    );
    let plan = bench.home.path().join("sweep.toml");
    let matrix = r#"
        [settings]
        context-lengths = [64]
        measure-runs = 1
        [[matrix]]
        models = ["tiny/m-GGUF:q4_k_m", "tiny/m-GGUF:Q8_0"]
        kv-quants = ["none"]
        output-tokens = [4]
    "#;
    std::fs::write(&plan, matrix).unwrap();
    let folder = bench.results.path().to_str().unwrap();
    let sweep = ["sweep", plan.to_str().unwrap(), "--output-dir", folder];
    let (code, said) = bench.kvprof(&sweep, &online);
    assert_eq!(code, Some(0), "{said}");
    let names = |files: &[PathBuf]| files.iter().map(|path| name(path).to_owned()).collect::<Vec<_>>();
    let first = names(&bench.files());
    assert_eq!(first.len(), 2, "{first:?}");
    assert!(first[0].starts_with("m_gguf_q4_k_m_") && first[1].starts_with("m_gguf_q8_0_"), "{first:?}");
    let (code, said) = bench.kvprof(&sweep, &[("HF_HUB_OFFLINE", "1")]);
    assert_eq!((code, names(&bench.files())), (Some(0), first), "{said}");
}

#[test]
fn a_patch_takes_the_quantization_that_a_file_records_at_its_commit_and_no_other() {
    let files = repository();
    let hub = LoopbackHub::serving(&[("tiny/m-GGUF", files.path().into())]);
    let (bench, endpoint) = (Bench::new(), hub.endpoint());
    let online = [("HF_ENDPOINT", endpoint.as_str())];
    let (code, said) = bench.measure("tiny/m-GGUF:Q4_K_M", &online);
    assert_eq!(code, Some(0), "{said}");
    // The other quantization gets the same shape, so that nothing but its file tells the two apart.
    llama(files.path(), "m-Q5_K_M.gguf");
    let folder = bench.results.path().to_str().unwrap();
    let patch = |more: &[&str], environment: &[(&str, &str)]| {
        bench.kvprof(&[&["patch", folder, "--benchmarks", "profile"], more, &QUICK].concat(), environment)
    };
    let (code, said) = patch(&["--model", "tiny/m-GGUF:Q5_K_M"], &online);
    assert!(code != Some(0) && said.contains("weights m-Q4_K_M.gguf, here m-Q5_K_M.gguf"), "{said}");
    let (code, said) = patch(&["--model", "tiny/m-GGUF:m-Q4_K_M.gguf"], &online);
    assert_eq!(code, Some(0), "{said}");
    let branch = bench.home.path().join("hub/models--tiny--m-GGUF/refs/main");
    std::fs::write(branch, COMMIT.replace('0', "f")).unwrap();
    let offline = [("HF_HUB_OFFLINE", "1")];
    let (code, said) = bench.measure("tiny/m-GGUF:Q4_K_M", &offline);
    assert!(code == Some(2) && said.contains("has no GGUF models"), "{said}");
    let (code, said) = patch(&[], &offline);
    assert_eq!(code, Some(0), "{said}");
}
