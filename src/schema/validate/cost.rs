//! What must hold within a row of cost.

use super::{DERIVED, differs};
use crate::base::stats::Summary;
use crate::schema::{EnergyWindow, Measurement, Memory, PhaseKernels, Steps};

/// Bytes in the unit that result files call MB.
const MIB: f64 = 1_048_576.0;

/// Findings on one row of cost, each after `at`; `ours`: of a file that is not 2.0's.
pub(super) fn measurement(m: &Measurement, ours: bool, at: &str, findings: &mut Vec<String>) {
    let mut find = |text: String| findings.push(format!("{at}: {text}"));
    if m.is_skipped() {
        if m.skip_reason.is_none() {
            find("skipped without a skip_reason".into());
        }
        return;
    }
    for (name, value) in [("prefill_ms", m.prefill_ms), ("decode_ms", m.decode_ms)] {
        match value {
            Some(ms) if !ms.is_finite() || ms < 0.0 || (ours && ms == 0.0) => find(format!("{name} is {ms}")),
            None if ours => find(format!("{name} is null though nothing was skipped")),
            _ => {}
        }
    }
    // 2.0 rounds to two digits, and reports 0 where a decode failed.
    if ours {
        times(m, &mut find);
    }
    if let Some(bytes) = &m.kv_bytes {
        let parts = [bytes.codes_bytes, bytes.parameters_bytes, bytes.window_bytes, bytes.scratch_bytes];
        let sum: u128 = parts.iter().map(|&part| u128::from(part)).sum();
        if sum != u128::from(bytes.total_bytes) {
            find(format!("the cache ledger does not add up: parts {sum}, total {}", bytes.total_bytes));
        }
        if let Some(mb) = m.kv_cache_mb.filter(|mb| differs(mb * MIB, bytes.total_bytes as f64)) {
            find(format!("kv_cache_mb is {mb}, but the ledger has {} bytes", bytes.total_bytes));
        }
    }
    if let Some(Err(text)) = m.memory.as_ref().map(memory_adds_up) {
        find(text);
    }
    if let Some(steps) = &m.steps
        && (steps.flushes == 0) != steps.flush_mean_ms.is_none()
    {
        find(format!("{} flush steps with flush_mean_ms {:?}", steps.flushes, steps.flush_mean_ms));
    }
    if ours {
        for (name, value) in [("avg_power_watts", m.avg_power_watts), ("energy_mj_per_token", m.energy_mj_per_token)] {
            if value == Some(0.0) {
                find(format!("{name} is 0; what was not measured is null"));
            }
        }
    }
    if ours {
        if let Some(steps) = &m.steps {
            step_times(steps, &mut find);
        }
        let energy = m.energy.as_ref();
        for (phase, window) in
            [("prefill", energy.and_then(|e| e.prefill.as_ref())), ("decode", energy.and_then(|e| e.decode.as_ref()))]
        {
            if let Some(window) = window {
                energy_window(window, &format!("energy.{phase}"), &mut find);
            }
        }
    }
    if let Some(kernels) = &m.kernels {
        for (phase, times) in [("prefill", &kernels.prefill), ("decode", &kernels.decode)] {
            if let Some(times) = times {
                shares(times, &format!("kernels.{phase}"), &mut find);
            }
        }
    }
}

/// Times: each median is that of its runs, and each rate follows from its median.
fn times(m: &Measurement, find: &mut dyn FnMut(String)) {
    let batch = m.batch() as f64;
    let follow_up = m.follow_up.as_ref();
    if let Some(ms) = follow_up.map(|f| f.ms).filter(|ms| !ms.is_finite() || *ms <= 0.0) {
        find(format!("follow_up.ms is {ms}"));
    }
    let phases = [
        ("prefill_", m.prefill_ms, m.prefill_runs_ms.as_ref(), Some(m.context_len), m.prefill_tokens_per_sec),
        (
            "follow_up.",
            follow_up.map(|f| f.ms),
            follow_up.map(|f| &f.runs_ms),
            follow_up.map(|f| f.tokens),
            follow_up.map(|f| f.tokens_per_sec),
        ),
        ("decode_", m.decode_ms, m.decode_runs_ms.as_ref(), m.decode_tokens, m.decode_tokens_per_sec),
    ];
    for (phase, median_ms, runs, tokens, rate) in phases {
        if let Some(runs) = runs {
            summary(runs, &format!("{phase}runs_ms"), find);
            if let Some(ms) = median_ms.filter(|ms| differs(*ms, runs.median)) {
                find(format!("{phase}ms is {ms}, but the median of {phase}runs_ms {}", runs.median));
            }
        }
        if let (Some(tokens), Some(ms), Some(rate)) = (tokens, median_ms, rate) {
            let expected = tokens as f64 * batch / ms * 1e3;
            if differs(rate, expected) {
                find(format!("{phase}tokens_per_sec is {rate}, but {tokens} tokens in {ms} ms are {expected:.2}"));
            }
        }
    }
}

/// Single steps: the histogram has each of them, and few take longer than most.
fn step_times(steps: &Steps, find: &mut dyn FnMut(String)) {
    let counted: u128 = steps.histogram_counts.iter().map(|&count| u128::from(count)).sum();
    if !steps.histogram_counts.is_empty() && counted != steps.count as u128 {
        find(format!("steps.histogram_counts sum to {counted}, but steps.count is {}", steps.count));
    }
    if steps.p99_ms < steps.median_ms && differs(steps.p99_ms, steps.median_ms) {
        find(format!("steps.p99_ms is {}, which is less than median_ms, {}", steps.p99_ms, steps.median_ms));
    }
}

/// A window of energy: what is by the token or by the second follows from its joules.
fn energy_window(window: &EnergyWindow, at: &str, find: &mut dyn FnMut(String)) {
    let EnergyWindow { gross_j, tokens, seconds, .. } = *window;
    if gross_j < 0.0 {
        find(format!("{at}.gross_j is {gross_j}, which is negative"));
    }
    if tokens == 0 {
        find(format!("{at}.tokens is 0"));
    }
    let by_token = |joules: f64| joules / tokens as f64;
    let derived = [
        ("j_per_token", Some(window.j_per_token), "gross_j", Some(gross_j), by_token(gross_j)),
        ("net_j_per_token", window.net_j_per_token, "net_j", window.net_j, window.net_j.map_or(f64::NAN, by_token)),
    ];
    for (name, value, whole, joules, expected) in derived {
        if let Some((value, joules)) = value.zip(joules).filter(|(value, _)| differs(*value, expected)) {
            find(format!("{at}.{name} is {value}, but {whole} {joules} over {tokens} tokens is {expected}"));
        }
    }
    let (mean_w, expected) = (window.mean_w, gross_j / seconds);
    if differs(mean_w, expected) {
        find(format!("{at}.mean_w is {mean_w}, but gross_j {gross_j} over {seconds} s is {expected}"));
    }
}

/// A summary is that of the values beside it.
fn summary(summary: &Summary, name: &str, find: &mut dyn FnMut(String)) {
    let Some(expected) = Summary::of(&summary.raw) else {
        return find(format!("{name} summarizes no run"));
    };
    // Older files say of a single value that it spreads by 0.
    let spread = |sd: Option<f64>| sd.unwrap_or(0.0);
    let parts = [
        ("median", summary.median, expected.median),
        ("mean", summary.mean, expected.mean),
        ("sd", spread(summary.sd), spread(expected.sd)),
        ("p10", summary.p10, expected.p10),
        ("p90", summary.p90, expected.p90),
    ];
    // A spread of nothing has no share that it may be off by: the size of the values sets what matters.
    let wrong = |(_, value, expected): &&(&str, f64, f64)| {
        (value - expected).abs() > DERIVED * expected.abs() + 1e-9 * summary.median.abs()
    };
    if let Some((part, value, expected)) = parts.iter().find(wrong) {
        find(format!("{name}.{part} is {value}, but that of its raw values is {expected}"));
    }
}

/// Whether weights, cache, activations, logits, framework and fragmentation are the device's count at its peak, within 2 %. What is
/// not recorded is not held against a file.
///
/// # Errors
/// The two numbers, in words.
pub fn memory_adds_up(memory: &Memory) -> Result<(), String> {
    let parts = [
        memory.weights_bytes,
        memory.cache_bytes,
        memory.activations_bytes,
        memory.logits_bytes,
        memory.framework_bytes,
        memory.fragmentation_bytes,
    ];
    let (Some(parts), Some(device)) = (parts.into_iter().collect::<Option<Vec<u64>>>(), memory.device_used_bytes)
    else {
        return Ok(());
    };
    let sum: u128 = parts.into_iter().map(u128::from).sum();
    if sum.abs_diff(u128::from(device)) as f64 <= 0.02 * device as f64 {
        return Ok(());
    }
    Err(format!("the parts of memory sum to {sum} bytes, the device counted {device}"))
}

fn shares(times: &PhaseKernels, at: &str, find: &mut dyn FnMut(String)) {
    let sum: f64 = times.categories.values().map(|c| c.share).sum();
    if !times.categories.is_empty() && (sum - 1.0).abs() > 0.01 {
        find(format!("{at}: the shares of the categories sum to {sum:.3}"));
    }
    // The last kernel may end a little after the phase it began in.
    if !(0.0..=1.0 + DERIVED).contains(&times.busy_share) {
        find(format!("{at}.busy_share is {}, which is not within 0 and 1", times.busy_share));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{Energy, FollowUp, KernelTimes, KvBytes};

    fn findings(m: Measurement) -> Vec<String> {
        let mut findings = Vec::new();
        measurement(&m, true, "m", &mut findings);
        findings
    }

    fn sound() -> Measurement {
        Measurement {
            context_len: 10,
            prefill_ms: Some(1.0),
            prefill_tokens_per_sec: Some(10_000.0),
            prefill_runs_ms: Summary::of(&[0.9, 1.0, 1.2]),
            follow_up: Some(FollowUp {
                tokens: 5,
                ms: 2.0,
                tokens_per_sec: 2_500.0,
                runs_ms: Summary::of(&[2.0, 1.5, 2.5]).unwrap(),
                ..Default::default()
            }),
            decode_ms: Some(100.0),
            decode_tokens: Some(10),
            decode_tokens_per_sec: Some(100.0),
            decode_runs_ms: Summary::of(&[100.0]),
            steps: Some(Steps {
                median_ms: 10.0,
                p99_ms: 10.0,
                count: 10,
                histogram_counts: vec![7, 0, 3],
                ..Default::default()
            }),
            energy: Some(Energy {
                prefill: Some(window()),
                decode: Some(EnergyWindow { net_j: Some(-1.0), net_j_per_token: Some(-0.1), ..window() }),
                ..Default::default()
            }),
            kernels: Some(KernelTimes {
                decode: Some(PhaseKernels { busy_share: 1.0, ..Default::default() }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    /// 300 J in 2 s.
    fn window() -> EnergyWindow {
        EnergyWindow {
            seconds: 2.0,
            gross_j: 300.0,
            net_j: Some(200.0),
            mean_w: 150.0,
            tokens: 10,
            j_per_token: 30.0,
            net_j_per_token: Some(20.0),
            ..Default::default()
        }
    }

    #[test]
    fn energy_steps_and_kernels_that_contradict_themselves_are_told_by_field_and_numbers() {
        let energy = |change: fn(&mut EnergyWindow)| {
            let mut m = sound();
            m.energy.iter_mut().flat_map(|e| e.prefill.as_mut()).for_each(change);
            m
        };
        let steps = |change: fn(&mut Steps)| {
            let mut m = sound();
            m.steps.iter_mut().for_each(change);
            m
        };
        let busy = |busy_share: f64| {
            let mut m = sound();
            m.kernels.iter_mut().flat_map(|k| k.decode.as_mut()).for_each(|phase| phase.busy_share = busy_share);
            m
        };
        for (m, said) in [
            (
                energy(|w| (w.gross_j, w.j_per_token, w.mean_w) = (-300.0, -30.0, -150.0)),
                "energy.prefill.gross_j is -300, which is negative",
            ),
            (energy(|w| w.tokens = 0), "energy.prefill.tokens is 0"),
            (
                energy(|w| w.j_per_token = 0.3),
                "energy.prefill.j_per_token is 0.3, but gross_j 300 over 10 tokens is 30",
            ),
            (
                energy(|w| w.net_j_per_token = Some(30.0)),
                "energy.prefill.net_j_per_token is 30, but net_j 200 over 10 tokens is 20",
            ),
            (energy(|w| w.mean_w = 300.0), "energy.prefill.mean_w is 300, but gross_j 300 over 2 s is 150"),
            (steps(|s| s.histogram_counts[1] = 1), "steps.histogram_counts sum to 11, but steps.count is 10"),
            (steps(|s| s.p99_ms = 9.0), "steps.p99_ms is 9, which is less than median_ms, 10"),
            (busy(1.2), "kernels.decode.busy_share is 1.2, which is not within 0 and 1"),
            (busy(-0.1), "kernels.decode.busy_share is -0.1, which is not within 0 and 1"),
        ] {
            assert_eq!(findings(m), [format!("m: {said}")]);
        }
        // Older files do not have what is by the token of net energy, or no histogram.
        assert!(findings(energy(|w| w.net_j_per_token = None)).is_empty());
        assert!(findings(steps(|s| s.histogram_counts.clear())).is_empty());
    }

    #[test]
    fn every_part_of_a_summary_is_held_to_its_raw_values() {
        let parts: [fn(&mut Summary) -> &mut f64; 5] =
            [|s| &mut s.median, |s| &mut s.mean, |s| s.sd.as_mut().unwrap(), |s| &mut s.p10, |s| &mut s.p90];
        for (part, name) in parts.iter().zip(["median", "mean", "sd", "p10", "p90"]) {
            let mut summary = Summary::of(&[0.9, 1.0, 1.2]).unwrap();
            *part(&mut summary) *= 1.01;
            let mut found = Vec::new();
            super::summary(&summary, "runs", &mut |text| found.push(text));
            assert!(found.len() == 1 && found[0].starts_with(&format!("runs.{name} is ")), "{found:?}");
        }
    }

    #[test]
    fn shares_of_less_or_more_than_a_whole_are_told() {
        let found = |share: f64| {
            let category = |share| crate::schema::CategoryTime { share, ..Default::default() };
            let mut m = sound();
            for phase in m.kernels.iter_mut().flat_map(|k| k.decode.as_mut()) {
                phase.categories = [("attention".into(), category(0.5)), ("ffn".into(), category(share))].into();
            }
            findings(m)
        };
        assert_eq!((found(0.495), found(0.505)), (vec![], vec![]));
        assert_eq!(found(0.4), ["m: kernels.decode: the shares of the categories sum to 0.900"]);
        assert_eq!(found(0.6), ["m: kernels.decode: the shares of the categories sum to 1.100"]);
    }

    #[test]
    fn parts_of_memory_may_miss_the_devices_count_by_two_percent() {
        let adds_up = |activations_bytes| {
            let none = Some(0);
            let memory = Memory {
                weights_bytes: Some(500),
                cache_bytes: Some(300),
                activations_bytes: Some(activations_bytes),
                logits_bytes: none,
                framework_bytes: none,
                fragmentation_bytes: none,
                device_used_bytes: Some(1000),
                ..Memory::default()
            };
            memory_adds_up(&memory).is_ok()
        };
        assert_eq!([179, 180, 220, 221].map(adds_up), [false, true, true, false]);
    }

    #[test]
    fn a_sound_measurement_has_no_findings() {
        assert!(findings(sound()).is_empty());
    }

    #[test]
    fn each_broken_invariant_is_found() {
        let runs = |raw: &[f64]| Summary::of(raw);
        let off = |change: fn(&mut Summary)| {
            let mut summary = Summary::of(&[0.9, 1.0, 1.2]).unwrap();
            change(&mut summary);
            Some(summary)
        };
        let follow_up = |change: fn(&mut FollowUp)| {
            let mut follow_up = sound().follow_up;
            follow_up.iter_mut().for_each(change);
            follow_up
        };
        let broken = [
            Measurement { prefill_tokens_per_sec: Some(9_000.0), ..sound() },
            Measurement { prefill_runs_ms: runs(&[2.0, 2.1, 2.2]), ..sound() },
            Measurement { decode_runs_ms: runs(&[101.0, 102.0]), ..sound() },
            Measurement { prefill_runs_ms: off(|s| s.raw[1] = 0.8), ..sound() },
            Measurement { prefill_runs_ms: off(|s| s.sd = None), ..sound() },
            Measurement { prefill_runs_ms: off(|s| s.raw.clear()), ..sound() },
            Measurement {
                kv_bytes: Some(KvBytes { codes_bytes: 2, total_bytes: 2, ..Default::default() }),
                kv_cache_mb: Some(1.0),
                ..sound()
            },
            Measurement { decode_tokens_per_sec: Some(90.0), ..sound() },
            Measurement { follow_up: follow_up(|f| f.tokens_per_sec = 9.0), ..sound() },
            Measurement { follow_up: follow_up(|f| f.runs_ms = Summary::of(&[3.0, 3.1]).unwrap()), ..sound() },
            Measurement { follow_up: follow_up(|f| f.runs_ms.raw.clear()), ..sound() },
            Measurement { decode_ms: None, ..sound() },
            Measurement { avg_power_watts: Some(0.0), ..sound() },
            Measurement { kv_bytes: Some(KvBytes { codes_bytes: 1, total_bytes: 2, ..Default::default() }), ..sound() },
            Measurement { steps: Some(Steps { flushes: 2, ..Default::default() }), ..sound() },
            Measurement { skipped: Some(true), ..Default::default() },
        ];
        for m in broken {
            assert_eq!(findings(m.clone()).len(), 1, "{m:?}");
        }
    }
}
