//! Shapes on a page: what the figure formats write. Points (1/72 inch), y downwards.

/// A colour by its role, so that a page can be light or dark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ink {
    /// Titles and values.
    Text,
    /// Axis labels and captions.
    Muted,
    /// Axes.
    Axis,
    /// Grid lines and empty cells.
    Grid,
    /// The page.
    Paper,
    /// A series, by its place in the palette; 0 is the unquantized cache.
    Series(u8),
    /// A colour that does not change (heat maps).
    Exact(u8, u8, u8),
}

/// Number of series colours.
pub const SERIES: usize = 9;

/// Okabe and Ito's palette (safe for the common kinds of colour blindness), its black replaced by a grey for the unquantized
/// cache, its yellow darkened so that it shows on paper, and a brown added.
const SERIES_RGB: [(u8, u8, u8); SERIES] = [
    (0x5F, 0x66, 0x6D),
    (0x00, 0x72, 0xB2),
    (0xD5, 0x5E, 0x00),
    (0x00, 0x9E, 0x73),
    (0xCC, 0x79, 0xA7),
    (0xE6, 0x9F, 0x00),
    (0x56, 0xB4, 0xE9),
    (0x8C, 0x6D, 0x46),
    (0xB5, 0xA8, 0x12),
];

/// Which of the [`SERIES`] colours a palette place has: grey only the unquantized cache's, the others over again.
pub fn colour_of(place: u8) -> usize {
    if place == 0 { 0 } else { (usize::from(place) - 1) % (SERIES - 1) + 1 }
}

impl Ink {
    /// The colour on white paper.
    pub fn rgb(self) -> (u8, u8, u8) {
        match self {
            Ink::Text => (0x1B, 0x1F, 0x24),
            Ink::Muted => (0x57, 0x60, 0x6A),
            Ink::Axis => (0x8C, 0x95, 0x9F),
            Ink::Grid => (0xE3, 0xE6, 0xEA),
            Ink::Paper => (0xFF, 0xFF, 0xFF),
            Ink::Series(place) => SERIES_RGB[colour_of(place)],
            Ink::Exact(r, g, b) => (r, g, b),
        }
    }
}

/// Where a text stands in relation to its point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anchor {
    /// Starts there.
    Start,
    /// Is centred there.
    Middle,
    /// Ends there.
    End,
}

/// The form of a shape.
#[derive(Debug, Clone, PartialEq)]
pub enum Form {
    /// A line through points.
    Line {
        /// The points.
        points: Vec<(f64, f64)>,
        /// Width.
        width: f64,
        /// Dashed.
        dashed: bool,
    },
    /// A filled polygon.
    Polygon(Vec<(f64, f64)>),
    /// A filled rectangle: left, top, width, height.
    Rect(f64, f64, f64, f64),
    /// A filled circle: centre, radius.
    Circle(f64, f64, f64),
    /// A line of text.
    Text {
        /// Point of the baseline.
        at: (f64, f64),
        /// The words.
        text: String,
        /// Size of the font.
        size: f64,
        /// Medium weight.
        bold: bool,
        /// Where the text stands.
        anchor: Anchor,
        /// Turned a quarter to the left: read from bottom to top.
        upright: bool,
    },
}

/// A shape.
#[derive(Debug, Clone, PartialEq)]
pub struct Shape {
    /// Its form.
    pub form: Form,
    /// Its colour.
    pub ink: Ink,
    /// What to show when it is pointed at.
    pub tip: Option<String>,
}

/// A picture.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scene {
    /// Width.
    pub width: f64,
    /// Height.
    pub height: f64,
    /// What the picture says, for those who cannot see it.
    pub title: String,
    /// The shapes, the first ones at the back.
    pub shapes: Vec<Shape>,
}

impl Scene {
    /// Adds a shape.
    pub fn push(&mut self, form: Form, ink: Ink) {
        self.shapes.push(Shape { form, ink, tip: None });
    }

    /// Adds a shape that says `tip` when it is pointed at.
    pub fn push_tip(&mut self, form: Form, ink: Ink, tip: &str) {
        self.shapes.push(Shape { form, ink, tip: Some(tip.to_string()) });
    }

    /// Adds a line of text in regular weight.
    pub fn text(&mut self, at: (f64, f64), text: &str, size: f64, anchor: Anchor, ink: Ink) {
        self.push(Form::Text { at, text: text.into(), size, bold: false, anchor, upright: false }, ink);
    }

    /// Puts the shapes of `other` here, its origin at (`dx`, `dy`).
    pub fn place(&mut self, other: Scene, dx: f64, dy: f64) {
        for mut shape in other.shapes {
            let shift = |p: &mut (f64, f64)| {
                p.0 += dx;
                p.1 += dy;
            };
            match &mut shape.form {
                Form::Line { points, .. } | Form::Polygon(points) => points.iter_mut().for_each(shift),
                Form::Rect(x, y, ..) | Form::Circle(x, y, _) => {
                    *x += dx;
                    *y += dy;
                }
                Form::Text { at, .. } => shift(at),
            }
            self.shapes.push(shape);
        }
    }
}
