//! A chart as a value: what is shown, not how it is drawn.

use super::number::{self, Digits};

/// A figure: panels that belong together, one for each model as a rule.
#[derive(Debug, Clone, Default)]
pub struct Chart {
    /// Name of its files, without extension.
    pub id: String,
    /// Title.
    pub title: String,
    /// What to see in it and how to read it, in one or two sentences.
    pub caption: String,
    /// The panels.
    pub panels: Vec<Panel>,
}

/// One coordinate system.
#[derive(Debug, Clone)]
pub struct Panel {
    /// Title.
    pub title: String,
    /// What is in it.
    pub plot: Plot,
}

/// Kinds of plot.
#[derive(Debug, Clone)]
pub enum Plot {
    /// Lines and points.
    Points(Points),
    /// Horizontal stacked bars.
    Bars(Bars),
    /// A grid of coloured cells.
    Heat(Heat),
}

/// Lines and points over two numeric axes.
#[derive(Debug, Clone)]
pub struct Points {
    /// Horizontal axis.
    pub x: Axis,
    /// Vertical axis.
    pub y: Axis,
    /// The series.
    pub series: Vec<Series>,
    /// A horizontal line with its name.
    pub rule: Option<(f64, String)>,
}

/// A numeric axis.
#[derive(Debug, Clone)]
pub struct Axis {
    /// Quantity and unit.
    pub label: String,
    /// Spacing.
    pub scale: Scale,
    /// How its numbers are written.
    pub form: NumberForm,
}

/// Spacing of an axis.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scale {
    /// Even, from 0 if all values are positive.
    Linear,
    /// Each doubling as long as the next.
    Log2,
    /// Each decade as long as the next.
    Log10,
    /// Logarithmic in both directions beyond ± the threshold, even between: for values of both signs and many magnitudes.
    Symlog(f64),
}

/// How an axis writes numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NumberForm {
    /// As they are.
    Plain,
    /// Tokens: 4096 as 4k.
    Tokens,
    /// A fraction as a percentage.
    Percent,
}

impl NumberForm {
    /// `value` as a tick label.
    pub fn tick(self, value: f64) -> String {
        match self {
            NumberForm::Plain => number::shown(trim(value), Digits::Exact),
            NumberForm::Tokens => number::tokens(value.round().max(0.0) as usize),
            NumberForm::Percent => format!("{} %", number::shown(trim(value * 100.0), Digits::Exact)),
        }
    }
}

/// Removes the noise of binary fractions from a tick (0.30000000000000004).
fn trim(value: f64) -> f64 {
    format!("{value:.10e}").parse().unwrap_or(value)
}

/// A series.
#[derive(Debug, Clone, Default)]
pub struct Series {
    /// Name in the legend.
    pub name: String,
    /// Place in the palette (0: the unquantized cache, drawn dashed).
    pub colour: u8,
    /// Whether its points are joined.
    pub joined: bool,
    /// Whether its points have no marks.
    pub bare: bool,
    /// Points in order of x.
    pub points: Vec<Point>,
}

/// A point.
#[derive(Debug, Clone, Default)]
pub struct Point {
    /// Horizontal value.
    pub x: f64,
    /// Vertical value.
    pub y: f64,
    /// Interval of the vertical value.
    pub interval: Option<(f64, f64)>,
    /// Drawn hollow: the value is doubtful (the tip says why).
    pub doubtful: bool,
    /// A bend of the line, without a mark.
    pub unmarked: bool,
    /// What it says when pointed at.
    pub tip: String,
}

/// Horizontal stacked bars.
#[derive(Debug, Clone)]
pub struct Bars {
    /// The axis along the bars.
    pub x: Axis,
    /// Names of the parts, in the order of the stack.
    pub parts: Vec<String>,
    /// The bars, from the top.
    pub bars: Vec<Bar>,
}

/// A stacked bar.
#[derive(Debug, Clone)]
pub struct Bar {
    /// Name.
    pub name: String,
    /// Length of each part.
    pub values: Vec<f64>,
    /// What each part says when pointed at.
    pub tips: Vec<String>,
}

/// A grid of coloured cells.
#[derive(Debug, Clone)]
pub struct Heat {
    /// What the columns are.
    pub x_label: String,
    /// What the rows are.
    pub y_label: String,
    /// Names of the columns.
    pub columns: Vec<String>,
    /// Names of the rows, from the top.
    pub rows: Vec<String>,
    /// `rows × columns`; `None` was not measured.
    pub cells: Vec<Vec<Option<HeatCell>>>,
    /// What the ends of the colour scale mean: (light, dark).
    pub ends: (String, String),
}

/// A cell of a heat map.
#[derive(Debug, Clone)]
pub struct HeatCell {
    /// Place on the colour scale, 0…1.
    pub shade: f64,
    /// The value, written in the cell.
    pub text: String,
    /// What it says when pointed at.
    pub tip: String,
}
