//! What the times of repeated runs say.

use crate::base::stats::{self, Summary};
use crate::measure::run::RunTimes;
use crate::schema::{Measurement, Steps};

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
        let drift = summary.as_ref().map_or(0.0, Summary::drift);
        if drift.abs() > 0.05 {
            m.warnings.push(format!("{what} time drifted by {:+.1} % from the first to the last run", drift * 100.0));
        }
    }
    let steps: Vec<f64> = runs.iter().flat_map(|r| r.steps_ms.iter().copied()).collect();
    let flushes: Vec<f64> = runs
        .iter()
        .flat_map(|r| r.steps_ms.iter().zip(&r.flushes).filter(|(_, flush)| **flush).map(|(ms, _)| *ms))
        .collect();
    if let (Some(median_ms), Some(p99_ms)) = (stats::percentile(&steps, 50.0), stats::percentile(&steps, 99.0)) {
        m.steps = Some(Steps {
            median_ms,
            p99_ms,
            flush_mean_ms: stats::mean(&flushes),
            flushes: flushes.len(),
            count: steps.len(),
            ..Default::default()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(prefill_ms: f64, steps_ms: &[f64], flush: usize) -> RunTimes {
        RunTimes {
            prefill_ms,
            decode_ms: steps_ms.iter().sum(),
            steps_ms: steps_ms.to_vec(),
            flushes: (0..steps_ms.len()).map(|i| i == flush).collect(),
        }
    }

    #[test]
    fn medians_throughput_and_flush_steps() {
        let mut m = Measurement { context_len: 100, decode_tokens: Some(3), ..Default::default() };
        fill_times(&mut m, &[run(50.0, &[1.0, 1.0, 4.0], 2), run(52.0, &[1.0, 1.0, 4.0], 2)], 2);
        assert_eq!(m.prefill_ms, Some(51.0));
        assert!((m.decode_tokens_per_sec.unwrap() - 1000.0).abs() < 1e-9);
        let steps = m.steps.unwrap();
        assert_eq!((steps.median_ms, steps.flush_mean_ms, steps.flushes), (1.0, Some(4.0), 2));
        assert!(m.warnings.is_empty());
    }

    #[test]
    fn drift_over_five_percent_is_a_warning() {
        let mut m = Measurement { context_len: 100, decode_tokens: Some(1), ..Default::default() };
        fill_times(&mut m, &[run(50.0, &[1.0], 9), run(60.0, &[1.0], 9)], 1);
        assert_eq!(m.warnings.len(), 1);
        assert!(m.warnings[0].starts_with("prefill time drifted by +20.0 %"), "{:?}", m.warnings);
    }
}
