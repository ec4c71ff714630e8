//! What must hold within a row of cost.

use super::{DERIVED, differs, instruments};
use crate::base::stats::Summary;
use crate::schema::{Measurement, Memory};

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
    let follow_up = m.follow_up.as_ref().map(|follow_up| follow_up.tokens);
    let counts = [
        ("context_len", Some(m.context_len)),
        ("batch_size", m.batch_size),
        ("decode_tokens", m.decode_tokens),
        ("follow_up.tokens", follow_up),
    ];
    for (name, _) in counts.into_iter().filter(|(_, count)| *count == Some(0)) {
        find(format!("{name} is 0"));
    }
    if let Some((tokens, output)) = follow_up.zip(m.decode_tokens).filter(|(tokens, output)| tokens > output) {
        find(format!("follow_up.tokens is {tokens}, which the cache has no room for: decode_tokens is {output}"));
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
    if let Some((reserved, peak)) = m.vram_reserved_mb.zip(m.vram_peak_mb)
        && reserved < peak
        && differs(reserved, peak)
    {
        find(format!("vram_reserved_mb is {reserved}, which is less than vram_peak_mb, {peak}"));
    }
    if let Some(Err(text)) = m.memory.as_ref().map(memory_adds_up) {
        find(text);
    }
    if ours {
        for (name, value) in [("avg_power_watts", m.avg_power_watts), ("energy_mj_per_token", m.energy_mj_per_token)] {
            if value == Some(0.0) {
                find(format!("{name} is 0; what was not measured is null"));
            }
        }
    }
    instruments::check(m, ours, &mut find);
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

/// A summary is that of the values beside it.
fn summary(summary: &Summary, name: &str, find: &mut dyn FnMut(String)) {
    let Some(expected) = Summary::of(&summary.raw) else {
        return find(format!("{name} summarizes no run"));
    };
    if let Some(value) = summary.raw.iter().find(|value| **value <= 0.0) {
        find(format!("{name}.raw has a run of {value}"));
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{FollowUp, KvBytes};

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
            ..Default::default()
        }
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
            Measurement { context_len: 0, prefill_tokens_per_sec: None, ..sound() },
            Measurement {
                batch_size: Some(0),
                prefill_tokens_per_sec: None,
                decode_tokens_per_sec: None,
                follow_up: None,
                ..sound()
            },
            Measurement { decode_tokens: Some(0), decode_tokens_per_sec: None, follow_up: None, ..sound() },
            Measurement { prefill_runs_ms: runs(&[-1.0, 1.0, 1.2]), ..sound() },
            Measurement { vram_peak_mb: Some(10.0), vram_reserved_mb: Some(9.0), ..sound() },
            Measurement { follow_up: follow_up(|f| (f.tokens, f.tokens_per_sec) = (11, 5_500.0)), ..sound() },
            Measurement { follow_up: follow_up(|f| (f.tokens, f.tokens_per_sec) = (0, 0.0)), ..sound() },
            Measurement { follow_up: follow_up(|f| f.tokens_per_sec = 9.0), ..sound() },
            Measurement { follow_up: follow_up(|f| f.runs_ms = Summary::of(&[3.0, 3.1]).unwrap()), ..sound() },
            Measurement { follow_up: follow_up(|f| f.runs_ms.raw.clear()), ..sound() },
            Measurement { decode_ms: None, ..sound() },
            Measurement { avg_power_watts: Some(0.0), ..sound() },
            Measurement { kv_bytes: Some(KvBytes { codes_bytes: 1, total_bytes: 2, ..Default::default() }), ..sound() },
            Measurement { skipped: Some(true), ..Default::default() },
        ];
        for m in broken {
            assert_eq!(findings(m.clone()).len(), 1, "{m:?}");
        }
    }
}
