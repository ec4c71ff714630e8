//! The plan of a sweep, as `--dry-run` tells it before anything is measured.

use std::path::Path;

use crate::program::{json_files, kvprof};
use crate::sweep_file;

#[test]
fn a_plan_says_why_nothing_is_known_of_a_model_and_which_contexts_are_too_long() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sweep.toml");
    std::fs::write(
        &file,
        "[[matrix]]\nmodels = ['builtin', 'nobody/nothing']\nkv-quants = ['none', 'int4-hqq']\ncontext-lengths = [128, 5000]\n",
    )
    .unwrap();
    let mut command = kvprof();
    command.arg("sweep").arg(&file).arg("--dry-run").env("HF_HUB_OFFLINE", "1").env("HF_HOME", folder.path());
    let text = String::from_utf8(command.output().unwrap().stdout).unwrap();
    let told: Vec<&str> = text.lines().filter(|line| line.contains("nothing is known of nobody/nothing")).collect();
    assert!(told.len() == 1 && told[0].contains("HF_HUB_OFFLINE"), "{text}");
    assert!(text.contains("at 5000 tokens × 1 is skipped: --context-lengths 5000 is longer"), "{text}");
    assert!(text.contains("1 of 2"), "{text}");
}

#[test]
fn a_dry_run_refuses_the_run_that_the_sweep_would_and_plans_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sweep.toml");
    // The built-in model's heads have 64 channels.
    let matrix =
        "[[matrix]]\nkv-quants = ['int4-hqq', 'int4-hqq-token,group=128']\ncontext-lengths = [256]\nbenchmarks = []\n";
    let settings = "[settings]\nwarmup-runs = 0\nmeasure-runs = 1\ndecode-tokens = 4\nenergy-seconds = 0.01\n";
    std::fs::write(&file, format!("{settings}{matrix}")).unwrap();
    let speed = ["--dry-run", "--bandwidth", "10", "--tflops", "1", "--memory", "8GiB"];
    let dry = kvprof().arg("sweep").arg(&file).args(speed).output().unwrap();
    let text = String::from_utf8(dry.stdout).unwrap();
    assert!(text.contains("#2 is refused: ") && text.contains("group") && text.contains(" yes "), "{text}");
    let real = kvprof().arg("sweep").arg(&file).arg("--output-dir").arg(folder.path().join("raw")).output().unwrap();
    assert_eq!((dry.status.code(), real.status.code()), (Some(1), Some(1)));
    let said = String::from_utf8(real.stderr).unwrap();
    let (_, reason) = text.lines().find_map(|line| line.split_once("#2 is refused: ")).unwrap();
    assert!(said.contains(reason), "{said}");
    assert_eq!(json_files(&folder.path().join("raw")).len(), 1);
}

#[test]
fn a_dry_run_refuses_a_model_that_has_no_weights_to_measure() {
    let folder = tempfile::tempdir().unwrap();
    let (file, config) = (folder.path().join("sweep.toml"), folder.path().join("config.json"));
    std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/model/builtin/config.json"), &config).unwrap();
    let config = config.display();
    let planned = |matrix: &str| {
        let dummy = format!("[model.'{config}']\nweights = 'dummy'\n");
        std::fs::write(&file, format!("[[matrix]]\nmodels = ['{config}']\nkv-quants = ['none']\n{matrix}\n")).unwrap();
        let plain = dry_run(&file);
        std::fs::write(&file, format!("{}{dummy}", std::fs::read_to_string(&file).unwrap())).unwrap();
        (plain, dry_run(&file))
    };
    let ((code, plain), (dummy_code, dummy)) = planned("benchmarks = []");
    assert!(code == Some(1) && plain.contains("#1 is refused") && plain.contains("without weights"), "{plain}");
    assert!(dummy_code == Some(0) && !dummy.contains("refused"), "{dummy}");
    let (_, (code, quality)) = planned("benchmarks = ['ppl']");
    assert!(code == Some(1) && quality.contains("#1 is refused: ppl measures quality"), "{quality}");
}

/// Exit code and plan of a dry run.
fn dry_run(file: &Path) -> (Option<i32>, String) {
    let speed = ["--dry-run", "--bandwidth", "10", "--tflops", "1", "--memory", "8GiB"];
    let output = kvprof().arg("sweep").arg(file).args(speed).output().unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn every_sweep_in_the_repository_can_be_planned() {
    let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
    for (name, runs) in
        [("smoke", "3 runs (3 named"), ("thesis", "20 runs (20 named"), ("reasoning", "32 runs (34 named")]
    {
        let output = kvprof()
            .arg("sweep")
            .arg(configs.join(format!("{name}.toml")))
            .arg("--dry-run")
            .env("HF_HUB_OFFLINE", "1")
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(
            output.status.success() && text.contains(runs),
            "{name}: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

#[test]
fn a_dry_run_estimates_what_the_output_folder_does_not_hold() {
    let folder = tempfile::tempdir().unwrap();
    let file = sweep_file(folder.path());
    let raw = folder.path().join("raw");
    let sweep = |more: &[&str]| {
        let mut command = kvprof();
        let output = command.arg("sweep").arg(&file).args(more).arg("--output-dir").arg(&raw).output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    let dry = |more: &[&str]| sweep(&[&["--dry-run", "--bandwidth", "10", "--tflops", "1"], more].concat());
    assert!(!dry(&[]).contains("complete") && !raw.exists());
    sweep(&["--shard", "1/2", "--quiet"]);
    let text = dry(&[]);
    let rows = |what: &str| text.lines().filter(|line| line.starts_with('│') && line.contains(what)).count();
    assert!(text.contains("2 of 4 runs are complete in") && rows("complete") == 2 && rows("yes") == 2, "{text}");
    assert!(!dry(&["--force"]).contains("complete"));
}

#[test]
fn a_dry_run_says_what_each_run_needs_and_what_will_be_skipped() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sweep.toml");
    std::fs::write(
        &file,
        "[[matrix]]\nmodels = ['builtin']\nkv-quants = ['none', 'int4-hqq']\ncontext-lengths = [1024]\n\
         batch-sizes = [1, 4096]\n",
    )
    .unwrap();
    let dry = |more: &[&str]| {
        let output = kvprof().arg("sweep").arg(&file).arg("--dry-run").args(more).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    // 4 layers × 2 heads × 64 channels × 2 × 2 bytes × (1024 + 128) tokens × 4096 sequences are 9 GiB.
    let other = dry(&["--memory", "8GiB", "--bandwidth", "1000", "--tflops", "100"]);
    assert!(other.contains("9.00") && other.contains("1 of 2"), "{other}");
    assert!(
        other.contains("#1 at 1024 tokens × 4096 is skipped: not tried for lack of memory: it needs 9.0 GiB"),
        "{other}"
    );
    assert!(other.contains("an estimate") && other.contains("1000 GB/s and 100.00 TFLOP/s as given"), "{other}");
    assert!(!dry(&["--memory", "80GiB"]).contains("is skipped"));
    assert!(dry(&[]).contains("as measured now"));
}
