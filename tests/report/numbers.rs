//! What is read off rows and scores, and which of them are held against each other.

use std::path::PathBuf;

use kvprof::report::advice::{self, Bound};
use kvprof::report::group::Group;
use kvprof::report::number;
use kvprof::report::quality::{Quality, Score, needle_pairs};
use kvprof::report::study::Study;
use kvprof::schema::{Measurement, NeedleTrial, Paired, RunResult};

use crate::results::{self, Cache};

/// A file with a row at each of `places`, contexts and batches.
fn rows(cache: &Cache, places: &[(usize, usize)]) -> RunResult {
    let mut result = results::run("m", cache);
    let template = result.measurements.remove(0);
    let row = |&(context_len, batch)| Measurement { context_len, batch_size: Some(batch), ..template.clone() };
    result.measurements = places.iter().map(row).collect();
    result
}

fn study(results: Vec<RunResult>) -> Study {
    Study::of(
        results.into_iter().enumerate().map(|(at, result)| (PathBuf::from(format!("{at}.json")), result)).collect(),
    )
}

fn none() -> Cache {
    Cache::new("none", 16, 0.0)
}

fn int4() -> Cache {
    Cache::new("int4-hqq", 4, 0.004)
}

#[test]
fn rows_of_other_batches_are_other_rows_and_count_the_tokens_of_all_sequences() {
    let mut result = rows(&int4(), &[(1024, 1), (1024, 8)]);
    for row in &mut result.measurements {
        (row.decode_ms, row.decode_tokens, row.decode_tokens_per_sec) = (Some(500.0), Some(100), Some(1.0));
        // As 2.0 has it: millijoules, and no windows.
        (row.energy, row.energy_mj_per_token) = (None, Some(250.0));
    }
    let study = study(vec![result]);
    let told: Vec<_> = study.rows().map(|row| (row.batch(), row.decode_rate(), row.energy_j())).collect();
    assert_eq!(told, [(Some(1), Some(200.0), Some(0.25)), (Some(8), Some(1600.0), Some(0.25))]);
    assert_eq!(study.superseded, 0);
}

#[test]
fn caches_are_held_against_each_other_where_most_of_them_were_measured() {
    let ground = |[a, b]: [&[(usize, usize)]; 2], spilled: Option<(usize, usize)>| {
        let mut results = vec![rows(&none(), a), rows(&int4(), b)];
        for row in results.iter_mut().flat_map(|result| &mut result.measurements) {
            row.vram_overflow = Some(row.batch_size.map(|batch| (row.context_len, batch)) == spilled);
        }
        Group::of(&study(results)).subjects[0].common_ground()
    };
    // Both were measured at 1024; of as many, the longest context counts, then the smallest batch.
    assert_eq!(ground([&[(1024, 1), (4096, 1)], &[(1024, 1)]], None), Some((1024, 1)));
    let both: &[(usize, usize)] = &[(4096, 8), (1024, 1), (4096, 2)];
    assert_eq!(ground([both; 2], None), Some((4096, 2)));
    assert_eq!(ground([both; 2], Some((4096, 2))), Some((4096, 8)), "what spilled tells nothing");
}

#[test]
fn of_several_windows_the_one_nearest_to_the_usual_is_shown() {
    let int4 = |name, residual| results::run("m", &Cache { residual, ..Cache::new(name, 4, 0.004) });
    let main = |results: Vec<RunResult>| {
        let study = study(results);
        let group = Group::of(&study);
        group.subjects[0].main_caches().iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let (short, less, more) =
        (int4("int4-hqq,residual=32", 32), int4("int4-hqq,residual=64", 64), int4("int4-hqq,residual=512", 512));
    let usual = int4("int4-hqq", 128);
    assert_eq!(main(vec![short.clone(), usual.clone(), less.clone()]), main(vec![usual]));
    assert_eq!(main(vec![short, less.clone(), more]), main(vec![less]));
}

#[test]
fn a_cache_that_is_no_smaller_is_not_advised_and_savings_are_those_measured() {
    let advice = |bytes: u64| {
        let mut results = vec![rows(&none(), &[(1024, 1)]), rows(&int4(), &[(1024, 1)])];
        for (result, bytes) in results.iter_mut().zip([64 << 20, bytes]) {
            let ledger = result.measurements[0].kv_bytes.as_mut().unwrap();
            // What the spec says of an unquantized cache is not what was measured of one.
            (ledger.total_bytes, ledger.unquantized_bytes) = (bytes, 80 << 20);
        }
        let study = study(results);
        let advice = &advice::all(&Group::of(&study), &Bound::default())[0];
        (advice.choice.is_some(), advice.saves.clone())
    };
    assert_eq!(advice(64 << 20), (false, None), "as large as the unquantized one");
    let (chosen, saves) = advice(16 << 20);
    let instead = format!("{} instead of {} of cache", number::bytes(16777216.0), number::bytes(67108864.0));
    assert!(chosen && saves.as_ref().is_some_and(|saves| saves.starts_with(&instead)), "{saves:?}");
}

#[test]
fn the_least_share_of_codes_that_a_score_read_is_told() {
    let mut result = results::run("m", &int4());
    result.benchmarks.needle_in_haystack.as_mut().unwrap().quantized_read_fraction = Some(0.25);
    result.benchmarks.mmlu.as_mut().unwrap().quantized_read_fraction = Some(0.5);
    assert_eq!(Quality::of(&result, None).quantized_read_fraction, Some(0.25));
}

#[test]
fn accuracies_of_other_questions_have_no_difference() {
    let (mut reference, mut result) = (results::run("m", &none()), results::run("m", &int4()));
    let tested = result.benchmarks.mmlu.as_mut().unwrap();
    (tested.correct, tested.accuracy, tested.paired) = (50, 0.25, Paired::default());
    let delta = |reference: &RunResult| Quality::of(&result, Some(reference)).mmlu.unwrap().delta;
    // 50 and 60 of 200.
    assert!((delta(&reference).unwrap() + 0.05).abs() < 1e-12);
    reference.benchmarks.mmlu.as_mut().unwrap().seed = Some(7);
    assert_eq!(delta(&reference), None);
}

#[test]
fn repeated_trials_of_one_place_are_paired_each_with_its_own() {
    let trials = |successes: [bool; 2]| -> Vec<NeedleTrial> {
        let trial = |(at, success)| NeedleTrial {
            context_length: 1024,
            depth_percent: 0.5,
            trial: Some(at),
            success,
            ..NeedleTrial::default()
        };
        successes.into_iter().enumerate().map(trial).collect()
    };
    let pairs = needle_pairs(&trials([false, true]), &trials([true, false]));
    assert_eq!(pairs, [(true, false), (false, true)]);
}

#[test]
fn a_score_that_fell_to_nothing_is_not_one_of_nothing() {
    let of_nothing = |rate, delta| Score { trials: 10, rate, delta, ..Score::default() }.of_nothing();
    assert!(!of_nothing(0.0, Some(-0.5)), "the unquantized cache had half of them");
    assert!(of_nothing(0.0, Some(0.0)) && of_nothing(0.0, None) && of_nothing(0.5, Some(0.5)));
    assert!(!of_nothing(0.5, Some(0.1)));
}
