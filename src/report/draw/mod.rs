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
/// Height that a panel's title takes.
const TITLE_HEIGHT: f64 = 24.0;
/// Space between panels.
const GAP: f64 = 24.0;

/// One panel, with its title.
pub fn panel(panel: &Panel) -> Scene {
    let body = match &panel.plot {
        Plot::Points(plot) => points::draw(plot),
        Plot::Bars(plot) => bars::draw(plot),
        Plot::Heat(plot) => heat::draw(plot),
    };
    let mut scene = Scene {
        width: PANEL_WIDTH,
        height: body.height + TITLE_HEIGHT,
        title: panel.title.clone(),
        shapes: Vec::new(),
    };
    let title = legend::fit(&panel.title, TITLE, true, PANEL_WIDTH - 8.0);
    let form =
        Form::Text { at: (4.0, 15.0), text: title, size: TITLE, bold: true, anchor: Anchor::Start, upright: false };
    scene.push(form, Ink::Text);
    scene.place(body, 0.0, TITLE_HEIGHT);
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
        Drawn { chart, panels: chart.panels.iter().map(panel).collect() }
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
