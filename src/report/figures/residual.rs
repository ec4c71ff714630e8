//! What changes with the residual window: quality, speed, energy of caches that differ in nothing else.

use std::collections::{BTreeMap, BTreeSet};

use super::quality::tell_rise;
use super::{FINE, axis, tip_head};
use crate::report::advice::Bound;
use crate::report::chart::{Axis, Chart, NumberForm, Panel, Plot, Point, Points, Scale, Series};
use crate::report::group::{Group, Subject};
use crate::report::run::Run;
use crate::report::study::Row;
use crate::report::{label, number, scoring};

/// What was found at each window, by the name of the cache without its window and what it was measured on.
type Sweeps<T> = BTreeMap<(String, String), Vec<(usize, T)>>;

/// By the name of the cache without its window and what it was measured on, what was found at each window, the shortest first; at least
/// two of them.
fn sweeps<'r, T>(found: impl Iterator<Item = (&'r Run, String, T)>) -> Sweeps<T>
where
    T: 'r,
{
    let mut sweeps = Sweeps::new();
    for (run, on, value) in found.filter(|(run, ..)| run.quantized()) {
        if let Some(residual) = run.result.kv_quant.residual_length {
            sweeps.entry((label::without_residual(&run.cache), on)).or_default().push((residual, value));
        }
    }
    sweeps.retain(|_, values| values.iter().map(|(n, _)| n).collect::<BTreeSet<_>>().len() > 1);
    sweeps.values_mut().for_each(|values| values.sort_by_key(|(residual, _)| *residual));
    sweeps
}

/// A series for each sweep.
fn series<T>(group: &Group<'_>, sweeps: &Sweeps<T>, point: &dyn Fn(usize, &T) -> Option<Point>) -> Vec<Series> {
    let one = |((cache, on), values): (&(String, String), &Vec<(usize, T)>)| {
        let points = values.iter().filter_map(|(residual, value)| point(*residual, value)).collect();
        let name = if on.is_empty() { cache.clone() } else { format!("{cache}, {on}") };
        Series { name, colour: group.colour(cache), joined: true, points, ..Series::default() }
    };
    sweeps.iter().map(one).collect()
}

fn residual_axis() -> Axis {
    axis("residual window, tokens", Scale::Log2, NumberForm::Plain)
}

pub(super) fn quality(group: &Group<'_>, bound: &Bound) -> Chart {
    let panel = |subject: &Subject<'_>| {
        let runs: Vec<&Run> =
            subject.runs.iter().copied().filter(|run| run.quality.relative_rise().is_some()).collect();
        // Only what was scored on the same tokens is one curve.
        let scorings: Vec<_> = runs.iter().map(|run| scoring::ppl(&run.result)).collect();
        let over = scoring::telling(&scorings);
        let on = |at: usize| over.as_ref().map_or_else(String::new, |words| words[at].clone());
        let found = runs.iter().enumerate().map(|(at, &run)| (run, on(at), run));
        let series = series(group, &sweeps(found), &|residual, run| {
            let tip = format!("{} · {}\nresidual {residual} tokens\n{}", run.model, run.cache, tell_rise(run));
            let (y, interval) = (run.quality.relative_rise()?, run.quality.relative_interval());
            Some(Point { x: residual as f64, y, interval, tip, ..Point::default() })
        });
        let y = axis("rise of perplexity", Scale::Symlog(FINE), NumberForm::Percent);
        let rule = Some((bound.ppl_rise, "bound".into()));
        let plot = Plot::Points(Points { x: residual_axis(), y, series, rule });
        shown(Panel { title: subject.name.clone(), plot })
    };
    Chart {
        id: "residual_sweep".into(),
        title: "Perplexity over the residual window".into(),
        caption: "Rise of the perplexity as more of the latest tokens stay in full precision; bars: 95 % intervals of the paired \
                  difference. Only what was scored on the same tokens is joined."
            .into(),
        panels: group.scored.iter().filter_map(panel).collect(),
    }
}

/// A panel that has something to show.
fn shown(panel: Panel) -> Option<Panel> {
    let empty = matches!(&panel.plot, Plot::Points(points) if points.series.is_empty());
    (!empty).then_some(panel)
}

/// Panels of a cost at the context and batch where most caches were measured, the unquantized cache's beside it.
fn cost(group: &Group<'_>, (label, unit): (&str, &str), value: &dyn Fn(&Row<'_>) -> Option<f64>) -> Vec<Panel> {
    let tip = |row: &Row<'_>, y: f64| format!("{}\n{label} {} {unit}", tip_head(row), number::significant(y, 3));
    let panel = |subject: &Subject<'_>| {
        let (context, batch) = subject.common_ground()?;
        let rows = subject.caches().iter().filter_map(|cache| subject.row(cache, context, batch));
        let sweeps = sweeps(rows.filter_map(|row| Some((row.run, String::new(), (row, value(row)?)))));
        let mut series = series(group, &sweeps, &|residual, (row, y)| {
            let tip = format!("{}\nresidual {residual} tokens", tip(row, *y));
            Some(Point { x: residual as f64, y: *y, doubtful: row.spilled(), tip, ..Point::default() })
        });
        // It has no window: a line from the shortest to the longest.
        let lengths = || sweeps.values().flatten().map(|(residual, _)| *residual);
        if let (Some(cache), Some(shortest), Some(longest)) = (subject.baseline(), lengths().min(), lengths().max())
            && let Some(row) = subject.row(cache, context, batch)
            && let Some(y) = value(row)
        {
            let at = |x| Point { x: x as f64, y, doubtful: row.spilled(), tip: tip(row, y), ..Point::default() };
            let (name, colour, points) = (cache.to_string(), group.colour(cache), vec![at(shortest), at(longest)]);
            series.insert(0, Series { name, colour, joined: true, points, ..Series::default() });
        }
        let title = format!("{}, {} tokens", subject.name, number::tokens(context));
        let title = if batch == 1 { title } else { format!("{title}, batch {batch}") };
        let y = axis(&format!("{label}, {unit}"), Scale::Linear, NumberForm::Plain);
        shown(Panel { title, plot: Plot::Points(Points { x: residual_axis(), y, series, rule: None }) })
    };
    group.subjects.iter().filter_map(panel).collect()
}

pub(super) fn decode(group: &Group<'_>) -> Chart {
    Chart {
        id: "residual_decode".into(),
        title: "Decode speed over the residual window".into(),
        caption: "Generated tokens per second as more of the latest tokens stay in full precision; dashed: the unquantized cache."
            .into(),
        panels: cost(group, ("decode", "tokens/s"), &|row| row.decode_rate()),
    }
}

pub(super) fn energy(group: &Group<'_>) -> Chart {
    Chart {
        id: "residual_energy".into(),
        title: "Decode energy over the residual window".into(),
        caption:
            "Energy of the device per generated token as more of the latest tokens stay in full precision, idle power \
                  included; dashed: the unquantized cache."
                .into(),
        panels: cost(group, ("decode energy", "J/token"), &|row| row.energy_j()),
    }
}
