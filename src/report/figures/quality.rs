//! What a cache breaks: perplexity, distributions, needles.

use std::collections::{BTreeMap, BTreeSet};

use super::{FINE, axis};
use crate::base::stats::{Estimate, blocks};
use crate::report::chart::{Chart, Heat, HeatCell, NumberForm, Panel, Plot, Point, Points, Scale, Series};
use crate::report::group::{Group, Subject};
use crate::report::number::Digits;
use crate::report::run::Run;
use crate::report::{font, number};

/// Rise of the perplexity, in words.
pub(super) fn tell_rise(run: &Run) -> String {
    let quality = &run.quality;
    let (Some(reference), Some(ppl)) = (quality.ppl_reference, quality.ppl()) else { return String::new() };
    let Some(rise) = quality.relative_rise() else { return format!("perplexity {}", number::significant(ppl, 4)) };
    let interval = quality.relative_interval().map_or_else(String::new, |(low, high)| {
        let shown = |v| number::shown(v, Digits::SignedPercent(2));
        format!(" (95 %: {} to {})", shown(low), shown(high))
    });
    let [before, after] = [reference, ppl].map(|v| number::significant(v, 5));
    format!("perplexity {before} → {after}: {}{interval}", number::shown(rise, Digits::SignedPercent(2)))
        .replace('→', "to")
}

pub(super) fn delta_ppl(group: &Group<'_>) -> Chart {
    let caches: Vec<String> = group
        .caches
        .iter()
        .filter(|cache| {
            let tells = |s: &Subject<'_>| s.run(cache).is_some_and(|run| run.quality.delta_ppl().is_some());
            group.scored.iter().any(|s| s.main_caches().contains(&cache.as_str()) && tells(s))
        })
        .cloned()
        .collect();
    let subjects: Vec<&Subject<'_>> =
        group.scored.iter().filter(|s| s.runs.iter().any(|run| run.quality.delta_ppl().is_some())).collect();
    let cell = |subject: &Subject<'_>, cache: &String| {
        let run = subject.run(cache)?;
        let (delta, rise) = (run.quality.delta_ppl()?, run.quality.relative_rise()?);
        // Light up to a rise of 0.1 %, dark from 100 %.
        let shade = ((rise.max(FINE) / FINE).log10() / 3.0).clamp(0.0, 1.0);
        let decimals = if delta.abs() < 9.95 { 3 } else { 1 };
        let text = number::shown(delta, Digits::Signed(decimals));
        Some(HeatCell { shade, text, tip: format!("{} · {cache}\n{}", subject.name, tell_rise(run)) })
    };
    let heat = |columns: &[String], title: String| Panel {
        title,
        plot: Plot::Heat(Heat {
            x_label: "cache".into(),
            y_label: "model".into(),
            columns: columns.to_vec(),
            rows: subjects.iter().map(|s| s.name.clone()).collect(),
            cells: subjects.iter().map(|s| columns.iter().map(|c| cell(s, c)).collect()).collect(),
            ends: ("≤ +0.1 %".into(), "≥ +100 %".into()),
        }),
    };
    // As many columns as the longest unbreakable piece of a name leaves room for.
    let pieces = caches.iter().flat_map(|c| c.split_inclusive(['-', ',', ' ', '/']));
    let widest = pieces.map(|piece| font::width(piece, 12.0, false)).fold(24.0, f64::max);
    let columns = ((240.0 / (widest + 6.0)) as usize).clamp(1, 6);
    let panels =
        caches.chunks(columns).map(|part| heat(part, "Perplexity less the unquantized cache's".into())).collect();
    Chart {
        id: "delta_ppl".into(),
        title: "What quantizing does to perplexity".into(),
        caption: "ΔPPL: perplexity through the quantized cache less that of the unquantized cache on the same tokens. The colour \
                  shows the relative rise on a logarithmic scale."
            .into(),
        panels,
    }
}

pub(super) fn kld_by_position(group: &Group<'_>) -> Chart {
    let panel = |subject: &Subject<'_>| {
        let shown = subject.main_caches();
        let series: Vec<Series> = subject
            .runs
            .iter()
            .filter(|run| shown.contains(&run.cache.as_str()))
            .filter_map(|run| {
                let kld = run.quality.kld.as_ref()?;
                let points: Vec<Point> = kld
                    .by_position
                    .iter()
                    .filter(|bin| bin.mean > 0.0)
                    .map(|bin| {
                        let blocks = kld.blocks.map_or(0, |_| blocks(bin.tokens));
                        let interval =
                            bin.standard_error.map(|error| Estimate { value: bin.mean, error, blocks }.interval());
                        let top = bin
                            .top1_agreement
                            .map_or_else(String::new, |share| format!("\nsame top token {:.1} %", share * 100.0));
                        // Older files do not have the maximum by position.
                        let tail = [("p99", bin.p99), ("max", bin.max)].map(|(name, value)| {
                            value.map_or_else(String::new, |v| format!(", {name} {}", number::significant(v, 3)))
                        });
                        let tail = tail.concat();
                        let tip = format!(
                            "{} · {}\npositions {} to {}: mean KL {} nats{tail}{top}",
                            run.model,
                            run.cache,
                            bin.from,
                            bin.to,
                            number::significant(bin.mean, 3)
                        );
                        Point {
                            x: (bin.from as f64 + bin.to as f64) / 2.0,
                            y: bin.mean,
                            interval,
                            tip,
                            ..Point::default()
                        }
                    })
                    .collect();
                let colour = group.colour(&run.cache);
                (!points.is_empty()).then(|| Series {
                    name: run.cache.clone(),
                    colour,
                    joined: true,
                    points,
                    ..Series::default()
                })
            })
            .collect();
        let x = axis("position in the window, tokens", Scale::Linear, NumberForm::Plain);
        let y = axis("mean KL divergence, nats", Scale::Log10, NumberForm::Plain);
        let plot = Plot::Points(Points { x, y, series, rule: None });
        let empty = matches!(&plot, Plot::Points(p) if p.series.is_empty());
        (!empty).then(|| Panel { title: subject.name.clone(), plot })
    };
    Chart {
        id: "kld_by_position".into(),
        title: "Divergence by position".into(),
        caption: "Mean KL(unquantized ‖ quantized) of the next-token distributions, by position in the window; bars: 95 % intervals, to the foot of the panel \
                  where they reach 0."
            .into(),
        panels: group.scored.iter().filter_map(panel).collect(),
    }
}

pub(super) fn needle_grid(group: &Group<'_>) -> Chart {
    let panels = |s: &Subject<'_>| {
        let shown = s.main_caches();
        let runs = s.runs.iter().filter(|run| shown.contains(&run.cache.as_str()));
        runs.filter_map(|run| needle_panel(&s.name, run)).collect::<Vec<_>>()
    };
    let panels = group.scored.iter().flat_map(panels).collect();
    Chart {
        id: "needle_grid".into(),
        title: "Needle in a haystack".into(),
        caption: "Share of trials in which the number hidden at each depth of each context length was found.".into(),
        panels,
    }
}

fn needle_panel(subject: &str, run: &Run) -> Option<Panel> {
    let trials = run.result.benchmarks.needle_in_haystack_trials.as_ref()?;
    // Depths in thousandths, so that they order and compare exactly.
    let depth = |d: f64| (d * 1000.0).round() as i64;
    let mut cells: BTreeMap<(i64, usize), (usize, usize)> = BTreeMap::new();
    for trial in trials {
        let cell = cells.entry((depth(trial.depth_percent), trial.context_length)).or_default();
        cell.0 += usize::from(trial.success);
        cell.1 += 1;
    }
    let depths: BTreeSet<i64> = cells.keys().map(|(d, _)| *d).collect();
    let contexts: BTreeSet<usize> = cells.keys().map(|(_, c)| *c).collect();
    let cell = |d: i64, c: usize| {
        let (found, of) = *cells.get(&(d, c))?;
        let rate = found as f64 / of as f64;
        let depth = number::significant(d as f64 / 10.0, 2);
        let tip =
            format!("{subject} · {}\n{} tokens, depth {depth} %: found {found} of {of}", run.cache, number::tokens(c));
        // Dark marks what is lost.
        Some(HeatCell { shade: 1.0 - rate, text: format!("{found}/{of}"), tip })
    };
    let heat = Heat {
        x_label: "context, tokens".into(),
        y_label: "depth of the needle".into(),
        columns: contexts.iter().map(|c| number::tokens(*c)).collect(),
        rows: depths.iter().map(|d| format!("{} %", number::significant(*d as f64 / 10.0, 2))).collect(),
        cells: depths.iter().map(|d| contexts.iter().map(|c| cell(*d, *c)).collect()).collect(),
        ends: ("all found".into(), "none found".into()),
    };
    (!cells.is_empty()).then(|| Panel { title: format!("{subject} · {}", run.cache), plot: Plot::Heat(heat) })
}
