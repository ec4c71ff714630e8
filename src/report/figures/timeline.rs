//! Memory while a prompt is read and tokens are generated (`--memory-timeline`).

use super::cost::{at_busiest_place, bytes_axis};
use super::{axis, tip_head};
use crate::report::chart::{Chart, NumberForm, Panel, Plot, Point, Points, Scale, Series};
use crate::report::group::{Group, Subject};
use crate::report::number;
use crate::report::study::Row;
use crate::schema::{MemorySample, MemoryTimeline};

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

/// A bend of the line: when, how much, and what is to be said of it.
struct Bend {
    ms: f64,
    bytes: u64,
    mark: Option<&'static str>,
}

/// The samples as the bends of a line, the first of the largest marked, and between them the moment at which decoding began: there the
/// line has what was last seen before.
fn bends(timeline: &MemoryTimeline) -> Vec<Bend> {
    let samples = &timeline.samples;
    let most = samples.iter().map(|sample| sample.used_bytes).max();
    let peak = samples.iter().position(|sample| Some(sample.used_bytes) == most);
    let mark = |at: usize| (peak == Some(at)).then_some("the peak");
    let bend = |(at, s): (usize, &MemorySample)| Bend { ms: s.ms, bytes: s.used_bytes, mark: mark(at) };
    let mut bends: Vec<Bend> = samples.iter().enumerate().map(bend).collect();
    let before = samples.partition_point(|sample| sample.ms <= timeline.decode_began_ms);
    if let Some(seen) = samples.get(before.saturating_sub(1)) {
        let mark = Some("decoding began");
        bends.insert(before, Bend { ms: timeline.decode_began_ms, bytes: seen.used_bytes, mark });
    }
    bends
}

fn points(row: &Row<'_>, timeline: &MemoryTimeline, unit: f64) -> Vec<Point> {
    let point = |Bend { ms, bytes, mark }: Bend| {
        let tip = mark.map_or_else(String::new, |what| {
            let (bytes, ms) = (number::bytes(bytes as f64), number::significant(ms, 3));
            format!("{}\n{what}: {bytes} after {ms} ms", tip_head(row))
        });
        Point { x: ms, y: bytes as f64 / unit, unmarked: mark.is_none(), tip, ..Point::default() }
    };
    bends(timeline).into_iter().map(point).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(decode_began_ms: f64, samples: &[(f64, u64)]) -> Vec<(f64, u64, &'static str)> {
        let sample = |&(ms, used_bytes): &(f64, u64)| MemorySample { ms, used_bytes, ..Default::default() };
        let timeline = MemoryTimeline { decode_began_ms, samples: samples.iter().map(sample).collect() };
        let bends = bends(&timeline);
        assert!(bends.windows(2).all(|pair| pair[0].ms <= pair[1].ms));
        bends.iter().filter_map(|bend| Some((bend.ms, bend.bytes, bend.mark?))).collect()
    }

    #[test]
    fn the_mark_of_decoding_stands_where_decoding_began() {
        // Samples that agree with both neighbours are left out, so that the next one may be far away.
        let samples = [(0.0, 10), (40.0, 30), (900.0, 30), (902.0, 20)];
        assert_eq!(marks(100.0, &samples), [(40.0, 30, "the peak"), (100.0, 30, "decoding began")]);
        assert_eq!(marks(40.0, &samples)[1], (40.0, 30, "decoding began"));
        assert_eq!(marks(950.0, &samples)[1], (950.0, 20, "decoding began"));
        assert_eq!(marks(1.0, &[]), []);
    }
}
