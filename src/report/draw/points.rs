//! Lines and points.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::prelude::{ChartBuilder, IntoDrawingArea, IntoFont};
use plotters::style::{Color, TextStyle};

use super::axis::Ruler;
use super::canvas::{Canvas, FINE, colour, point};
use super::legend::{self, Swatch};
use super::{PANEL_WIDTH, SMALL};
use crate::report::chart::Points;
use crate::report::font;
use crate::report::scene::{Anchor, Form, Ink, Scene};

/// Height of the coordinate system with its tick labels.
const HEIGHT: f64 = 238.0;
/// Height above it for the name of the vertical axis.
const HEAD: f64 = 18.0;
/// Height below it for the name of the horizontal axis.
const FOOT: f64 = 20.0;

/// A panel of `plot`.
pub fn draw(plot: &Points) -> Scene {
    let all = || plot.series.iter().flat_map(|s| &s.points);
    let x = Ruler::new(&plot.x, all().map(|p| p.x));
    let bounds = all().flat_map(|p| [Some(p.y), p.interval.map(|i| i.0), p.interval.map(|i| i.1)]).flatten();
    let y = Ruler::new(&plot.y, bounds.chain(plot.rule.as_ref().map(|(value, _)| *value)));

    let (mut scene, map, left) = axes(&x, &y);
    let place = |px: f64, py: f64| Some(map(x.place(px)?, y.place(py)?));
    if let Some((value, name)) = &plot.rule
        && let (Some(at), Some(end)) =
            (y.place(*value).map(|v| map(x.range.0, v)), y.place(*value).map(|v| map(x.range.1, v)))
    {
        scene.push(Form::Line { points: vec![at, end], width: 1.0, dashed: true }, Ink::Muted);
        scene.text((end.0 - 3.0, end.1 - 4.0), name, SMALL - 1.0, Anchor::End, Ink::Muted);
    }
    for series in &plot.series {
        let ink = Ink::Series(series.colour);
        let line: Vec<(f64, f64)> = series.points.iter().filter_map(|p| place(p.x, p.y)).collect();
        if series.joined && line.len() > 1 {
            // A line without marks is no cache: it is drawn as an axis is.
            let (width, dashed, ink) =
                if series.bare { (1.2, false, Ink::Axis) } else { (1.6, series.colour == 0, ink) };
            scene.push(Form::Line { points: line, width, dashed }, ink);
        }
        for p in &series.points {
            let Some((low, high)) = p.interval.and_then(|(l, h)| Some((l, place(p.x, h)?))) else { continue };
            let mut stroke = |a: (f64, f64), b: (f64, f64)| {
                scene.push(Form::Line { points: vec![a, b], width: 1.1, dashed: false }, ink)
            };
            // What reaches 0 has no end on a logarithm: the bar goes on to the foot of the panel.
            let low = place(p.x, low);
            stroke(low.unwrap_or((high.0, map(0.0, y.range.0).1)), high);
            for end in low.into_iter().chain([high]) {
                stroke((end.0 - 3.0, end.1), (end.0 + 3.0, end.1));
            }
        }
    }
    // Marks last, so that no line hides one.
    for series in plot.series.iter().filter(|s| !s.bare) {
        for p in series.points.iter().filter(|p| !p.unmarked) {
            if let Some(at) = place(p.x, p.y) {
                legend::mark(&mut scene, at, series.colour, p.doubtful, &p.tip);
            }
        }
    }
    scene.text(
        (4.0, 11.0),
        &legend::fit(&plot.y.label, SMALL, false, PANEL_WIDTH - 8.0),
        SMALL,
        Anchor::Start,
        Ink::Muted,
    );
    let bottom = HEAD + HEIGHT;
    scene.text((PANEL_WIDTH - 8.0, bottom + 12.0), &plot.x.label, SMALL, Anchor::End, Ink::Muted);
    let names: Vec<(String, u8)> =
        plot.series.iter().filter(|s| !s.name.is_empty()).map(|s| (s.name.clone(), s.colour)).collect();
    let swatch = if plot.series.iter().any(|s| s.joined && !s.name.is_empty()) { Swatch::Line } else { Swatch::Mark };
    let height = legend::draw(&mut scene, &names, swatch, left, bottom + FOOT);
    scene.height = bottom + FOOT + height + 6.0;
    scene
}

/// Plotters' view of a ruler: where its values lie in a range of pixels, and which of them are ticks.
impl Ranged for Ruler {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        let share = (value - self.range.0) / (self.range.1 - self.range.0);
        from + (share * f64::from(to - from)).round() as i32
    }

    fn key_points<H: KeyPointHint>(&self, hint: H) -> Vec<f64> {
        if hint.weight().allow_light_points() {
            Vec::new()
        } else {
            self.ticks.iter().map(|(place, _)| *place).collect()
        }
    }

    fn range(&self) -> Range<f64> {
        self.range.0..self.range.1
    }
}

impl ValueFormatter<f64> for Ruler {
    fn format_ext(&self, place: &f64) -> String {
        self.ticks.iter().find(|(at, _)| at == place).map(|(_, label)| label.clone()).unwrap_or_default()
    }
}

type Map = Box<dyn Fn(f64, f64) -> (f64, f64)>;

/// Draws axes, ticks and grid with plotters; returns the scene, the map from transformed values to points, and the left end
/// of the coordinate system.
fn axes(x: &Ruler, y: &Ruler) -> (Scene, Map, f64) {
    let canvas = Canvas::new(PANEL_WIDTH, HEAD + HEIGHT);
    let widest = y.ticks.iter().map(|(_, label)| font::width(label, SMALL, false)).fold(0.0, f64::max);
    let left = (widest + 14.0).max(34.0);
    let pixels = |points: f64| (points * FINE) as u32;
    let area = canvas.clone().into_drawing_area();
    let built = ChartBuilder::on(&area)
        .margin_top(pixels(HEAD + 4.0))
        .margin_right(pixels(16.0))
        .x_label_area_size(pixels(20.0))
        .y_label_area_size(pixels(left))
        .build_cartesian_2d(x.clone(), y.clone());
    let Ok(mut chart) = built else {
        // Only a canvas without room for the margins refuses, and its size is fixed above.
        return (canvas.finish(), Box::new(|_, _| (0.0, 0.0)), left);
    };
    let text: TextStyle = ("sans-serif", SMALL * FINE).into_font().color(&colour(Ink::Muted));
    let drawn = chart
        .configure_mesh()
        .x_labels(40)
        .y_labels(40)
        .disable_x_mesh()
        .light_line_style(colour(Ink::Paper).stroke_width(0))
        .max_light_lines(0)
        .bold_line_style(colour(Ink::Grid).stroke_width(pixels(0.8)))
        .axis_style(colour(Ink::Axis).stroke_width(pixels(0.9)))
        .set_all_tick_mark_size(pixels(4.0))
        .label_style(text)
        .draw();
    debug_assert!(drawn.is_ok(), "a canvas refuses nothing");
    let corner = |u: f64, v: f64| point(chart.backend_coord(&(u, v)));
    let (low, high) = (corner(x.range.0, y.range.0), corner(x.range.1, y.range.1));
    let (xr, yr) = (x.range, y.range);
    let map = move |u: f64, v: f64| {
        let along = |value: f64, (from, to): (f64, f64), (a, b): (f64, f64)| a + (value - from) / (to - from) * (b - a);
        (along(u, xr, (low.0, high.0)), along(v, yr, (low.1, high.1)))
    };
    drop(chart);
    drop(area);
    (canvas.finish(), Box::new(map), left)
}
