//! What a reader should know before trusting a number: warnings of runs, for pages and for the terminal.

use serde_json::Value;

use super::identity::{self, Identity};
use super::label::quantization;
use super::number;
use crate::base::message::tell;
use crate::schema::concerns::{RECORDED_IF_ASKED_FOR, concerns};
use crate::schema::{Accuracy, Flags, Measurement, RunResult};

/// A run's warnings, and those of its measurements with their context.
pub fn of(result: &RunResult) -> Vec<String> {
    let mut all = result.warnings.clone();
    for m in &result.measurements {
        let place = format!("{} tokens{}", number::tokens(m.context_len), batch(m));
        all.extend(m.warnings.iter().map(|w| format!("{place}: {w}")));
        if m.is_skipped() {
            all.push(format!("{place} skipped: {}", m.skip_reason.as_deref().unwrap_or("no reason given")));
        }
    }
    all.extend(unscored(result).map(|(context, reason)| format!("needle at {context} tokens has no score: {reason}")));
    all.extend(beyond_the_model(result));
    all.extend(result.machines());
    all
}

/// How many sequences, where there are several.
fn batch(m: &Measurement) -> String {
    m.batch_size.filter(|b| *b > 1).map_or_else(String::new, |b| format!(" × {b}"))
}

/// Contexts without needles that were asked for, each with the reason.
fn unscored(result: &RunResult) -> impl Iterator<Item = (&String, &String)> {
    result.benchmarks.needle_in_haystack.iter().flat_map(|needle| &needle.skipped_contexts)
}

/// Scores of which the unquantized cache has none: no quantization can lower them, so that no change of them means that nothing was
/// lost.
fn beyond_the_model(result: &RunResult) -> impl Iterator<Item = String> {
    let b = &result.benchmarks;
    // The unquantized cache is its own reference.
    let reference = |own: usize, recorded: Option<usize>| recorded.or((!result.kv_quant.enabled).then_some(own));
    let questions = |score: &Accuracy| (reference(score.correct, score.reference_correct), score.questions);
    let needle = b.needle_in_haystack.iter();
    let needle = needle.map(|score| (reference(score.successes, score.reference_successes), score.total_trials));
    let questions = b.question_sets().map(|(name, score)| (name, questions(score)));
    let scores: Vec<_> = needle.map(|score| ("needle", score)).chain(questions).collect();
    scores.into_iter().filter_map(|(name, score)| match score {
        (Some(0), asked) if asked > 0 => Some(format!(
            "{name}: the model scores 0 of {asked} with an unquantized cache too, so that this says nothing about quantization"
        )),
        _ => None,
    })
}

/// Warnings of measurements and benchmarks, one line for each text with the places where it arose.
pub fn lines(results: &[&RunResult]) -> Vec<String> {
    let mut said: Vec<(String, Vec<String>)> = Vec::new();
    let mut say = |place: String, text: String| match said.iter_mut().find(|(known, _)| *known == text) {
        Some((_, places)) => places.push(place),
        None => said.push((text, vec![place])),
    };
    let rows = results.iter().flat_map(|r| r.measurements.iter().map(|m| (*r, Some(m))).chain([(*r, None)]));
    let varying = identity::varying(&rows.collect::<Vec<_>>());
    for result in results {
        let cache = name(&varying, result, None);
        for m in &result.measurements {
            let place = place(&varying, result, m);
            let skipped =
                m.is_skipped().then(|| format!("skipped: {}", m.skip_reason.as_deref().unwrap_or("no reason given")));
            for warning in m.warnings.iter().cloned().chain(skipped) {
                say(place.clone(), warning);
            }
        }
        for (context, reason) in unscored(result) {
            say(format!("{cache}, needle at {context}"), format!("no score: {reason}"));
        }
        for warning in beyond_the_model(result) {
            say(cache.clone(), warning);
        }
    }
    let said = said.into_iter().map(|(text, places)| format!("{}: {text}", places.join(", ")));
    let machines =
        results.iter().filter_map(|result| Some(format!("{}: {}", name(&varying, result, None), result.machines()?)));
    said.chain(results.iter().flat_map(|result| patched(&varying, result))).chain(machines).collect()
}

/// The cache of a result, or of one of its rows, with what tells it from those of the other results.
fn name(varying: &[Identity], result: &RunResult, m: Option<&Measurement>) -> String {
    identity::name(varying, (result, m), quantization(result))
}

/// Where a row stands: its cache, its context, and its batch where it has one.
fn place(varying: &[Identity], result: &RunResult, m: &Measurement) -> String {
    format!("{} at {}{}", name(varying, result, Some(m)), m.context_len, batch(m))
}

/// Blocks that a patch measured with other settings than the run's, which a run that goes on in the file leaves as they are.
fn patched(varying: &[Identity], result: &RunResult) -> Vec<String> {
    let cache = name(varying, result, None);
    let scores = result.benchmarks.each();
    let scores = scores.map(|block| (format!("{cache}, {}", block.name), block.name, block.settings));
    let rows = result.measurements.iter().map(|m| (place(varying, result, m), "profile", m.settings.as_ref()));
    let told = |(place, block, settings): (String, &str, Option<&Flags>)| {
        Some(format!("{place}: {}", difference(block, settings?, result)?))
    };
    let mut lines: Vec<String> = rows.chain(scores).filter_map(told).collect();
    // Both blocks of a perplexity say the same.
    lines.dedup();
    lines
}

/// In which of the settings that `block` depends on `settings` differ from the run's; `None` where they do not.
fn difference(block: &str, settings: &Flags, result: &RunResult) -> Option<String> {
    const UNASKED: &Value = &Value::Null;
    let runs = |flag: &str| {
        let unasked = RECORDED_IF_ASKED_FOR.contains(&flag).then_some(UNASKED);
        result.config.flags.get(flag).or(unasked)
    };
    let words = |value: &Value| if value.is_null() { "the default".to_string() } else { value.to_string() };
    let told = |(flag, value): (&String, &Value)| {
        let runs = runs(flag).filter(|runs| concerns(flag, &[block]) && *runs != value)?;
        Some(format!("--{flag} {} (the run's: {})", words(value), words(runs)))
    };
    let told: Vec<String> = settings.iter().filter_map(told).collect();
    (!told.is_empty()).then(|| format!("patched with {}", told.join(", ")))
}

/// Prints [`lines`] on standard error.
pub fn tell(results: &[&RunResult]) {
    for line in lines(results) {
        tell!("warning: {line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{KvQuant, bare_result};

    fn result(cache: &str, warnings: &[&str]) -> RunResult {
        let warnings = warnings.iter().map(|w| w.to_string()).collect();
        let m = Measurement { context_len: 4096, batch_size: Some(2), warnings, ..Default::default() };
        let kv_quant = KvQuant { name: Some(cache.into()), ..Default::default() };
        RunResult { measurements: vec![m], kv_quant, ..bare_result() }
    }

    #[test]
    fn a_warning_of_several_places_is_one_line() {
        let (none, int4) = (result("none", &["throttled"]), result("int4-hqq", &["throttled", "drifted"]));
        assert_eq!(
            lines(&[&none, &int4]),
            ["none at 4096 × 2, int4-hqq at 4096 × 2: throttled", "int4-hqq at 4096 × 2: drifted"]
        );
        assert!(lines(&[&result("none", &[])]).is_empty());
    }

    #[test]
    fn a_warning_says_of_which_backend_and_output_it_is_where_results_have_several() {
        let of = |backend: &str, output: usize| {
            let mut result = RunResult { attn_backend: backend.into(), ..result("int4-hqq", &["drifted"]) };
            result.measurements[0].decode_tokens = Some(output);
            result
        };
        let told = |results: [&RunResult; 2]| lines(&results).remove(0);
        let (eager, fused) = (of("eager", 32), of("fused", 32));
        assert_eq!(told([&eager, &fused]), "eager · int4-hqq at 4096 × 2, fused · int4-hqq at 4096 × 2: drifted");
        let longer = told([&fused, &of("fused", 64)]);
        assert_eq!(longer, "32 tokens out · int4-hqq at 4096 × 2, 64 tokens out · int4-hqq at 4096 × 2: drifted");
    }

    #[test]
    fn a_score_of_which_the_model_has_none_is_told_to_say_nothing() {
        let scored = |cache: &str, correct, reference| {
            let mut result = result(cache, &[]);
            result.kv_quant.enabled = cache != "none";
            let score = Accuracy { questions: 20, correct, reference_correct: reference, ..Default::default() };
            result.benchmarks.math = Some(score);
            result
        };
        let (none, int4) = (scored("none", 0, None), scored("int4-hqq", 0, Some(0)));
        let told = "math: the model scores 0 of 20 with an unquantized cache too, so that this says nothing about quantization";
        assert_eq!(lines(&[&none, &int4]), [format!("none, int4-hqq: {told}")]);
        assert_eq!(of(&int4), [told]);
        for other in [scored("none", 1, None), scored("int4-hqq", 0, Some(1)), scored("int4-hqq", 0, None)] {
            assert!(lines(&[&other]).is_empty() && of(&other).is_empty());
        }
    }

    #[test]
    fn warnings_of_a_file_say_at_which_batch() {
        let mut result = result("none", &["drifted"]);
        result.measurements.push(Measurement {
            batch_size: Some(1),
            skipped: Some(true),
            ..result.measurements[0].clone()
        });
        assert_eq!(of(&result), ["4k tokens × 2: drifted", "4k tokens: drifted", "4k tokens skipped: no reason given"]);
    }

    #[test]
    fn what_a_patch_measured_otherwise_is_told() {
        let mut patched = result("int4-hqq", &[]);
        let flags = |window: Value, lengths: Value| {
            Flags::from_iter([("ppl-window".into(), window), ("context-lengths".into(), lengths)])
        };
        patched.config.flags = flags(Value::Null, vec![256, 4096].into());
        patched.measurements[0].settings = Some(flags(Value::Null, vec![4096].into()));
        assert!(lines(&[&patched]).is_empty(), "which rows it measured is no difference");
        patched.benchmarks.kld =
            Some(crate::schema::Kld { settings: Some(flags(256.into(), vec![256].into())), ..Default::default() });
        assert_eq!(lines(&[&patched]), ["int4-hqq, kld: patched with --ppl-window 256 (the run's: the default)"]);
    }

    #[test]
    fn what_a_patch_asked_for_and_the_run_did_not_is_told_though_the_run_records_nothing_of_it() {
        let mut patched = result("int4-hqq", &[]);
        let asked = |flag: &str, value: Value| Some(Flags::from_iter([(flag.to_string(), value)]));
        patched.measurements[0].settings = asked("follow-up-tokens", 64.into());
        let told = "int4-hqq at 4096 × 2: patched with --follow-up-tokens 64 (the run's: the default)";
        assert_eq!(lines(&[&patched]), [told]);
        patched.measurements[0].settings = asked("trace", true.into());
        assert!(lines(&[&patched])[0].contains("patched with --trace true"));
        // Another setting that the run does not record may be of a later version, and have been what the run had.
        patched.measurements[0].settings = asked("step-mode", "graph".into());
        assert!(lines(&[&patched]).is_empty());
    }

    #[test]
    fn only_settings_of_the_block_itself_are_told() {
        let mut patched = result("int4-hqq", &[]);
        let flags = |window: u64, trials: u64, output: u64, unknown: u64| {
            let names = ["ppl-window", "needle-trials", "decode-tokens", "of-a-later-version"];
            let values = [window, trials, output, unknown].map(Value::from);
            Some(Flags::from_iter(names.map(String::from).into_iter().zip(values)))
        };
        patched.config.flags = flags(1, 1, 1, 1).unwrap();
        patched.measurements[0].settings = flags(2, 2, 2, 1);
        patched.benchmarks.kld = Some(crate::schema::Kld { settings: flags(1, 2, 2, 1), ..Default::default() });
        patched.benchmarks.needle_in_haystack =
            Some(crate::schema::Needle { settings: flags(2, 1, 1, 2), ..Default::default() });
        let told = [
            "int4-hqq at 4096 × 2: patched with --decode-tokens 2 (the run's: 1)",
            "int4-hqq, needle: patched with --of-a-later-version 2 (the run's: 1)",
        ];
        assert_eq!(lines(&[&patched]), told, "the divergence has no needles; what nobody here knows is told");
    }
}
