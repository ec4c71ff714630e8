//! What must hold within what instruments say of a row: single steps, windows of energy, kernel times.

use super::{DERIVED, differs};
use crate::schema::{EnergyWindow, Measurement, PhaseKernels, Steps};

/// Findings on steps, energy and kernels of one row; `ours`: of a file that is not 2.0's.
pub(super) fn check(m: &Measurement, ours: bool, find: &mut dyn FnMut(String)) {
    if let Some(steps) = &m.steps
        && (steps.flushes == 0) != steps.flush_mean_ms.is_none()
    {
        find(format!("{} flush steps with flush_mean_ms {:?}", steps.flushes, steps.flush_mean_ms));
    }
    if ours {
        if let Some(steps) = &m.steps {
            step_times(steps, m, find);
        }
        let energy = m.energy.as_ref();
        for (phase, window) in
            [("prefill", energy.and_then(|e| e.prefill.as_ref())), ("decode", energy.and_then(|e| e.decode.as_ref()))]
        {
            if let Some(window) = window {
                energy_window(window, &format!("energy.{phase}"), find);
            }
        }
    }
    if let Some(kernels) = &m.kernels {
        for (phase, times) in [("prefill", &kernels.prefill), ("decode", &kernels.decode)] {
            if let Some(times) = times {
                shares(times, &format!("kernels.{phase}"), find);
            }
        }
    }
}

/// Single steps: they are those of all runs, the histogram has each of them, and few take longer than most.
fn step_times(steps: &Steps, m: &Measurement, find: &mut dyn FnMut(String)) {
    if let Some((runs, tokens)) = m.decode_runs_ms.as_ref().map(|runs| runs.raw.len()).zip(m.decode_tokens)
        && Some(steps.count) != runs.checked_mul(tokens)
    {
        find(format!("steps.count is {}, but {runs} runs made {tokens} steps each", steps.count));
    }
    if steps.flushes > steps.count {
        find(format!("steps.flushes is {}, which is more than count, {}", steps.flushes, steps.count));
    }
    let (edges, counts) = (&steps.histogram_edges_ms, &steps.histogram_counts);
    if !counts.is_empty() && (edges.len() + 1 != counts.len() || !edges.is_sorted()) {
        let (edges, counts) = (edges.len(), counts.len());
        find(format!("steps.histogram_edges_ms: {edges} edges do not ascend between {counts} counts"));
    }
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
    if seconds <= 0.0 {
        find(format!("{at}.seconds is {seconds}"));
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
    use crate::base::stats::Summary;
    use crate::schema::{Energy, KernelTimes};

    fn findings(m: Measurement) -> Vec<String> {
        let mut findings = Vec::new();
        check(&m, true, &mut |text| findings.push(text));
        findings
    }

    fn sound() -> Measurement {
        Measurement {
            decode_tokens: Some(5),
            decode_runs_ms: Summary::of(&[50.0, 50.0]),
            steps: Some(Steps {
                median_ms: 10.0,
                p99_ms: 10.0,
                count: 10,
                histogram_edges_ms: vec![9.0, 11.0],
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
            (
                steps(|s| s.histogram_edges_ms = vec![11.0, 9.0]),
                "steps.histogram_edges_ms: 2 edges do not ascend between 3 counts",
            ),
            (
                steps(|s| (s.count, s.histogram_counts) = (9, Vec::new())),
                "steps.count is 9, but 2 runs made 5 steps each",
            ),
            (
                steps(|s| (s.flushes, s.flush_mean_ms) = (11, Some(1.0))),
                "steps.flushes is 11, which is more than count, 10",
            ),
            (steps(|s| s.flushes = 2), "2 flush steps with flush_mean_ms None"),
            (energy(|w| w.seconds = 0.0), "energy.prefill.seconds is 0"),
            (steps(|s| s.p99_ms = 9.0), "steps.p99_ms is 9, which is less than median_ms, 10"),
            (busy(1.2), "kernels.decode.busy_share is 1.2, which is not within 0 and 1"),
            (busy(-0.1), "kernels.decode.busy_share is -0.1, which is not within 0 and 1"),
        ] {
            assert_eq!(findings(m), [said]);
        }
        // Older files do not have what is by the token of net energy, or no histogram.
        assert!(findings(energy(|w| w.net_j_per_token = None)).is_empty());
        assert!(findings(steps(|s| s.histogram_counts.clear())).is_empty());
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
        assert_eq!(found(0.4), ["kernels.decode: the shares of the categories sum to 0.900"]);
        assert_eq!(found(0.6), ["kernels.decode: the shares of the categories sum to 1.100"]);
    }

    #[test]
    fn sound_instruments_have_no_findings() {
        assert_eq!(findings(sound()), Vec::<String>::new());
    }
}
