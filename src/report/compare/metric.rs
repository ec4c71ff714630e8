//! What can be compared.

use super::change::{Delta, Outcome, divergence, exact, needle, perplexity, questions, relative};
use super::needles::{self, Common};
use crate::base::stats;
use crate::report::number::{self, Digits};
use crate::report::run::Run;
use crate::report::scoring;
use crate::report::setting::Part;
use crate::report::study::{MIB, Row};

/// A metric.
#[derive(Debug)]
pub struct Metric {
    /// Name on the command line and in tables.
    pub name: &'static str,
    /// Unit of its values; empty for a plain number.
    pub unit: &'static str,
    /// Whether its change is a difference of rates (in points), not a relative change.
    pub points: bool,
}

/// A metric of a measurement (context and batch).
#[derive(Debug)]
pub struct Cost {
    /// The metric.
    pub metric: Metric,
    /// Its change between two measurements.
    pub change: fn(&Row<'_>, &Row<'_>) -> Option<Delta>,
    /// The settings that it depends on, so that rows which differ in them measure different things.
    pub depends_on: &'static [Part],
    /// Whether it means nothing where device memory spilled to the host: it is a time, or what was spent in it.
    pub spill_matters: bool,
}

impl Cost {
    /// Whether a row has a number of it: such a row can be held against itself.
    pub fn of_row(&self, row: &Row<'_>) -> bool {
        (self.change)(row, row).is_some()
    }
}

/// A metric of a run's quality.
#[derive(Debug)]
pub struct Quality {
    /// The metric.
    pub metric: Metric,
    /// Its change between two runs that were scored alike.
    pub change: fn(&Run, &Run) -> Outcome,
    /// What a run was scored on.
    pub scoring: scoring::Of,
    /// What two runs that were not scored alike have in common all the same.
    pub common: Option<fn(&Run, &Run) -> Option<Common>>,
}

impl Metric {
    /// Whether it is a rate that is 0 on both sides.
    pub fn of_nothing(&self, delta: &Delta) -> bool {
        self.points && delta.base == 0.0 && delta.new == 0.0
    }

    /// The change for people.
    pub fn words(&self, delta: &Delta) -> String {
        let shown = |v: f64| match self.points {
            true => number::shown(v, Digits::Points(1)),
            false => number::shown(v, Digits::SignedPercent(2)),
        };
        if self.of_nothing(delta) {
            return "no success on either side".into();
        }
        let interval = delta.interval.filter(|(low, high)| low != high);
        let interval = interval.map_or_else(String::new, |(low, high)| format!(" [{}, {}]", shown(low), shown(high)));
        format!("{}{interval}{}", shown(delta.change), if delta.unpaired.is_some() { ", unpaired" } else { "" })
    }
}

/// Metrics of a measurement: bytes of the cache, peak of the device's memory, times of prefill and of a follow-up prompt, rate and energy of
/// decode.
pub static COST: [Cost; 6] = [
    Cost {
        metric: Metric { name: "kv", unit: "bytes", points: false },
        change: |a, b| exact(a.cache_bytes()?, b.cache_bytes()?, true),
        depends_on: &[Part::Output, Part::Chunk],
        spill_matters: false,
    },
    Cost {
        metric: Metric { name: "memory", unit: "bytes", points: false },
        change: |a, b| {
            let peak = |r: &Row<'_>| r.measured?.vram_peak_mb.map(|mb| mb * MIB);
            relative(peak(a)?, peak(b)?, None, true)
        },
        depends_on: &[Part::Output, Part::Chunk],
        spill_matters: false,
    },
    Cost {
        metric: Metric { name: "prefill", unit: "ms", points: false },
        change: |a, b| {
            let runs = |r: &Row<'_>| r.measured?.prefill_runs_ms.as_ref().map(|s| s.raw.clone());
            let interval = runs(a).zip(runs(b)).and_then(|(a, b)| stats::ratio_of_medians(&a, &b)?.interval);
            relative(a.measured?.prefill_ms?, b.measured?.prefill_ms?, interval, true)
        },
        depends_on: &[Part::Chunk],
        spill_matters: true,
    },
    Cost {
        metric: Metric { name: "follow-up", unit: "ms", points: false },
        change: |a, b| {
            let ((_, a), (_, b)) = (a.follow_up?, b.follow_up?);
            let interval = stats::ratio_of_medians(&a.runs_ms.raw, &b.runs_ms.raw).and_then(|ratio| ratio.interval);
            relative(a.ms, b.ms, interval, true)
        },
        depends_on: &[Part::FollowUp, Part::Chunk],
        spill_matters: true,
    },
    Cost {
        metric: Metric { name: "decode", unit: "tokens/s", points: false },
        change: |a, b| {
            let runs = |r: &Row<'_>| r.measured?.decode_runs_ms.as_ref().map(|s| s.raw.clone());
            let tokens = |r: &Row<'_>| r.measured.and_then(|m| m.decode_tokens);
            // The rate is the inverse of the time, so the sides change places.
            let same = tokens(a) == tokens(b);
            let runs = runs(a).zip(runs(b)).filter(|_| same);
            let interval = runs.and_then(|(a, b)| stats::ratio_of_medians(&b, &a)?.interval);
            relative(a.decode_rate()?, b.decode_rate()?, interval, false)
        },
        depends_on: &[Part::Output],
        spill_matters: true,
    },
    Cost {
        metric: Metric { name: "energy", unit: "J/token", points: false },
        change: |a, b| relative(a.energy_j()?, b.energy_j()?, None, true),
        depends_on: &[Part::Output],
        spill_matters: true,
    },
];

/// Metrics of a run's quality: perplexity through its own cache, mean divergence from the unquantized one, share of needles found, accuracies.
pub static QUALITY: [Quality; 5] = [
    Quality {
        metric: Metric { name: "ppl", unit: "", points: false },
        change: |a, b| Ok(perplexity(a, b)),
        scoring: scoring::ppl,
        common: None,
    },
    Quality {
        metric: Metric { name: "kld", unit: "nats", points: false },
        change: |a, b| Ok(divergence(a, b)),
        scoring: scoring::kld,
        common: None,
    },
    Quality {
        metric: Metric { name: "needle", unit: "", points: true },
        change: needle,
        scoring: scoring::needle,
        common: Some(needles::common),
    },
    Quality {
        metric: Metric { name: "mmlu", unit: "", points: true },
        change: |a, b| questions([a, b], |b| b.mmlu.as_ref(), |q| q.mmlu.as_ref()),
        scoring: scoring::mmlu,
        common: None,
    },
    Quality {
        metric: Metric { name: "math", unit: "", points: true },
        change: |a, b| questions([a, b], |b| b.math.as_ref(), |q| q.math.as_ref()),
        scoring: scoring::math,
        common: None,
    },
];

/// All metrics, by the names that conditions use.
pub fn all() -> impl Iterator<Item = &'static Metric> {
    QUALITY.iter().map(|quality| &quality.metric).chain(COST.iter().map(|cost| &cost.metric))
}
