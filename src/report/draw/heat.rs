//! Heat maps: the value stands in each cell, its colour helps to find it.

use super::legend;
use super::{PANEL_WIDTH, SMALL};
use crate::report::chart::Heat;
use crate::report::font;
use crate::report::scene::{Anchor, Form, Ink, Scene};

/// Height of a cell.
const CELL: f64 = 30.0;
/// Widest name of a row.
const NAME: f64 = 140.0;
/// Widest cell, so that few columns do not make slabs.
const WIDE: f64 = 92.0;
/// Space between lines of a column's name.
const LEADING: f64 = 13.0;

/// Five points of cividis (Nuñez, Anderton and Renslow 2018), a scale that reads the same with colour-blind eyes, from its light
/// end to its dark end.
const SCALE: [(f64, f64, f64); 5] =
    [(254.0, 232.0, 111.0), (188.0, 175.0, 111.0), (124.0, 123.0, 120.0), (64.0, 77.0, 107.0), (0.0, 34.0, 78.0)];

/// Colour at `shade` (0 light … 1 dark).
fn tint(shade: f64) -> (u8, u8, u8) {
    let at = shade.clamp(0.0, 1.0) * (SCALE.len() - 1) as f64;
    let low = (at.floor() as usize).min(SCALE.len() - 2);
    let mix = |a: f64, b: f64| (a + (b - a) * (at - low as f64)).round() as u8;
    let (a, b) = (SCALE[low], SCALE[low + 1]);
    (mix(a.0, b.0), mix(a.1, b.1), mix(a.2, b.2))
}

/// Black or white, whichever is easier to read on `rgb` (WCAG relative luminance).
fn readable_on((r, g, b): (u8, u8, u8)) -> Ink {
    let linear = |c: u8| (f64::from(c) / 255.0).powf(2.2);
    let luminance = 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
    if luminance > 0.18 { Ink::Exact(0x11, 0x14, 0x18) } else { Ink::Exact(0xFF, 0xFF, 0xFF) }
}

/// A panel of `plot`.
pub fn draw(plot: &Heat) -> Scene {
    let mut scene = Scene { width: PANEL_WIDTH, ..Scene::default() };
    let widest = plot.rows.iter().map(|r| font::width(r, SMALL, false)).fold(0.0, f64::max);
    let left = widest.min(NAME) + 14.0;
    let cell = ((PANEL_WIDTH - left - 8.0) / plot.columns.len().max(1) as f64).min(WIDE);
    let heads: Vec<Vec<String>> = plot.columns.iter().map(|c| legend::wrap(c, SMALL, false, cell - 4.0)).collect();
    let lines = heads.iter().map(Vec::len).max().unwrap_or(0);
    let top = LEADING + 6.0 + lines as f64 * LEADING + 4.0;

    let axes = format!("{} × {}", plot.y_label, plot.x_label);
    scene.text((4.0, 11.0), &legend::fit(&axes, SMALL, false, PANEL_WIDTH - 8.0), SMALL, Anchor::Start, Ink::Muted);
    for (column, head) in heads.iter().enumerate() {
        let x = left + (column as f64 + 0.5) * cell;
        for (line, text) in head.iter().enumerate() {
            let y = top - 6.0 - (head.len() - 1 - line) as f64 * LEADING;
            scene.text((x, y), text, SMALL, Anchor::Middle, Ink::Muted);
        }
    }
    for (row, name) in plot.rows.iter().enumerate() {
        let y = top + row as f64 * CELL;
        let base = y + CELL / 2.0 + SMALL * font::CAP_HEIGHT / 2.0;
        // A long name takes two lines.
        let lines = legend::wrap(name, SMALL, false, NAME);
        let lines = if lines.len() > 2 { vec![legend::fit(name, SMALL, false, NAME)] } else { lines };
        for (line, text) in lines.iter().enumerate() {
            let shift = (line as f64 - (lines.len() - 1) as f64 / 2.0) * LEADING;
            scene.text((left - 8.0, base + shift), text, SMALL, Anchor::End, Ink::Text);
        }
        for column in 0..plot.columns.len() {
            let x = left + column as f64 * cell;
            let form = Form::Rect(x + 0.75, y + 0.75, cell - 1.5, CELL - 1.5);
            let centre = (x + cell / 2.0, base);
            match plot.cells.get(row).and_then(|cells| cells.get(column)).and_then(Option::as_ref) {
                Some(value) => {
                    let rgb = tint(value.shade);
                    scene.push_tip(form, Ink::Exact(rgb.0, rgb.1, rgb.2), &value.tip);
                    let text = legend::fit(&value.text, SMALL, false, cell - 4.0);
                    scene.text(centre, &text, SMALL, Anchor::Middle, readable_on(rgb));
                }
                None => {
                    scene.push_tip(form, Ink::Grid, "not measured");
                    scene.text(centre, "–", SMALL, Anchor::Middle, Ink::Muted);
                }
            }
        }
    }
    let bottom = top + plot.rows.len() as f64 * CELL;
    key(&mut scene, plot, left, bottom + 10.0);
    scene.height = bottom + 10.0 + 14.0 + 8.0;
    scene
}

/// The colour scale, with what its ends mean.
fn key(scene: &mut Scene, plot: &Heat, left: f64, top: f64) {
    let base = top + 5.0 + SMALL * font::CAP_HEIGHT / 2.0;
    let (light, dark) = (&plot.ends.0, &plot.ends.1);
    let start = left + font::width(light, SMALL, false) + 8.0;
    scene.text((left, base), light, SMALL, Anchor::Start, Ink::Muted);
    for step in 0..20 {
        let (r, g, b) = tint(f64::from(step) / 19.0);
        scene.push(Form::Rect(start + f64::from(step) * 5.0, top, 5.2, 10.0), Ink::Exact(r, g, b));
    }
    scene.text((start + 108.0, base), dark, SMALL, Anchor::Start, Ink::Muted);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_darkens_and_text_on_it_is_readable() {
        let luminance = |(r, g, b): (u8, u8, u8)| 0.2126 * f64::from(r) + 0.7152 * f64::from(g) + 0.0722 * f64::from(b);
        let steps: Vec<f64> = (0..=10).map(|i| luminance(tint(f64::from(i) / 10.0))).collect();
        assert!(steps.windows(2).all(|w| w[0] > w[1]), "{steps:?}");
        assert_eq!(readable_on(tint(0.0)), Ink::Exact(0x11, 0x14, 0x18));
        assert_eq!(readable_on(tint(1.0)), Ink::Exact(0xFF, 0xFF, 0xFF));
    }
}
