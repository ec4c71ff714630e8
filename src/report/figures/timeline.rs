//! Memory while a prompt is read and tokens are generated (`--memory-timeline`).

use super::cost::{at_busiest_place, bytes_axis};
use super::{axis, tip_head};
use crate::report::chart::{Chart, NumberForm, Panel, Plot, Point, Points, Scale, Series};
use crate::report::group::{Group, Subject};
use crate::report::number;
use crate::report::study::Row;
use crate::schema::MemoryTimeline;

pub(super) fn memory(group: &Group<'_>) -> Chart {
    Chart {
        id: "memory_over_time".into(),
        title: "Memory over time".into(),
        caption: "Memory in tensors (on a CPU: of the process) during one run that was not timed, at the context where most caches were \
                  so recorded. Marks: where decoding began, and the peak."
            .into(),
        panels: group.subjects.iter().filter_map(|subject| panel(group, subject)).collect(),
    }
}

fn timeline<'r>(row: &Row<'r>) -> Option<&'r MemoryTimeline> {
    row.measured?.memory.as_ref()?.timeline.as_ref().filter(|timeline| !timeline.samples.is_empty())
}

fn panel(group: &Group<'_>, subject: &Subject<'_>) -> Option<Panel> {
    let (rows, title) = at_busiest_place(subject, &|row| timeline(row).is_some())?;
    let samples = rows.iter().filter_map(|row| timeline(row)).flat_map(|timeline| &timeline.samples);
    let (y, unit) = bytes_axis("memory", samples.map(|sample| sample.used_bytes as f64).fold(0.0, f64::max));
    let series = rows.iter().filter_map(|row| {
        let points = points(row, timeline(row)?, unit);
        let (name, colour) = (row.run.cache.clone(), group.colour(&row.run.cache));
        Some(Series { name, colour, joined: true, points, ..Series::default() })
    });
    let x = axis("time, ms", Scale::Linear, NumberForm::Plain);
    Some(Panel { title, plot: Plot::Points(Points { x, y, series: series.collect(), rule: None }) })
}

/// The samples as the bends of a line, of which the first after decoding began and the first of the largest are marked.
fn points(row: &Row<'_>, timeline: &MemoryTimeline, unit: f64) -> Vec<Point> {
    let samples = &timeline.samples;
    let began = samples.iter().position(|sample| sample.ms >= timeline.decode_began_ms);
    let most = samples.iter().map(|sample| sample.used_bytes).max();
    let peak = samples.iter().position(|sample| Some(sample.used_bytes) == most);
    let marked = |i: usize| match (began == Some(i), peak == Some(i)) {
        (true, true) => Some("the peak, as decoding began"),
        (true, false) => Some("decoding began"),
        (false, true) => Some("the peak"),
        (false, false) => None,
    };
    let point = |(i, sample): (usize, &crate::schema::MemorySample)| {
        let (bytes, ms) = (sample.used_bytes as f64, number::significant(sample.ms, 3));
        let tip = marked(i).map_or_else(String::new, |what| {
            format!("{}\n{what}: {} after {ms} ms", tip_head(row), number::bytes(bytes))
        });
        Point { x: sample.ms, y: bytes / unit, unmarked: marked(i).is_none(), tip, ..Point::default() }
    };
    samples.iter().enumerate().map(point).collect()
}
