//! The table at the end of a run.

use super::identity::{self, Row};
use super::label::quantization;
use super::number::{self, Digits};
use super::scoring::{self, Scoring};
use super::terminal::{TerminalTable, absent};
use crate::base::stats::{Summary, change_of_log};
use crate::schema::{Measurement, RunResult};

/// One row for each result × context length × batch size; perplexity is told once, on a result's first row, needles on the first row of
/// their context. Behind ± is the standard deviation of the runs, where there are several. `None` when there is neither a cost nor one of these scores.
pub fn table(results: &[&RunResult]) -> Option<TerminalTable> {
    let rows = |result: &RunResult| result.measurements.len().max(1);
    let all: Vec<Row<'_>> =
        results.iter().flat_map(|r| (0..rows(r)).map(move |row| (*r, r.measurements.get(row)))).collect();
    let varying = identity::varying(&all);
    let names = varying.iter().map(|identity| identity.head);
    let cost =
        ["KV cache", "context", "prefill ms", "follow-up ms", "decode ms/step", "tokens/s", "cache MiB", "saved"];
    let scored: Vec<Option<Scoring>> = results.iter().map(|result| scoring::of_run::ppl(result)).collect();
    let over = scoring::telling(&scored);
    let quality = over.iter().map(|_| "PPL over").chain(["PPL", "ΔPPL", "needle"]);
    let places = varying.len() + 2;
    let mut table = TerminalTable::new(names.chain(cost).chain(quality), places).right_from(places - 1);
    for (at, result) in results.iter().enumerate() {
        for row in 0..rows(result) {
            let m = result.measurements.get(row);
            let before = row.checked_sub(1).and_then(|row| result.measurements.get(row));
            let identity = varying.iter().map(|identity| {
                let told = (identity.of)((result, m));
                if row > 0 && told == (identity.of)((result, before)) { String::new() } else { told }
            });
            let over = over.as_ref().map(|words| words[at].as_str());
            let needle = match (m, before) {
                (Some(m), Some(before)) if m.context_len == before.context_len => String::new(),
                _ => needle(result, m),
            };
            table.add_row(identity.chain(cells(result, m, row == 0, over)).chain([needle]));
        }
    }
    table.has_values().then_some(table)
}

/// A row but for its needles; `over` stands before the perplexity, where there is such a column.
fn cells(result: &RunResult, m: Option<&Measurement>, first: bool, over: Option<&str>) -> Vec<String> {
    let number = |value: Option<f64>, digits: usize| value.map_or_else(absent, |v| format!("{v:.digits$}"));
    let name = quantization(result);
    let context = m.map_or_else(absent, |m| match m.batch_size {
        Some(batch) if batch > 1 => format!("{} × {batch}", m.context_len),
        _ => m.context_len.to_string(),
    });
    let mut cells = vec![if first { name } else { String::new() }, context];
    match m {
        Some(m) if m.is_skipped() => {
            // Why is among the warnings, in full.
            cells.push("skipped".into());
            cells.extend((0..5).map(|_| absent()));
        }
        _ => {
            let saved = m.and_then(|m| m.kv_bytes).map(|b| b.unquantized_bytes as f64 / b.total_bytes as f64);
            let spread = |sd: Option<f64>| sd.map_or_else(String::new, |sd| format!(" ± {sd:.1}"));
            let prefill_sd = m.and_then(|m| m.prefill_runs_ms.as_ref()).and_then(Summary::spread);
            cells.push(number(m.and_then(|m| m.prefill_ms), 1) + &spread(prefill_sd));
            let follow_up = m.and_then(|m| m.follow_up.as_ref());
            let follow_up_sd = follow_up.and_then(|follow_up| follow_up.runs_ms.spread());
            cells.push(number(follow_up.map(|follow_up| follow_up.ms), 1) + &spread(follow_up_sd));
            cells.push(number(m.and_then(|m| m.steps.as_ref()).map(|s| s.median_ms), 2));
            cells.push(number(m.and_then(|m| m.decode_tokens_per_sec), 1) + &spread(m.and_then(rate_sd)));
            cells.push(number(m.and_then(|m| m.kv_cache_mb), 2));
            cells.push(saved.map_or_else(absent, |s| format!("{s:.2}×")));
        }
    }
    cells.extend(over.map(|over| if first { over.to_string() } else { String::new() }));
    cells.extend(if first { perplexity(result) } else { [String::new(), String::new()] });
    cells
}

/// Standard deviation of the tokens decoded a second, to first order: the share of its mean by which the runs' time varies.
fn rate_sd(m: &Measurement) -> Option<f64> {
    let runs = m.decode_runs_ms.as_ref().filter(|runs| runs.mean > 0.0)?;
    Some(m.decode_tokens_per_sec? * runs.spread()? / runs.mean)
}

/// Perplexity, and its change against the unquantized cache.
fn perplexity(result: &RunResult) -> [String; 2] {
    let b = &result.benchmarks;
    let ppl = result.own_perplexity();
    let delta = b.perplexity_quantized.as_ref().and_then(|p| {
        let percent = |share: f64| number::shown(100.0 * share, Digits::Signed(2));
        let ln = p.ln_ratio?;
        // Of a large change the two sides are not equal, so that there is no ±.
        let interval = p.ln_ratio_estimate().and_then(change_of_log);
        let interval = interval.map(|(low, high)| format!(" [{}, {}]", percent(low), percent(high)));
        Some(format!("{}{} %", percent(ln.exp_m1()), interval.unwrap_or_default()))
    });
    [ppl.map_or_else(absent, |p| format!("{:.3}", p.value)), delta.unwrap_or_else(absent)]
}

/// Needles found at the context of the row `m`; at all contexts in a result without rows.
fn needle(result: &RunResult, m: Option<&Measurement>) -> String {
    let found = result.benchmarks.needle_in_haystack.as_ref().and_then(|needle| match m {
        Some(m) => needle.per_context.get(&m.context_len.to_string()).map(|score| (score.successes, score.trials)),
        None => Some((needle.successes, needle.total_trials)),
    });
    found.map_or_else(absent, |(found, trials)| format!("{found}/{trials}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{Benchmarks, FollowUp, KvQuant, Needle, NeedleScore, Perplexity, Steps, bare_result};

    fn shown(results: &[&RunResult]) -> String {
        table(results).unwrap().to_string()
    }

    #[test]
    fn a_step_of_several_sequences_is_told_as_a_step_not_as_a_token() {
        let steps = Some(Steps { median_ms: 8.25, ..Default::default() });
        let m = Measurement { batch_size: Some(4), steps, decode_tokens_per_sec: Some(480.0), ..Default::default() };
        let text = shown(&[&RunResult { measurements: vec![m], ..bare_result() }]);
        assert!(text.contains("decode ms/step") && text.contains("8.25") && !text.contains("ms/token"), "{text}");
    }

    #[test]
    fn the_interval_of_a_large_change_is_that_of_the_ratio_not_of_its_logarithm() {
        let through = Perplexity {
            ln_ratio: Some(2f64.ln()),
            ln_ratio_standard_error: Some(0.1),
            value: 4.0,
            ..Default::default()
        };
        let benchmarks = Benchmarks { perplexity_quantized: Some(through), ..Default::default() };
        let text = shown(&[&RunResult {
            benchmarks,
            kv_quant: KvQuant { enabled: true, ..Default::default() },
            ..bare_result()
        }]);
        // 2·e^(±0.196): the lower side is 35.6 wide, the upper 43.3.
        assert!(text.contains("+100.00 [+64.40, +143.30] %"), "{text}");
    }

    #[test]
    fn times_and_rates_of_several_runs_are_told_with_their_spread() {
        let row = |prefill: &[f64], decode: &[f64]| {
            let m = Measurement {
                prefill_ms: Some(100.0),
                prefill_runs_ms: Summary::of(prefill),
                decode_tokens_per_sec: Some(500.0),
                decode_runs_ms: Summary::of(decode),
                ..Default::default()
            };
            shown(&[&RunResult { measurements: vec![m], ..bare_result() }])
        };
        // √((3² + 0 + 3²)/2) = 3; of a time that varies by 2/200 a rate of 500 varies by 5.
        let text = row(&[97.0, 100.0, 103.0], &[198.0, 200.0, 202.0]);
        assert!(text.contains("100.0 ± 3.0") && text.contains("500.0 ± 5.0"), "{text}");
        let text = row(&[100.0], &[200.0]);
        assert!(text.contains("100.0") && text.contains("500.0") && !text.contains('±'), "{text}");
    }

    #[test]
    fn a_follow_up_prompt_has_a_column_where_one_was_read_and_its_tokens_where_they_differ() {
        let row = |tokens: usize, raw: &[f64]| {
            let runs_ms = Summary::of(raw).unwrap();
            let follow_up = FollowUp { tokens, ms: runs_ms.median, runs_ms, ..Default::default() };
            Measurement { prefill_ms: Some(100.0), follow_up: Some(follow_up), ..Default::default() }
        };
        let text = |measurements: Vec<Measurement>| shown(&[&RunResult { measurements, ..bare_result() }]);
        let none = Measurement { prefill_ms: Some(100.0), ..Default::default() };
        assert!(!text(vec![none.clone()]).contains("follow-up"));
        let alike = text(vec![row(64, &[7.0, 10.0, 13.0]), none]);
        assert!(alike.contains("follow-up ms") && alike.contains("10.0 ± 3.0"), "{alike}");
        assert!(!alike.contains("follow-up tokens"), "{alike}");
        let unlike = text(vec![row(64, &[10.0]), row(128, &[20.0])]);
        assert!(unlike.contains("follow-up tokens") && unlike.contains("128"), "{unlike}");
    }

    #[test]
    fn only_what_was_measured_has_a_column() {
        assert!(table(&[&bare_result()]).is_none());
        let ppl = Perplexity { value: 2.0, tokens: 16, ..Default::default() };
        let benchmarks = Benchmarks { perplexity: Some(ppl), ..Default::default() };
        let text = shown(&[&RunResult { benchmarks, ..bare_result() }]);
        let head: Vec<&str> = text.lines().nth(1).unwrap().split(['│', '┆']).map(str::trim).collect();
        assert_eq!(head, ["", "KV cache", "PPL", ""], "{text}");
    }

    #[test]
    fn a_change_that_rounds_to_nothing_has_no_sign() {
        let through = Perplexity { ln_ratio: Some(-1e-7), value: 2.0, ..Default::default() };
        let benchmarks = Benchmarks { perplexity_quantized: Some(through), ..Default::default() };
        let kv_quant = KvQuant { enabled: true, ..Default::default() };
        let text = shown(&[&RunResult { benchmarks, kv_quant, ..bare_result() }]);
        assert!(text.contains(" 0.00 %") && !text.contains("-0.00") && !text.contains("−0.00"), "{text}");
    }

    #[test]
    fn needles_stand_in_the_first_row_of_their_own_context() {
        let score = NeedleScore { trials: 5, successes: 4, ..Default::default() };
        let needle = Needle {
            total_trials: 5,
            successes: 4,
            per_context: [("512".to_string(), score)].into(),
            ..Default::default()
        };
        let benchmarks = Benchmarks { needle_in_haystack: Some(needle), ..Default::default() };
        let row = |context_len, batch| Measurement { context_len, batch_size: Some(batch), ..Default::default() };
        let measurements = vec![row(128, 1), row(512, 1), row(512, 4)];
        let last = |text: &str| -> Vec<String> {
            let rows = text.lines().filter(|line| line.starts_with('│')).skip(1);
            rows.map(|line| line.trim_end_matches('│').rsplit('┆').next().unwrap().trim().to_string()).collect()
        };
        let run = RunResult { benchmarks, ..bare_result() };
        assert_eq!(last(&shown(&[&RunResult { measurements, ..run.clone() }])), ["–", "4/5", ""]);
        assert_eq!(last(&shown(&[&run])), ["4/5"], "without rows there is no other place");
    }
}
