//! What the times of repeated runs say.

use crate::base::stats::{self, Histogram, Summary};
use crate::measure::run::RunTimes;
use crate::schema::{FlushStep, Measurement, Steps};

/// Enters the times of the runs of `batch` sequences, and warns of drift.
pub(super) fn fill_times(m: &mut Measurement, runs: &[RunTimes], batch: usize) {
    let prefill: Vec<f64> = runs.iter().map(|r| r.prefill_ms).collect();
    let decode: Vec<f64> = runs.iter().map(|r| r.decode_ms).collect();
    m.prefill_runs_ms = Summary::of(&prefill);
    m.decode_runs_ms = Summary::of(&decode);
    m.prefill_ms = m.prefill_runs_ms.as_ref().map(|s| s.median);
    m.decode_ms = m.decode_runs_ms.as_ref().map(|s| s.median);
    m.prefill_tokens_per_sec = m.prefill_ms.map(|ms| (m.context_len * batch) as f64 / ms * 1e3);
    let generated = (m.decode_tokens.unwrap_or(0) * batch) as f64;
    m.decode_tokens_per_sec = m.decode_ms.map(|ms| generated / ms * 1e3);
    for (what, summary) in [("prefill", &m.prefill_runs_ms), ("decode", &m.decode_runs_ms)] {
        m.warnings.extend(summary.as_ref().and_then(|summary| drift_warning(what, summary)));
    }
    m.steps = steps(runs);
    // An unquantized cache has nothing to quantize, and a short context may end before a block is due.
    if m.kv_bytes.is_some_and(|bytes| bytes.codes_bytes > 0) && m.steps.as_ref().is_some_and(|s| s.flushes == 0) {
        m.warnings.push(format!(
            "no block of the cache was quantized in {} decode steps: their times leave that cost out",
            m.decode_tokens.unwrap_or(0)
        ));
    }
}

/// That the times of `what` drifted, where they did.
pub(super) fn drift_warning(what: &str, runs: &Summary) -> Option<String> {
    let drift = runs.drift();
    (drift.abs() > 0.05)
        .then(|| format!("{what} time drifted by {:+.1} % from the first to the last run", drift * 100.0))
}

/// Single steps of all runs, compactly; `None` without steps.
fn steps(runs: &[RunTimes]) -> Option<Steps> {
    let all: Vec<f64> = runs.iter().flat_map(|run| run.steps_ms.iter().copied()).collect();
    let flush_ms = |run: &RunTimes| {
        let flushed = run.steps_ms.iter().zip(&run.flushes).filter(|(_, flush)| **flush);
        flushed.map(|(ms, _)| *ms).collect::<Vec<f64>>()
    };
    let flushes: Vec<f64> = runs.iter().flat_map(flush_ms).collect();
    let Histogram { edges, counts } = Histogram::of(&all);
    Some(Steps {
        median_ms: stats::median(&all)?,
        p99_ms: stats::percentile(&all, 99.0)?,
        flush_mean_ms: stats::mean(&flushes),
        flushes: flushes.len(),
        count: all.len(),
        histogram_edges_ms: edges,
        histogram_counts: counts,
        flush_steps: flush_steps(runs),
    })
}

/// The flush steps of the first run, each with its median over all runs: the cache fills alike in each.
fn flush_steps(runs: &[RunTimes]) -> Vec<FlushStep> {
    let Some(first) = runs.first() else { return Vec::new() };
    let flushed = first.flushes.iter().enumerate().filter(|(_, flush)| **flush).map(|(step, _)| step);
    flushed
        .filter_map(|step| {
            let of_step: Vec<f64> = runs.iter().filter_map(|run| run.steps_ms.get(step).copied()).collect();
            Some(FlushStep { step, ms: stats::median(&of_step)? })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::KvBytes;

    fn run(prefill_ms: f64, steps_ms: &[f64], flush: usize) -> RunTimes {
        RunTimes {
            prefill_ms,
            decode_ms: steps_ms.iter().sum(),
            steps_ms: steps_ms.to_vec(),
            flushes: (0..steps_ms.len()).map(|i| i == flush).collect(),
        }
    }

    fn quantized() -> Measurement {
        let bytes = KvBytes { codes_bytes: 1, ..Default::default() };
        Measurement { context_len: 100, decode_tokens: Some(3), kv_bytes: Some(bytes), ..Default::default() }
    }

    #[test]
    fn medians_and_throughput_are_of_the_timed_runs() {
        let mut m = quantized();
        fill_times(&mut m, &[run(50.0, &[1.0, 1.0, 4.0], 2), run(52.0, &[1.0, 1.0, 4.0], 2)], 2);
        assert_eq!(m.prefill_ms, Some(51.0));
        // 2 sequences of 100 tokens in 51 ms, and of 3 tokens in 6 ms.
        assert!((m.prefill_tokens_per_sec.unwrap() - 200.0 / 0.051).abs() < 1e-9);
        assert!((m.decode_tokens_per_sec.unwrap() - 1000.0).abs() < 1e-9);
        assert!(m.warnings.is_empty());
    }

    #[test]
    fn rule_3_every_raw_run_is_kept_beside_its_summary() {
        let mut m = quantized();
        let runs: Vec<RunTimes> = [50.0, 51.0, 49.0, 50.0, 50.5].map(|ms| run(ms, &[2.0, 2.0, 3.0], 2)).into();
        fill_times(&mut m, &runs, 1);
        let prefill = m.prefill_runs_ms.unwrap();
        assert_eq!(prefill.raw, [50.0, 51.0, 49.0, 50.0, 50.5]);
        assert_eq!((prefill.median, prefill.mean), (50.0, 50.1));
        assert!(prefill.sd > Some(0.0) && prefill.p10 < prefill.median && prefill.p90 > prefill.median);
        assert_eq!(m.decode_runs_ms.unwrap().raw, [7.0; 5]);
        assert_eq!(crate::bench::Settings::default().warmup_runs, 2);
        assert_eq!(crate::bench::Settings::default().measure_runs, 5);
    }

    #[test]
    fn rule_3_drift_over_five_percent_is_a_warning() {
        let warnings = |last: f64| {
            let mut m = quantized();
            fill_times(&mut m, &[run(50.0, &[1.0, 1.0, 1.0], 1), run(last, &[1.0, 1.0, 1.0], 1)], 1);
            m.warnings
        };
        assert!(warnings(52.0).is_empty());
        let said = warnings(60.0);
        assert!(said.len() == 1 && said[0].starts_with("prefill time drifted by +20.0 %"), "{said:?}");
        assert!(warnings(47.0)[0].starts_with("prefill time drifted by -6.0 %"));
    }

    #[test]
    fn rule_4_flush_steps_show_by_themselves() {
        let mut m = quantized();
        fill_times(&mut m, &[run(50.0, &[1.0, 1.0, 4.0], 2), run(50.0, &[1.0, 1.0, 5.0], 2)], 1);
        let steps = m.steps.unwrap();
        assert_eq!((steps.median_ms, steps.flush_mean_ms, steps.flushes), (1.0, Some(4.5), 2));
        assert!((steps.p99_ms - 4.95).abs() < 1e-9, "{}", steps.p99_ms);
        assert_eq!(steps.flush_steps, [FlushStep { step: 2, ms: 4.5 }]);
        assert_eq!((steps.count, steps.histogram_counts.iter().sum::<u64>()), (6, 6));
        assert_eq!(steps.histogram_counts[0], 4);
        assert_eq!(steps.histogram_edges_ms.len() + 1, steps.histogram_counts.len());
    }

    #[test]
    fn rule_4_a_quantized_decode_without_a_flush_says_so() {
        let mut m = quantized();
        fill_times(&mut m, &[run(50.0, &[1.0, 1.0, 1.0], 9)], 1);
        assert!(m.warnings.len() == 1 && m.warnings[0].contains("no block"), "{:?}", m.warnings);
        let mut unquantized = Measurement { kv_bytes: Some(KvBytes::default()), ..quantized() };
        fill_times(&mut unquantized, &[run(50.0, &[1.0, 1.0, 1.0], 9)], 1);
        assert!(unquantized.warnings.is_empty());
    }
}
