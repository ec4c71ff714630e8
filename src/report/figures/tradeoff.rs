//! Quality against memory and against speed: which caches no other one beats on both.

use super::quality::tell_rise;
use super::{FINE, axis};
use crate::report::advice::Bound;
use crate::report::chart::{Axis, Chart, NumberForm, Panel, Plot, Point, Points, Scale, Series};
use crate::report::group::{Group, Subject};
use crate::report::number;
use crate::report::study::{MIB, Row};

/// Most caches that a legend names; of more, only those that no other beats.
const MOST_NAMES: usize = 16;

pub(super) fn memory(group: &Group<'_>, bound: &Bound) -> Chart {
    let figure = Figure {
        group,
        bound,
        x: axis("KV cache, MiB", Scale::Log2, NumberForm::Plain),
        value: &|row| row.cache_bytes().filter(|b| *b > 0.0).map(|b| b / MIB),
        smaller_is_better: true,
        tell: &|mib| format!("KV cache {}", number::bytes(mib * MIB)),
    };
    Chart {
        id: "pareto_memory".into(),
        title: "Quality against memory".into(),
        caption: "Rise of the perplexity over the size of the cache; lower left is better. The line joins the caches that no other \
                  beats on both (of many caches only these are named); bars: 95 % intervals; dashed: the bound on quality."
            .into(),
        panels: figure.panels(),
    }
}

pub(super) fn speed(group: &Group<'_>, bound: &Bound) -> Chart {
    let figure = Figure {
        group,
        bound,
        x: axis("decode, tokens/s", Scale::Linear, NumberForm::Plain),
        value: &|row| row.decode_rate(),
        smaller_is_better: false,
        tell: &|rate| format!("decode {} tokens/s", number::significant(rate, 3)),
    };
    Chart {
        id: "pareto_speed".into(),
        title: "Quality against speed".into(),
        caption: "Rise of the perplexity over the decode rate; lower right is better. The line joins the caches that no other beats on \
                  both (of many caches only these are named); bars: 95 % intervals; dashed: the bound on quality."
            .into(),
        panels: figure.panels(),
    }
}

struct Figure<'a> {
    group: &'a Group<'a>,
    bound: &'a Bound,
    x: Axis,
    value: &'a dyn Fn(&Row<'_>) -> Option<f64>,
    smaller_is_better: bool,
    tell: &'a dyn Fn(f64) -> String,
}

impl Figure<'_> {
    fn panels(&self) -> Vec<Panel> {
        self.group.subjects.iter().filter_map(|s| self.panel(s)).collect()
    }

    fn panel(&self, subject: &Subject<'_>) -> Option<Panel> {
        let (context, batch) = subject.common_ground()?;
        let mut series = Vec::new();
        for &cache in subject.caches() {
            let Some(row) = subject.row(cache, context, batch).filter(|row| !row.spilled()) else { continue };
            let (Some(x), Some(run)) = ((self.value)(row), subject.run(cache)) else { continue };
            let rise =
                if run.quantized() { run.quality.relative_rise() } else { run.quality.ppl_reference.map(|_| 0.0) };
            let Some(y) = rise else { continue };
            let tip = format!("{} · {cache}\n{}\n{}", subject.name, (self.tell)(x), tell_rise(run));
            let point = Point { x, y, interval: run.quality.relative_interval(), tip, ..Point::default() };
            let colour = self.group.colour(cache);
            series.push(Series { name: cache.into(), colour, points: vec![point], ..Series::default() });
        }
        // One cache has nothing to be compared with.
        if series.len() < 2 {
            return None;
        }
        let front = front(series.iter().flat_map(|s| &s.points), self.smaller_is_better);
        if series.len() > MOST_NAMES {
            let on_front = |point: &Point| front.iter().any(|best| (best.x, best.y) == (point.x, point.y));
            for beaten in series.iter_mut().filter(|s| !s.points.iter().any(on_front)) {
                beaten.name.clear();
            }
        }
        series.insert(0, Series { joined: true, bare: true, points: front, ..Series::default() });
        let batch = if batch == 1 { String::new() } else { format!(", batch {batch}") };
        Some(Panel {
            title: format!("{}, {} tokens{batch}", subject.name, number::tokens(context)),
            plot: Plot::Points(Points {
                x: self.x.clone(),
                y: axis("rise of perplexity", Scale::Symlog(FINE), NumberForm::Percent),
                series,
                rule: Some((self.bound.ppl_rise, "bound".into())),
            }),
        })
    }
}

/// The points that no other beats in both directions, in order of x.
fn front<'a>(points: impl Iterator<Item = &'a Point>, smaller_is_better: bool) -> Vec<Point> {
    let sign = if smaller_is_better { 1.0 } else { -1.0 };
    let mut points: Vec<&Point> = points.collect();
    points.sort_by(|a, b| (sign * a.x).total_cmp(&(sign * b.x)).then(a.y.total_cmp(&b.y)));
    let mut best = f64::INFINITY;
    let mut kept: Vec<Point> = Vec::new();
    for point in points {
        if point.y < best {
            best = point.y;
            kept.push(Point { x: point.x, y: point.y, ..Point::default() });
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(values: &[(f64, f64)]) -> Vec<Point> {
        values.iter().map(|(x, y)| Point { x: *x, y: *y, ..Point::default() }).collect()
    }

    #[test]
    fn the_front_leaves_out_what_is_beaten_on_both_axes() {
        let all = points(&[(1.0, 5.0), (2.0, 6.0), (3.0, 1.0), (4.0, 0.0), (4.5, 0.5)]);
        let xs = |smaller| front(all.iter(), smaller).iter().map(|p| p.x).collect::<Vec<_>>();
        assert_eq!(xs(true), [1.0, 3.0, 4.0]);
        assert_eq!(xs(false), [4.5, 4.0]);
    }
}
