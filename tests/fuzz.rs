//! Damaged and hostile input: whatever a file holds, its reader answers with a value or an error and never panics.
//!
//! Inputs are good files, damaged at random from a fixed seed: bytes changed, cut out, repeated or spliced in, files cut short,
//! and, where the file is JSON or TOML, values at random places replaced by values of other kinds.

#![allow(clippy::unwrap_used, reason = "a test that panics fails, as it should")]

#[path = "fuzz/mutate.rs"]
mod mutate;
#[path = "support/results.rs"]
#[allow(dead_code, reason = "shared with the report's tests, which use all of it")]
mod results;
#[path = "fuzz/weights.rs"]
mod weights;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use kvprof::model::families::read_config;
use kvprof::report::draw::Drawn;
use kvprof::report::export::TableFormat;
use kvprof::report::group::Group;
use kvprof::report::study::Study;
use kvprof::report::{advice, aggregate, figures, tables};
use kvprof::schema::{read, validate};
use kvprof::session::estimate::Estimator;
use kvprof::session::sweep::Sweep;
use mutate::Mutator;

/// Damaged inputs for the result reader and for the sweep reader; together more than 100,000.
const RESULTS: usize = 60_000;
const SWEEPS: usize = 45_000;
const MODELS: usize = 20_000;
/// Reports made of damaged results: each draws every figure.
const REPORTS: usize = 3_000;

/// What became of the inputs.
#[derive(Default)]
struct Tally {
    accepted: usize,
    refused: usize,
}

/// Gives `count` damaged versions of `seeds` to `reader`, which says whether it accepted one. A panic fails the test with the
/// input that caused it.
fn feed(seeds: &[Vec<u8>], count: usize, mutator: &mut Mutator, reader: &dyn Fn(&[u8]) -> bool) -> Tally {
    let mut tally = Tally::default();
    for at in 0..count {
        let input = mutator.damage(&seeds[at % seeds.len()]);
        match catch_unwind(AssertUnwindSafe(|| reader(&input))) {
            Ok(true) => tally.accepted += 1,
            Ok(false) => tally.refused += 1,
            Err(_) => panic!("input {at} made the reader panic:\n{}", String::from_utf8_lossy(&input)),
        }
    }
    tally
}

/// A result with everything that a file can hold, short enough to be damaged tens of thousands of times.
fn short_result(cache: &results::Cache) -> Vec<u8> {
    let mut result = results::run("org/m", cache);
    result.measurements.truncate(1);
    if let Some(trials) = &mut result.benchmarks.needle_in_haystack_trials {
        trials.truncate(1);
    }
    if let Some(kld) = &mut result.benchmarks.kld {
        kld.by_position.truncate(1);
    }
    serde_json::to_vec(&result).unwrap()
}

#[test]
fn no_damaged_result_makes_its_reader_panic() {
    let mut seeds = vec![
        short_result(&results::Cache::new("none", 16, 0.0)),
        short_result(&results::Cache::new("int4-hqq", 4, 0.01)),
    ];
    seeds.push(String::from_utf8(seeds[1].clone()).unwrap().replace("\"3.0\"", "\"2.0\"").into_bytes());
    let reader = |input: &[u8]| match read::parse(Path::new("a.json"), input) {
        // What is accepted is also checked, and written again, as `validate` and `patch` do.
        Ok(result) => {
            let _ = validate::validate(&result);
            serde_json::to_vec(&result).is_ok()
        }
        Err(error) => {
            assert!(error.to_string().starts_with("a.json: "), "{error}");
            false
        }
    };
    let tally = feed(&seeds, RESULTS, &mut Mutator::json(7), &reader);
    // Damage that only ever yields one answer would test one path of the reader.
    assert!(tally.accepted > RESULTS / 20 && tally.refused > RESULTS / 20, "{} accepted", tally.accepted);
}

/// What the reader accepts may still hold any number: tables, advice and figures must bear it.
#[test]
fn no_accepted_result_makes_the_report_panic() {
    let good = short_result(&results::Cache::new("none", 16, 0.0));
    let reference = read::parse(Path::new("a.json"), &good).unwrap();
    let seeds = vec![short_result(&results::Cache::new("int4-hqq", 4, 0.01)), good];
    let reader = |input: &[u8]| {
        let Ok(result) = read::parse(Path::new("b.json"), input) else { return false };
        let study = Study::of(vec![("a.json".into(), reference.clone()), ("b.json".into(), result)]);
        let group = Group::of(&study);
        for table in tables::all(&study, &group).iter().chain([&aggregate::table(&study)]) {
            let _ = TableFormat::Latex.render(table).and(TableFormat::Json.render(table));
        }
        let _ = advice::all(&group, &advice::Bound::default());
        for chart in figures::all(&group, &advice::Bound::default()) {
            for panel in Drawn::new(&chart).panels {
                assert!(panel.width.is_finite() && panel.height.is_finite(), "a picture has a size");
            }
        }
        true
    };
    let tally = feed(&seeds, REPORTS, &mut Mutator::json(17), &reader);
    assert!(tally.accepted > REPORTS / 20, "{} accepted", tally.accepted);
}

#[test]
fn no_damaged_sweep_file_makes_its_reader_panic() {
    let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
    let mut seeds: Vec<Vec<u8>> = ["smoke.toml", "thesis.toml", "reasoning.toml"]
        .iter()
        .map(|name| std::fs::read(configs.join(name)).unwrap())
        .collect();
    seeds.push(EVERY_KEY.as_bytes().to_vec());
    let reader = |input: &[u8]| {
        let Ok(text) = std::str::from_utf8(input) else { return false };
        let Ok(plan) = Sweep::parse(Path::new("a.toml"), text).and_then(|sweep| sweep.plan()) else { return false };
        // The estimate of a plan must bear any number that a file can name. Hub ids would ask the hub.
        let mut estimator = Estimator::default();
        for run in plan.runs.iter().filter(|run| run.model.model == "builtin").take(2) {
            let _ = estimator.estimate(run);
        }
        true
    };
    let tally = feed(&seeds, SWEEPS, &mut Mutator::text(11), &reader);
    assert!(tally.accepted > SWEEPS / 20 && tally.refused > SWEEPS / 20, "{} accepted", tally.accepted);
}

/// A sweep file with every kind of key.
const EVERY_KEY: &str = r#"
[settings]
context-lengths = [512]
batch-sizes = [1, 2]
decode-tokens = 64
prefill-chunk = 2048
ppl-window = 1024
needle-depths = [0.1, 0.5]
needle-kind = "number"
seed = 42
[[matrix]]
models = ["builtin"]
attn-backends = ["fused", "eager"]
kv-quants = ["none", "int4-hqq,group=32,residual=64"]
residual-lengths = [64, 128]
output-tokens = [64, 128]
benchmarks = ["ppl"]
profile = true
exclude = [{ kv-quants = ["none"], output-tokens = [128] }]
[model.builtin]
weights = "dummy"
dtype = "f32"
device = "cpu"
sliding-window = "on"
context-lengths = [1024]
"#;

#[test]
fn no_damaged_model_configuration_makes_its_reader_panic() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models");
    let mut seeds = Vec::new();
    for folder in std::fs::read_dir(fixtures).unwrap() {
        seeds.push(std::fs::read(folder.unwrap().path().join("config.json")).unwrap());
    }
    assert!(seeds.len() >= 4, "the fixtures cover the families");
    let reader = |input: &[u8]| {
        let Ok(text) = std::str::from_utf8(input) else { return false };
        match read_config(Path::new("config.json"), text) {
            Ok((config, _)) => {
                let _ = config.parameters();
                true
            }
            Err(_) => false,
        }
    };
    let tally = feed(&seeds, MODELS, &mut Mutator::json(13), &reader);
    assert!(tally.accepted > MODELS / 20 && tally.refused > MODELS / 20, "{} accepted", tally.accepted);
}
