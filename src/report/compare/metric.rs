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
    /// What it is.
    pub about: &'static str,
    /// Unit of its values; empty for a plain number.
    pub unit: &'static str,
    /// Whether less is better.
    pub less_is_better: bool,
    /// Whether its change is a difference of rates (in points), not a relative change.
    pub points: bool,
    /// Its change between two measurements.
    pub cost: Option<fn(&Row<'_>, &Row<'_>) -> Option<Delta>>,
    /// The settings that it depends on, so that rows which differ in them measure different things.
    pub depends_on: &'static [Part],
    /// Whether it means nothing where device memory spilled to the host: it is a time, or what was spent in it.
    pub spill_matters: bool,
    /// Its change between two runs' quality, which must have been scored alike.
    pub quality: Option<fn(&Run, &Run) -> Outcome>,
    /// What a run's quality was scored on.
    pub scoring: scoring::Of,
    /// What two runs that were not scored alike have in common all the same.
    pub common: Option<fn(&Run, &Run) -> Option<Common>>,
}

impl Metric {
    /// Whether a row has a number of it: such a row can be held against itself.
    pub fn of_row(&self, row: &Row<'_>) -> bool {
        self.cost.is_some_and(|change| change(row, row).is_some())
    }

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

/// Metrics of a measurement (context and batch).
pub static COST: [Metric; 5] = [
    Metric {
        name: "kv",
        about: "size of the KV cache",
        unit: "bytes",
        less_is_better: true,
        points: false,
        cost: Some(|a, b| {
            let (base, new) = (a.cache_bytes()?, b.cache_bytes()?);
            exact(base, new, true)
        }),
        depends_on: &[Part::Output, Part::Chunk],
        spill_matters: false,
        quality: None,
        scoring: |_| None,
        common: None,
    },
    Metric {
        name: "memory",
        about: "peak device memory",
        unit: "bytes",
        less_is_better: true,
        points: false,
        cost: Some(|a, b| {
            let peak = |r: &Row<'_>| r.measured?.vram_peak_mb.map(|mb| mb * MIB);
            relative(peak(a)?, peak(b)?, None, true)
        }),
        depends_on: &[Part::Output, Part::Chunk],
        spill_matters: false,
        quality: None,
        scoring: |_| None,
        common: None,
    },
    Metric {
        name: "prefill",
        about: "prefill time",
        unit: "ms",
        less_is_better: true,
        points: false,
        cost: Some(|a, b| {
            let runs = |r: &Row<'_>| r.measured?.prefill_runs_ms.as_ref().map(|s| s.raw.clone());
            let interval = runs(a).zip(runs(b)).and_then(|(a, b)| stats::ratio_of_medians(&a, &b)?.interval);
            relative(a.measured?.prefill_ms?, b.measured?.prefill_ms?, interval, true)
        }),
        depends_on: &[Part::Chunk],
        spill_matters: true,
        quality: None,
        scoring: |_| None,
        common: None,
    },
    Metric {
        name: "decode",
        about: "generated tokens",
        unit: "tokens/s",
        less_is_better: false,
        points: false,
        cost: Some(|a, b| {
            let runs = |r: &Row<'_>| r.measured?.decode_runs_ms.as_ref().map(|s| s.raw.clone());
            let tokens = |r: &Row<'_>| r.measured.and_then(|m| m.decode_tokens);
            // The rate is the inverse of the time, so the sides change places.
            let same = tokens(a) == tokens(b);
            let runs = runs(a).zip(runs(b)).filter(|_| same);
            let interval = runs.and_then(|(a, b)| stats::ratio_of_medians(&b, &a)?.interval);
            relative(a.decode_rate()?, b.decode_rate()?, interval, false)
        }),
        depends_on: &[Part::Output],
        spill_matters: true,
        quality: None,
        scoring: |_| None,
        common: None,
    },
    Metric {
        name: "energy",
        about: "decode energy",
        unit: "J/token",
        less_is_better: true,
        points: false,
        cost: Some(|a, b| relative(a.energy_j()?, b.energy_j()?, None, true)),
        depends_on: &[Part::Output],
        spill_matters: true,
        quality: None,
        scoring: |_| None,
        common: None,
    },
];

/// Metrics of a run's quality.
pub static QUALITY: [Metric; 5] = [
    Metric {
        name: "ppl",
        about: "perplexity through the run's own cache",
        unit: "",
        less_is_better: true,
        points: false,
        cost: None,
        depends_on: &[],
        spill_matters: false,
        quality: Some(|a, b| Ok(perplexity(a, b))),
        scoring: scoring::ppl,
        common: None,
    },
    Metric {
        name: "kld",
        about: "mean KL divergence from the unquantized cache",
        unit: "nats",
        less_is_better: true,
        points: false,
        cost: None,
        depends_on: &[],
        spill_matters: false,
        quality: Some(|a, b| Ok(divergence(a, b))),
        scoring: scoring::kld,
        common: None,
    },
    Metric {
        name: "needle",
        about: "share of needles found",
        unit: "",
        less_is_better: false,
        points: true,
        cost: None,
        depends_on: &[],
        spill_matters: false,
        quality: Some(needle),
        scoring: scoring::needle,
        common: Some(needles::common),
    },
    Metric {
        name: "mmlu",
        about: "MMLU accuracy",
        unit: "",
        less_is_better: false,
        points: true,
        cost: None,
        depends_on: &[],
        spill_matters: false,
        quality: Some(|a, b| questions([a, b], |b| b.mmlu.as_ref(), |q| q.mmlu.as_ref())),
        scoring: scoring::mmlu,
        common: None,
    },
    Metric {
        name: "math",
        about: "MATH accuracy",
        unit: "",
        less_is_better: false,
        points: true,
        cost: None,
        depends_on: &[],
        spill_matters: false,
        quality: Some(|a, b| questions([a, b], |b| b.math.as_ref(), |q| q.math.as_ref())),
        scoring: scoring::math,
        common: None,
    },
];

/// All metrics, by the names that conditions use.
pub fn all() -> impl Iterator<Item = &'static Metric> {
    QUALITY.iter().chain(&COST)
}
