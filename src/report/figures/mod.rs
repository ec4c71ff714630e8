//! The figures of a report, as values.

mod cost;
mod quality;
mod residual;
mod timeline;
mod tradeoff;

use super::advice::Bound;
use super::chart::{Axis, Chart, NumberForm, Panel, Plot, Point, Points, Scale, Series};
use super::group::{Group, Subject};
use super::number;
use super::study::Row;

/// Most panels in one figure; more make further figures.
const PANELS: usize = 12;
/// Rise of the perplexity below which the axis is linear.
const FINE: f64 = 0.001;

/// What the figures of a report are called, whether or not it has data for them.
const IDS: [&str; 15] = [
    "pareto_memory",
    "pareto_speed",
    "memory_vs_context",
    "peak_memory_vs_context",
    "memory_over_time",
    "decode_vs_context",
    "prefill_vs_context",
    "kernel_categories",
    "energy_vs_context",
    "delta_ppl",
    "kld_by_position",
    "residual_sweep",
    "residual_decode",
    "residual_energy",
    "needle_grid",
];

/// Whether a report can have a figure called `id`, or a part of one as [`split`] numbers them.
pub fn can_be_called(id: &str) -> bool {
    let whole = id.rsplit_once('_').filter(|(_, number)| number.parse::<usize>().is_ok());
    IDS.contains(&id) || whole.is_some_and(|(whole, _)| IDS.contains(&whole))
}

/// All figures that `group` has data for, in the order of the report.
pub fn all(group: &Group<'_>, bound: &Bound) -> Vec<Chart> {
    composed(group, bound).into_iter().filter(|chart| !chart.panels.is_empty()).flat_map(split).collect()
}

/// The figures of [`IDS`], those without panels among them.
fn composed(group: &Group<'_>, bound: &Bound) -> [Chart; 15] {
    [
        tradeoff::memory(group, bound),
        tradeoff::speed(group, bound),
        cost::memory(group),
        cost::peak_memory(group),
        timeline::memory(group),
        cost::decode(group),
        cost::prefill(group),
        cost::kernels(group),
        cost::energy(group),
        quality::delta_ppl(group),
        quality::kld_by_position(group),
        residual::quality(group, bound),
        residual::decode(group),
        residual::energy(group),
        quality::needle_grid(group),
    ]
}

/// A chart with more panels than a page holds, as several.
fn split(chart: Chart) -> Vec<Chart> {
    if chart.panels.len() <= PANELS {
        return vec![chart];
    }
    let pages = chart.panels.len().div_ceil(PANELS);
    let part = |(i, panels): (usize, &[Panel])| Chart {
        id: format!("{}_{}", chart.id, i + 1),
        title: format!("{} ({} of {pages})", chart.title, i + 1),
        caption: chart.caption.clone(),
        panels: panels.to_vec(),
    };
    chart.panels.chunks(PANELS).enumerate().map(part).collect()
}

fn axis(label: &str, scale: Scale, form: NumberForm) -> Axis {
    Axis { label: label.into(), scale, form }
}

fn context_axis() -> Axis {
    axis("context, tokens", Scale::Log2, NumberForm::Tokens)
}

/// What a mark says on its first line.
fn tip_head(row: &Row<'_>) -> String {
    let context = row.context().map_or_else(String::new, |c| format!(" · {} tokens", number::tokens(c)));
    let batch = row.batch().filter(|b| *b != 1).map_or_else(String::new, |b| format!(" · batch {b}"));
    format!("{} · {}{context}{batch}", row.run.model, row.run.cache)
}

/// A value over the context length: one panel for each subject and batch size, one series for each cache.
struct OverContext<'a> {
    group: &'a Group<'a>,
    y: &'a dyn Fn(f64) -> (Axis, f64),
    value: &'a dyn Fn(&Row<'_>) -> Option<f64>,
    interval: &'a dyn Fn(&Row<'_>) -> Option<(f64, f64)>,
    tell: &'a dyn Fn(&Row<'_>, f64) -> String,
    /// Whether a measurement in spilled memory is doubtful in this figure.
    spill_matters: bool,
}

impl OverContext<'_> {
    fn panels(&self) -> Vec<Panel> {
        let subjects = self.group.subjects.iter();
        subjects.flat_map(|s| s.batches().into_iter().filter_map(|batch| self.panel(s, batch))).collect()
    }

    fn panel(&self, subject: &Subject<'_>, batch: usize) -> Option<Panel> {
        let highest = subject.rows.iter().filter_map(|r| (self.value)(r)).fold(0.0, f64::max);
        let (y, unit) = (self.y)(highest);
        let mut series = Vec::new();
        for &cache in subject.main_caches() {
            let rows = subject.rows.iter().filter(|r| r.run.cache == cache && r.batch() == Some(batch));
            let points: Vec<Point> = rows.filter_map(|row| self.point(row, unit)).collect();
            if !points.is_empty() {
                let colour = self.group.colour(cache);
                series.push(Series { name: cache.into(), colour, joined: true, points, ..Series::default() });
            }
        }
        let several = subject.batches().len() > 1 || batch != 1;
        let title = if several { format!("{}, batch {batch}", subject.name) } else { subject.name.clone() };
        (!series.is_empty())
            .then(|| Panel { title, plot: Plot::Points(Points { x: context_axis(), y, series, rule: None }) })
    }

    fn point(&self, row: &Row<'_>, unit: f64) -> Option<Point> {
        let (x, y) = (row.context()? as f64, (self.value)(row)?);
        let doubtful = self.spill_matters && row.spilled();
        let mut tip = format!("{}\n{}", tip_head(row), (self.tell)(row, y));
        if row.spilled() {
            tip.push_str("\ndevice memory did not suffice: part of it was in the host's");
        }
        let interval = (self.interval)(row).map(|(low, high)| (low / unit, high / unit));
        Some(Point { x, y: y / unit, interval, doubtful, tip, ..Point::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::super::study::Study;
    use super::*;

    #[test]
    fn every_figure_has_its_name_in_the_list_and_so_have_its_parts() {
        let study = Study::default();
        let charts = composed(&Group::of(&study), &Bound::default());
        assert_eq!(charts.map(|chart| chart.id), IDS);
        assert!(can_be_called("delta_ppl") && can_be_called("delta_ppl_12"));
        for other in ["delta", "delta_ppl_", "delta_ppl_old", "delta_ppl_2_2", "my_delta_ppl", ""] {
            assert!(!can_be_called(other), "{other}");
        }
    }
}
