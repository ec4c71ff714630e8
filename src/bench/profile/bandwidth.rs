//! Achieved bandwidth: bytes that a decode step had to move over its time (docs/MEASUREMENT.md rule 10).

use super::generation::Generation;
use crate::Result;
use crate::measure::energy::Repeatable;
use crate::schema::Measurement;

/// Bytes that a decode step must read, however it is computed.
#[derive(Debug, Clone, Copy)]
pub(super) struct StepBytes {
    /// Weights: all but tables of which it reads a row.
    pub weights: u64,
    /// Keys and values: codes, parameters and window, as the cache holds them half way through the decode.
    pub cache: u64,
}

/// What the steps of `workload` read, whose decode has just ended; leaves it at the end of its prompt.
///
/// # Errors
/// As [`Repeatable::rewind`].
pub(super) fn step_bytes(workload: &mut Generation<'_>) -> Result<StepBytes> {
    let at_end = workload.cache.held_bytes();
    workload.rewind()?;
    let at_start = workload.cache.held_bytes();
    Ok(StepBytes { weights: workload.context.subject.decoder.step_weight_bytes(), cache: (at_start + at_end) / 2 })
}

/// Enters the rate of a median step, and its share of the rate `copy_gb_s` of a copy measured in the same run.
pub(super) fn fill_bandwidth(m: &mut Measurement, bytes: StepBytes, copy_gb_s: Option<f64>) {
    let Some(median_ms) = m.steps.as_ref().map(|steps| steps.median_ms).filter(|ms| *ms > 0.0) else { return };
    let rate = (bytes.weights + bytes.cache) as f64 / (median_ms * 1e6);
    m.step_bandwidth_gb_s = Some(rate);
    // A copy both reads and writes; decoding mostly reads: the share is of bytes moved per second, whichever way.
    m.step_bandwidth_share = copy_gb_s.map(|copy| rate / copy);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Steps;

    #[test]
    fn rule_10_bandwidth_is_bytes_that_had_to_move_over_the_time_and_a_share_of_a_copy() {
        let steps = |median_ms| Some(Steps { median_ms, ..Default::default() });
        let mut m = Measurement { steps: steps(4.0), ..Default::default() };
        // 12 GB in 4 ms are 3000 GB/s.
        fill_bandwidth(&mut m, StepBytes { weights: 11_000_000_000, cache: 1_000_000_000 }, Some(4000.0));
        assert_eq!((m.step_bandwidth_gb_s, m.step_bandwidth_share), (Some(3000.0), Some(0.75)));
        let mut unknown = Measurement { steps: steps(4.0), ..Default::default() };
        fill_bandwidth(&mut unknown, StepBytes { weights: 4_000_000, cache: 0 }, None);
        assert_eq!((unknown.step_bandwidth_gb_s, unknown.step_bandwidth_share), (Some(1.0), None));
        let mut untimed = Measurement::default();
        fill_bandwidth(&mut untimed, StepBytes { weights: 1, cache: 1 }, Some(1.0));
        assert_eq!(untimed.step_bandwidth_gb_s, None);
    }
}
