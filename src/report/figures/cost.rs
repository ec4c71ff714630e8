//! What a cache costs: memory, time, kernels, energy.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::{OverContext, axis};
use crate::base::stats::Summary;
use crate::report::chart::{Axis, Bar, Bars, Chart, NumberForm, Panel, Plot, Scale};
use crate::report::group::{Group, Subject};
use crate::report::kernels::CATEGORIES;
use crate::report::number;
use crate::report::study::{MIB, Row};

/// Axis of sizes up to `highest` bytes, and the unit's bytes.
pub(super) fn bytes_axis(what: &str, highest: f64) -> (Axis, f64) {
    let (name, unit) = match highest {
        h if h >= 4.0 * 1024.0 * MIB => ("GiB", 1024.0 * MIB),
        h if h >= MIB => ("MiB", MIB),
        _ => ("KiB", 1024.0),
    };
    (axis(&format!("{what}, {name}"), Scale::Linear, NumberForm::Plain), unit)
}

pub(super) fn memory(group: &Group<'_>) -> Chart {
    let over = OverContext {
        group,
        y: &|highest| bytes_axis("KV cache", highest),
        value: &|row| row.cache_bytes(),
        interval: &|_| None,
        tell: &|_, bytes| format!("KV cache {}", number::bytes(bytes)),
        spill_matters: false,
    };
    Chart {
        id: "memory_vs_context".into(),
        title: "KV cache size over context".into(),
        caption: "Bytes of the cache (codes, parameters, full-precision window and scratch) for each context length."
            .into(),
        panels: over.panels(),
    }
}

pub(super) fn peak_memory(group: &Group<'_>) -> Chart {
    let over = OverContext {
        group,
        y: &|highest| bytes_axis("peak memory", highest),
        value: &|row| row.measured?.vram_peak_mb.map(|mb| mb * MIB),
        interval: &|_| None,
        tell: &|_, bytes| format!("peak memory {}", number::bytes(bytes)),
        spill_matters: true,
    };
    Chart {
        id: "peak_memory_vs_context".into(),
        title: "Peak memory over context".into(),
        caption: "Highest memory in use: weights, cache, activations. Hollow marks: more than the card has.".into(),
        panels: over.panels(),
    }
}

pub(super) fn decode(group: &Group<'_>) -> Chart {
    let over = OverContext {
        group,
        y: &|_| (axis("decode, tokens/s", Scale::Linear, NumberForm::Plain), 1.0),
        value: &|row| row.decode_rate(),
        interval: &|row| {
            let (runs, tokens) = (row.measured?.decode_runs_ms.as_ref()?, row.measured?.decode_tokens?);
            let rate = |ms: f64| (ms > 0.0).then(|| tokens as f64 * row.batch().unwrap_or(1) as f64 / ms * 1e3);
            repeated(runs).then(|| Some((rate(runs.p90)?, rate(runs.p10)?)))?
        },
        tell: &|row, rate| {
            let steps = row.measured.and_then(|m| m.steps.as_ref());
            let steps = steps.map_or_else(String::new, |s| {
                let flush =
                    s.flush_mean_ms.map_or_else(String::new, |ms| format!(", flush {} ms", number::significant(ms, 3)));
                format!(
                    "\nstep median {} ms, p99 {} ms{flush}",
                    number::significant(s.median_ms, 3),
                    number::significant(s.p99_ms, 3)
                )
            });
            format!("decode {} tokens/s{steps}", number::significant(rate, 3))
        },
        spill_matters: true,
    };
    Chart {
        id: "decode_vs_context".into(),
        title: "Decode speed over context".into(),
        caption: "Generated tokens per second, median of the repeats; bars: 10th to 90th percentile. Hollow marks: device memory did \
                  not suffice, so the time is the host link's."
            .into(),
        panels: over.panels(),
    }
}

pub(super) fn prefill(group: &Group<'_>) -> Chart {
    let over = OverContext {
        group,
        y: &|_| (axis("prefill, ms", Scale::Log10, NumberForm::Plain), 1.0),
        value: &|row| row.measured?.prefill_ms.filter(|ms| *ms > 0.0),
        interval: &|row| {
            let runs = row.measured?.prefill_runs_ms.as_ref()?;
            repeated(runs).then_some((runs.p10, runs.p90))
        },
        tell: &|_, ms| format!("prefill {} ms", number::significant(ms, 4)),
        spill_matters: true,
    };
    Chart {
        id: "prefill_vs_context".into(),
        title: "Prefill time over context".into(),
        caption: "Time from the prompt to the first token, median of the repeats; bars: 10th to 90th percentile."
            .into(),
        panels: over.panels(),
    }
}

pub(super) fn energy(group: &Group<'_>) -> Chart {
    let over = OverContext {
        group,
        y: &|highest| {
            let (name, unit) = if highest >= 1.0 { ("J", 1.0) } else { ("mJ", 1e-3) };
            (axis(&format!("decode energy, {name}/token"), Scale::Linear, NumberForm::Plain), unit)
        },
        value: &|row| row.energy_j(),
        interval: &|_| None,
        tell: &|row, joules| {
            let window = row.measured.and_then(|m| m.energy.as_ref()).and_then(|e| e.decode.as_ref());
            let window = window.map_or_else(String::new, |w| {
                let short = if w.short { ", window under 0.5 s" } else { "" };
                format!("\nmean power {} W{short}", number::significant(w.mean_w, 3))
            });
            format!("{} J per generated token{window}", number::significant(joules, 3))
        },
        spill_matters: true,
    };
    Chart {
        id: "energy_vs_context".into(),
        title: "Decode energy over context".into(),
        caption: "Energy of the device per generated token, idle power included.".into(),
        panels: over.panels(),
    }
}

fn repeated(runs: &Summary) -> bool {
    runs.raw.len() > 1
}

pub(super) fn kernels(group: &Group<'_>) -> Chart {
    Chart {
        id: "kernel_categories".into(),
        title: "Kernel time of a decode step by category".into(),
        caption:
            "Kernel time of a decode step in the traced pass, at the context where most caches were traced. Quantizing counts as \
                  dequantization."
                .into(),
        panels: group.subjects.iter().filter_map(kernel_panel).collect(),
    }
}

fn kernel_panel(subject: &Subject<'_>) -> Option<Panel> {
    let traced = |row: &Row<'_>| row.measured.and_then(|m| m.kernels.as_ref()).is_some_and(|k| k.decode.is_some());
    let (rows, title) = at_busiest_place(subject, &traced)?;
    let bars: Vec<Bar> = rows.into_iter().filter_map(kernel_bar).collect();
    let parts = CATEGORIES.map(String::from).to_vec();
    let x = axis("kernel time, ms per step", Scale::Linear, NumberForm::Plain);
    Some(Panel { title, plot: Plot::Bars(Bars { x, parts, bars }) })
}

/// The measurements of the main caches that `shown` accepts at the context and batch where it accepts most, and a panel's title that
/// names the place. Of several places, the longest context, then the smallest batch.
pub(super) fn at_busiest_place<'a, 'g>(
    subject: &'a Subject<'g>,
    shown: &dyn Fn(&Row<'_>) -> bool,
) -> Option<(Vec<&'a Row<'g>>, String)> {
    let place = |row: &Row<'_>| (row.context(), Reverse(row.batch()));
    let mut places: BTreeMap<(Option<usize>, Reverse<Option<usize>>), usize> = BTreeMap::new();
    for row in subject.rows.iter().filter(|row| shown(row)) {
        *places.entry(place(row)).or_default() += 1;
    }
    let (busiest, _) = places.into_iter().max_by_key(|(place, caches)| (*caches, *place))?;
    let main = subject.main_caches();
    let rows = subject.rows.iter().filter(|row| main.contains(&row.run.cache.as_str()));
    let rows = rows.filter(|row| shown(row) && place(row) == busiest).collect();
    let context = busiest.0.map_or_else(String::new, |c| format!(", {} tokens", number::tokens(c)));
    let batch = busiest.1.0.filter(|b| *b != 1).map_or_else(String::new, |b| format!(", batch {b}"));
    Some((rows, format!("{}{context}{batch}", subject.name)))
}

fn kernel_bar(row: &Row<'_>) -> Option<Bar> {
    let m = row.measured?;
    let phase = m.kernels.as_ref()?.decode.as_ref()?;
    let steps = m.decode_tokens.filter(|t| *t > 0)? as f64;
    // A category that this version does not know is part of `other`.
    let of = |name: &'static str| {
        phase
            .categories
            .iter()
            .filter(move |(key, _)| key.as_str() == name || (name == "other" && !CATEGORIES.contains(&key.as_str())))
    };
    let values: Vec<f64> = CATEGORIES.iter().map(|name| of(name).map(|(_, c)| c.ms).sum::<f64>() / steps).collect();
    let total: f64 = values.iter().sum();
    let tips = CATEGORIES
        .iter()
        .zip(&values)
        .map(|(name, ms)| {
            let share = if total > 0.0 { ms / total * 100.0 } else { 0.0 };
            let launches = of(name).fold(0u64, |sum, (_, c)| sum.saturating_add(c.count));
            let ms = number::significant(*ms, 3);
            format!(
                "{} · {name}\n{ms} ms per step, {share:.0} % of kernel time\n{launches} launches in {steps} steps",
                row.run.cache
            )
        })
        .collect();
    Some(Bar { name: row.run.cache.clone(), values, tips })
}
