//! What must hold within a result file, beyond its types.

mod cost;
mod instruments;
mod ranges;
mod text;

use super::{Accuracy, Benchmarks, Common, DataSource, Needle, NeedleTrial, Paired, RunResult};

pub use cost::memory_adds_up;

/// Relative error that a number may have which follows from others: far above rounding, far below what anyone would report.
const DERIVED: f64 = 1e-3;

/// Whether `value` is not `expected`, as far as [`DERIVED`] goes.
fn differs(value: f64, expected: f64) -> bool {
    expected.is_finite() && (value - expected).abs() > DERIVED * expected.abs()
}

/// One finding a line, each naming the field; empty when all is well. Files of 2.0 are held to what 2.0 promises.
pub fn validate(result: &RunResult) -> Vec<String> {
    let mut findings = Vec::new();
    let ours = result.schema_version != "2.0";
    if ours && result.experiment_id.is_empty() {
        findings.push("experiment_id is empty".into());
    }
    if !is_time(&result.timestamp) {
        findings.push(format!("timestamp is {:?}, no time such as 2026-11-01T12:00:00", result.timestamp));
    }
    let mut seen = Vec::new();
    for m in &result.measurements {
        let key = (m.context_len, m.batch());
        let at = format!("measurements[context {} × {}]", key.0, key.1);
        if seen.contains(&key) {
            findings.push(format!("{at}: measured twice"));
        }
        seen.push(key);
        cost::measurement(m, ours, &at, &mut findings);
    }
    benchmarks(&result.benchmarks, result.kv_quant.enabled, ours, &mut findings);
    if !result.kv_quant.enabled {
        reads_of_codes(result, &mut findings);
    }
    ranges::check(result, &mut findings);
    for name in result.completed.iter().filter(|name| !result.holds(name)) {
        findings.push(format!("completed names {name}, which the file does not hold"));
    }
    for (name, block) in result.benchmarks.question_sets() {
        let asked = block.questions;
        if let Some(planned) = block.stopped_before().filter(|_| result.completed.iter().any(|done| done == name)) {
            findings.push(format!("completed names {name}, which asked {asked} of {planned} questions"));
        }
    }
    findings
}

/// An unquantized cache has no codes to read.
fn reads_of_codes(result: &RunResult, findings: &mut Vec<String>) {
    let b = &result.benchmarks;
    let rows = result.measurements.iter().map(|m| (m.block(), m.quantized_read_fraction));
    let sets = b.question_sets().map(|(name, set)| (name.into(), set.quantized_read_fraction));
    let scores = [
        ("perplexity", b.perplexity.as_ref().and_then(|p| p.quantized_read_fraction)),
        ("kld", b.kld.as_ref().and_then(|k| k.quantized_read_fraction)),
        ("needle_in_haystack", b.needle_in_haystack.as_ref().and_then(|n| n.quantized_read_fraction)),
    ];
    let scores = scores.map(|(name, read)| (name.to_string(), read));
    for (name, read) in rows.chain(sets).chain(scores) {
        if let Some(read) = read.filter(|read| *read > 0.0) {
            findings
                .push(format!("{name}: a share of {read} of key reads is from codes, which the cache does not have"));
        }
    }
}

/// Whether `text` is a time as ISO 8601 has it, with or without fractions of a second and a zone.
fn is_time(text: &str) -> bool {
    chrono::NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f").is_ok()
        || chrono::DateTime::parse_from_rfc3339(text).is_ok()
}

fn benchmarks(b: &Benchmarks, quantized: bool, ours: bool, findings: &mut Vec<String>) {
    text::scores(b, quantized, ours, findings);
    if let (Some(needle), Some(trials)) = (&b.needle_in_haystack, &b.needle_in_haystack_trials) {
        needle_counts(needle, trials, findings);
    }
    sources(b, findings);
    if let Some(needle) = &b.needle_in_haystack {
        let counts = (needle.total_trials, needle.successes, needle.reference_successes);
        pairs("needle_in_haystack", &needle.paired, counts, needle.success_rate, findings);
    }
    for (name, block) in b.question_sets() {
        question_counts(name, block, quantized, findings);
    }
}

/// What was read: its hash is one, and a needle that was hidden in a text says in which.
fn sources(b: &Benchmarks, findings: &mut Vec<String>) {
    for Common { field, data, .. } in b.each() {
        let wrong = |source: &&DataSource| {
            source.sha256.len() != 64
                || !source.sha256.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        };
        let wrong = data.filter(wrong).map(|source| &source.sha256);
        findings.extend(wrong.map(|found| format!("benchmarks.{field}: data.sha256 is {found:?}, not a SHA-256")));
    }
    if let Some(Needle { haystack: Some(haystack), data, .. }) = &b.needle_in_haystack
        && (haystack == "filler") != data.is_none()
    {
        let has = if data.is_some() { "has a source of text" } else { "does not say which text that was (data)" };
        findings.push(format!("benchmarks.needle_in_haystack: hidden in {haystack:?}, it {has}"));
    }
}

/// A rate, and the 2×2 table beside it: of `items`, those that succeeded here, and those that did through the unquantized cache.
fn pairs(
    name: &str,
    table: &Paired,
    (items, successes, reference): (usize, usize, Option<usize>),
    rate: f64,
    findings: &mut Vec<String>,
) {
    let mut find = |text: String| findings.push(format!("{name}: {text}"));
    let expected = if items == 0 { 0.0 } else { successes as f64 / items as f64 };
    // 2.0 rounds its rates.
    if successes > items || (rate - expected).abs() > 5e-4 {
        find(format!("{successes} of {items} are not a rate of {rate}"));
    }
    if let Some((low, high)) = table.interval.filter(|(low, high)| rate < low - 5e-4 || rate > high + 5e-4) {
        find(format!("a rate of {rate} is not within its interval, {low} to {high}"));
    }
    if let (Some(both), Some(neither), Some(lost), Some(gained)) = (table.both, table.neither, table.lost, table.gained)
    {
        let sums = (
            [both, neither, lost, gained].iter().fold(0usize, |sum, n| sum.saturating_add(*n)),
            both.saturating_add(gained),
            both.saturating_add(lost),
        );
        if sums != (items, successes, reference.unwrap_or(sums.2)) {
            find(format!("both {both}, lost {lost}, gained {gained}, neither {neither} do not add up to its counts"));
        }
    }
    if let (Some(delta), Some(reference)) = (table.delta, reference)
        && (delta - (successes as f64 - reference as f64) / items.max(1) as f64).abs() > 1e-9
    {
        find(format!("a change of {delta} is not that from {reference} to {successes} of {items}"));
    }
}

fn question_counts(name: &str, block: &Accuracy, quantized: bool, findings: &mut Vec<String>) {
    let counts = (block.questions, block.correct, block.reference_correct);
    pairs(name, &block.paired, counts, block.accuracy, findings);
    let correct = block.items.iter().filter(|item| item.outcome.correct).count();
    if !block.items.is_empty() && (block.items.len(), correct) != (block.questions, block.correct) {
        findings.push(format!(
            "{name} counts {}/{}, its items {correct}/{}",
            block.correct,
            block.questions,
            block.items.len()
        ));
    }
    if quantized && block.quantized_read_fraction == Some(0.0) {
        findings.push(format!("{name} never read a code"));
    }
    let sum = |counts: &mut dyn Iterator<Item = usize>| counts.fold(0usize, |sum, n| sum.saturating_add(n));
    let answered = sum(&mut block.answered_on.iter().map(|part| part.questions));
    if !block.answered_on.is_empty() && answered != block.questions {
        findings.push(format!("{name}.answered_on tells of {answered} questions, not {}", block.questions));
    }
    // A question may have no subject.
    let of_subjects = sum(&mut block.by_subject.values().map(|subject| subject.questions));
    if of_subjects > block.questions {
        findings.push(format!("{name}.by_subject has {of_subjects} questions, more than {}", block.questions));
    }
}

/// Each quality block's name and the version of its meaning, where the file records one.
pub fn versions(result: &RunResult) -> Vec<(&'static str, u32)> {
    let mut versions: Vec<_> =
        result.benchmarks.each().filter_map(|block| Some((block.name, block.version?))).collect();
    versions.dedup();
    versions
}

fn needle_counts(needle: &Needle, trials: &[NeedleTrial], findings: &mut Vec<String>) {
    let successes = trials.iter().filter(|t| t.success).count();
    if (needle.total_trials, needle.successes) != (trials.len(), successes) {
        findings.push(format!(
            "needle_in_haystack counts {}/{}, its trials {successes}/{}",
            needle.successes,
            needle.total_trials,
            trials.len()
        ));
    }
    for (context, score) in &needle.per_context {
        let rate = score.successes as f64 / score.trials.max(1) as f64;
        // 2.0 rounds its rates.
        if (score.success_rate - rate).abs() > 5e-4 {
            let (successes, trials) = (score.successes, score.trials);
            findings.push(format!(
                "needle_in_haystack.per_context.{context}: {successes} of {trials} are not a rate of {}",
                score.success_rate
            ));
        }
    }
    let summed = needle.per_context.values().fold((0usize, 0usize), |(successes, trials), c| {
        (successes.saturating_add(c.successes), trials.saturating_add(c.trials))
    });
    if summed != (needle.successes, needle.total_trials) {
        findings.push(format!("needle_in_haystack.per_context sums to {}/{}", summed.0, summed.1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{AnsweredOn, NeedleScore, SubjectScore, bare_result};

    #[test]
    fn an_unquantized_cache_reads_no_codes() {
        let mut result = bare_result();
        (result.experiment_id, result.timestamp) = ("x".into(), "2026-11-01T12:00:00".into());
        result.benchmarks.mmlu = Some(Accuracy { quantized_read_fraction: Some(0.0), ..Default::default() });
        assert_eq!(validate(&result), Vec::<String>::new());
        result.benchmarks.mmlu = Some(Accuracy { quantized_read_fraction: Some(0.5), ..Default::default() });
        let said = "mmlu: a share of 0.5 of key reads is from codes, which the cache does not have";
        assert_eq!(validate(&result), [said]);
        result.kv_quant.enabled = true;
        assert_eq!(validate(&result), Vec::<String>::new());
    }

    #[test]
    fn the_rate_of_each_context_is_that_of_its_trials() {
        let found = |success_rate| {
            let score = NeedleScore { trials: 0, successes: 0, success_rate, ..Default::default() };
            let needle = Needle { per_context: [("4096".into(), score)].into(), ..Default::default() };
            let mut findings = Vec::new();
            needle_counts(&needle, &[], &mut findings);
            findings
        };
        assert_eq!(found(0.0), Vec::<String>::new());
        assert_eq!(found(1.0), ["needle_in_haystack.per_context.4096: 0 of 0 are not a rate of 1"]);
    }

    #[test]
    fn paired_counts_must_add_up() {
        let sound = Accuracy {
            questions: 10,
            correct: 6,
            accuracy: 0.6,
            reference_correct: Some(8),
            paired: Paired {
                delta: Some(-0.2),
                both: Some(5),
                neither: Some(1),
                lost: Some(3),
                gained: Some(1),
                ..Default::default()
            },
            ..Default::default()
        };
        let findings = |block: &Accuracy| {
            let mut findings = Vec::new();
            question_counts("mmlu", block, true, &mut findings);
            findings
        };
        assert_eq!(findings(&sound), Vec::<String>::new());
        let paired = |change: fn(&mut Paired)| {
            let mut block = sound.clone();
            change(&mut block.paired);
            block
        };
        for broken in [
            paired(|p| p.lost = Some(2)),
            paired(|p| p.delta = Some(0.2)),
            Accuracy { accuracy: 0.7, ..sound.clone() },
            Accuracy { quantized_read_fraction: Some(0.0), ..sound.clone() },
            Accuracy { items: vec![Default::default()], ..sound.clone() },
            paired(|p| p.interval = Some((0.7, 0.9))),
            Accuracy { answered_on: vec![AnsweredOn { questions: 9, ..Default::default() }], ..sound.clone() },
            Accuracy {
                by_subject: [("a".into(), SubjectScore { questions: 11, ..Default::default() })].into(),
                ..sound.clone()
            },
        ] {
            assert_eq!(findings(&broken).len(), 1, "{broken:?}: {:?}", findings(&broken));
        }
    }

    #[test]
    fn a_needle_in_a_text_says_which_text() {
        let source = |sha256: &str| Some(DataSource { sha256: sha256.into(), ..Default::default() });
        let findings = |haystack: &str, data: Option<DataSource>| {
            let needle = Needle { haystack: Some(haystack.into()), data, ..Default::default() };
            let mut findings = Vec::new();
            sources(&Benchmarks { needle_in_haystack: Some(needle), ..Default::default() }, &mut findings);
            findings
        };
        let hash = "0f".repeat(32);
        assert_eq!(findings("filler", None), Vec::<String>::new());
        assert_eq!(findings("book.txt", source(&hash)), Vec::<String>::new());
        for broken in
            [findings("book.txt", None), findings("filler", source(&hash)), findings("book.txt", source("0F"))]
        {
            assert_eq!(broken.len(), 1, "{broken:?}");
        }
    }
}
