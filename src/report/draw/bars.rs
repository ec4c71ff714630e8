//! Horizontal stacked bars.

use super::axis::Ruler;
use super::legend::{self, Swatch};
use super::{PANEL_WIDTH, SMALL};
use crate::report::chart::Bars;
use crate::report::font;
use crate::report::scene::{Anchor, Form, Ink, Scene};

/// Height of a bar and the space to the next.
const BAR: (f64, f64) = (16.0, 10.0);
/// Widest name before the bars.
const NAME: f64 = 165.0;

/// A panel of `plot`.
pub fn draw(plot: &Bars) -> Scene {
    let totals = plot.bars.iter().map(|b| b.values.iter().sum::<f64>());
    let ruler = Ruler::new(&plot.x, totals);
    let mut scene = Scene { width: PANEL_WIDTH, ..Scene::default() };
    let widest = plot.bars.iter().map(|b| font::width(&b.name, SMALL, false)).fold(0.0, f64::max);
    let left = widest.min(NAME) + 14.0;
    let right = PANEL_WIDTH - 20.0;
    let place = |value: f64| {
        let at = ruler.place(value).unwrap_or(ruler.range.0);
        left + (at - ruler.range.0) / (ruler.range.1 - ruler.range.0) * (right - left)
    };
    let bottom = 4.0 + plot.bars.len() as f64 * (BAR.0 + BAR.1);
    for (at, label) in &ruler.ticks {
        let x = left + (at - ruler.range.0) / (ruler.range.1 - ruler.range.0) * (right - left);
        scene.push(Form::Line { points: vec![(x, 0.0), (x, bottom)], width: 0.8, dashed: false }, Ink::Grid);
        scene.text((x, bottom + 14.0), label, SMALL, Anchor::Middle, Ink::Muted);
    }
    for (row, bar) in plot.bars.iter().enumerate() {
        let top = 4.0 + row as f64 * (BAR.0 + BAR.1);
        let name = legend::fit(&bar.name, SMALL, false, NAME);
        let base = top + BAR.0 / 2.0 + SMALL * font::CAP_HEIGHT / 2.0;
        scene.text((left - 8.0, base), &name, SMALL, Anchor::End, Ink::Text);
        let mut sum = 0.0;
        for (part, value) in bar.values.iter().enumerate() {
            let (from, to) = (place(sum), place(sum + value));
            sum += value;
            // The right edge leaves a hair of paper between parts that are wide enough to show one.
            let width = if to - from > 2.0 { to - from - 0.6 } else { to - from };
            if width > 0.0 {
                let tip = bar.tips.get(part).map_or("", String::as_str);
                scene.push_tip(Form::Rect(from, top, width, BAR.0), Ink::Series(part_colour(part)), tip);
            }
        }
    }
    scene.push(Form::Line { points: vec![(left, 0.0), (left, bottom)], width: 0.9, dashed: false }, Ink::Axis);
    scene.text((right, bottom + 30.0), &plot.x.label, SMALL, Anchor::End, Ink::Muted);
    let names: Vec<(String, u8)> =
        plot.parts.iter().enumerate().map(|(i, name)| (name.clone(), part_colour(i))).collect();
    let height = legend::draw(&mut scene, &names, Swatch::Block, 4.0, bottom + 38.0);
    scene.height = bottom + 38.0 + height + 6.0;
    scene
}

/// Palette place of a part: colours first, the grey for the last of nine.
fn part_colour(part: usize) -> u8 {
    ((part + 1) % crate::report::scene::SERIES) as u8
}
