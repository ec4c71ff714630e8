//! From charts to scenes. Plotters maps coordinates and draws axes, ticks and grid; marks, legends and cells are placed here,
//! measured with the font they are set in, so that nothing overlaps or is cut off.

mod axis;
mod bars;
mod canvas;
mod heat;
mod legend;
mod points;

use super::chart::{Chart, Panel, Plot};
use super::scene::{Anchor, Form, Ink, Scene};

/// Width of a panel.
pub const PANEL_WIDTH: f64 = 420.0;
/// Size of axis labels and legends.
const SMALL: f64 = 12.0;
/// Size of a panel's title.
const TITLE: f64 = 14.0;
/// Height that a title of one line takes.
const TITLE_HEIGHT: f64 = 24.0;
/// Height that each further line takes.
const TITLE_LEADING: f64 = 17.0;
/// Space between panels.
const GAP: f64 = 24.0;

/// A panel's title, in as many lines as it needs at the size that it is set in: what tells panels apart often stands at its end, so
/// nothing is cut off.
fn title(panel: &Panel) -> (Vec<String>, f64) {
    let lines = |size| legend::wrap(&panel.title, size, true, PANEL_WIDTH - 8.0);
    let large = lines(TITLE);
    if large.len() <= 2 { (large, TITLE) } else { (lines(SMALL), SMALL) }
}

/// One panel, with its title.
pub fn panel(panel: &Panel) -> Scene {
    below_title(panel, title(panel).0.len())
}

/// One panel, with its title in the last of `lines` lines.
fn below_title(panel: &Panel, lines: usize) -> Scene {
    let body = match &panel.plot {
        Plot::Points(plot) => points::draw(plot),
        Plot::Bars(plot) => bars::draw(plot),
        Plot::Heat(plot) => heat::draw(plot),
    };
    let (title, size) = title(panel);
    let more = lines.saturating_sub(1) as f64 * TITLE_LEADING;
    let mut scene = Scene {
        width: PANEL_WIDTH,
        height: body.height + TITLE_HEIGHT + more,
        title: panel.title.clone(),
        shapes: Vec::new(),
    };
    for (above, text) in title.into_iter().rev().enumerate() {
        let at = (4.0, 15.0 + more - above as f64 * TITLE_LEADING);
        scene.push(Form::Text { at, text, size, bold: true, anchor: Anchor::Start, upright: false }, Ink::Text);
    }
    scene.place(body, 0.0, TITLE_HEIGHT + more);
    scene
}

/// A chart and its panels, drawn: every format writes the same shapes.
pub struct Drawn<'a> {
    /// What is shown.
    pub chart: &'a Chart,
    /// Its panels, each with its title.
    pub panels: Vec<Scene>,
}

impl<'a> Drawn<'a> {
    /// Draws `chart`.
    pub fn new(chart: &'a Chart) -> Self {
        // Of one height throughout, so that plots beside one another stand level.
        let lines = chart.panels.iter().map(|panel| title(panel).0.len()).max().unwrap_or(1);
        Drawn { chart, panels: chart.panels.iter().map(|panel| below_title(panel, lines)).collect() }
    }
}

/// All panels of a figure, two abreast.
pub fn figure(drawn: &Drawn<'_>) -> Scene {
    let Drawn { chart, panels } = drawn;
    let abreast = panels.len().clamp(1, 2);
    let mut scene = Scene {
        width: abreast as f64 * PANEL_WIDTH + (abreast - 1) as f64 * GAP,
        height: 0.0,
        title: chart.title.clone(),
        shapes: Vec::new(),
    };
    let mut top = 0.0;
    for row in panels.chunks(abreast) {
        let height = row.iter().map(|p| p.height).fold(0.0, f64::max);
        for (column, panel) in row.iter().enumerate() {
            scene.place(panel.clone(), column as f64 * (PANEL_WIDTH + GAP), top);
        }
        top += height + GAP;
    }
    scene.height = (top - GAP).max(1.0);
    scene
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::chart::{Axis, Bars, NumberForm, Scale};
    use crate::report::font;

    #[test]
    fn a_long_title_is_wrapped_and_keeps_its_end() {
        let words = "Llama-3.1-8B · fused · 1280 tokens out · prefill chunks of 512 · step mode launches · NVIDIA H200, 32k tokens";
        let axis = Axis { label: String::new(), scale: Scale::Linear, form: NumberForm::Plain };
        let plot = || Plot::Bars(Bars { x: axis.clone(), parts: Vec::new(), bars: Vec::new() });
        for text in ["short".to_string(), words.into(), format!("{words}, {words}")] {
            let panel = Panel { title: text.clone(), plot: plot() };
            let (lines, size) = title(&panel);
            assert_eq!(lines.join(" ").replace("- ", "-"), text, "nothing is lost");
            assert!(lines.iter().all(|line| font::width(line, size, true) <= PANEL_WIDTH), "{lines:?}");
        }
    }
}
