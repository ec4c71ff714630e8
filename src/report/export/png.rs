//! Raster graphics, with the compiled-in font.

use tiny_skia::{Color, FillRule, LineCap, LineJoin, Paint, Path, PathBuilder, Pixmap, Stroke, StrokeDash, Transform};
use ttf_parser::OutlineBuilder;

use crate::base::error::{Error, Result};
use crate::report::font;
use crate::report::scene::{Anchor, Form, Ink, Scene};

/// Pixels to a point: 144 dots an inch. Print is better served by the PDF.
const DENSITY: f32 = 2.0;
/// Most pixels of a picture; a larger one gets fewer to a point.
const MOST_PIXELS: f64 = 8e6;

/// `scene` on white paper.
///
/// # Errors
/// A picture too large for memory, and what the encoder reports.
pub fn render(scene: &Scene) -> Result<Vec<u8>> {
    let area = (scene.width * scene.height).max(1.0);
    let density = DENSITY.min((MOST_PIXELS / area).sqrt() as f32);
    let pixels = |points: f64| (points as f32 * density).ceil().max(1.0) as u32;
    let mut map = Pixmap::new(pixels(scene.width), pixels(scene.height)).ok_or_else(|| {
        Error::Invalid(format!("a picture of {} × {} points is too large", scene.width, scene.height))
    })?;
    map.fill(Color::WHITE);
    for shape in &scene.shapes {
        let paint = paint(shape.ink);
        let place = Transform::from_scale(density, density);
        match &shape.form {
            Form::Line { points, width, dashed } => {
                let stroke = Stroke {
                    width: *width as f32,
                    line_cap: LineCap::Round,
                    line_join: LineJoin::Round,
                    dash: dashed.then(|| StrokeDash::new(vec![5.0, 3.0], 0.0)).flatten(),
                    ..Stroke::default()
                };
                if let Some(path) = polygon(points, false) {
                    map.stroke_path(&path, &paint, &stroke, place, None);
                }
            }
            form => {
                if let Some(path) = outline(form) {
                    map.fill_path(&path, &paint, FillRule::Winding, place, None);
                }
            }
        }
    }
    encode(&map).map_err(|e| Error::Invalid(format!("writing PNG: {e}")))
}

/// Paper is opaque, so that premultiplied colours are the colours themselves. Figures are flat colours, which compress well at
/// the fastest setting already.
fn encode(map: &Pixmap) -> Result<Vec<u8>, ::png::EncodingError> {
    let mut bytes = Vec::new();
    let mut encoder = ::png::Encoder::new(&mut bytes, map.width(), map.height());
    encoder.set_color(::png::ColorType::Rgba);
    encoder.set_depth(::png::BitDepth::Eight);
    encoder.set_compression(::png::Compression::Fast);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(map.data())?;
    writer.finish()?;
    Ok(bytes)
}

fn paint(ink: Ink) -> Paint<'static> {
    let (r, g, b) = ink.rgb();
    let mut paint = Paint { anti_alias: true, ..Paint::default() };
    paint.set_color_rgba8(r, g, b, 255);
    paint
}

fn polygon(points: &[(f64, f64)], closed: bool) -> Option<Path> {
    let mut path = PathBuilder::new();
    for (i, (x, y)) in points.iter().enumerate() {
        let (x, y) = (*x as f32, *y as f32);
        if i == 0 { path.move_to(x, y) } else { path.line_to(x, y) }
    }
    if closed {
        path.close();
    }
    path.finish()
}

/// Outline of a filled form; `None` for an empty one.
fn outline(form: &Form) -> Option<Path> {
    match form {
        Form::Line { .. } => None,
        Form::Polygon(points) => polygon(points, true),
        Form::Rect(x, y, w, h) => polygon(&[(*x, *y), (x + w, *y), (x + w, y + h), (*x, y + h)], true),
        Form::Circle(x, y, r) => PathBuilder::from_circle(*x as f32, *y as f32, *r as f32),
        Form::Text { at, text, size, bold, anchor, upright } => {
            let font = font::font(*bold)?;
            let width = font::width(text, *size, *bold);
            let back = match anchor {
                Anchor::Start => 0.0,
                Anchor::Middle => width / 2.0,
                Anchor::End => width,
            };
            let scale = *size / f64::from(font.face.units_per_em());
            let mut pen = Pen { path: PathBuilder::new(), at: *at, along: -back, scale, upright: *upright };
            for c in text.chars() {
                let glyph = font.glyph(c);
                font.face.outline_glyph(glyph, &mut pen);
                pen.along += font.advance(glyph) * *size;
            }
            pen.path.finish()
        }
    }
}

/// Draws glyphs, whose y axis points upwards, one after another.
struct Pen {
    path: PathBuilder,
    at: (f64, f64),
    along: f64,
    scale: f64,
    upright: bool,
}

impl Pen {
    fn place(&self, x: f32, y: f32) -> (f32, f32) {
        let (along, up) = (self.along + f64::from(x) * self.scale, f64::from(y) * self.scale);
        let (dx, dy) = if self.upright { (-up, -along) } else { (along, -up) };
        ((self.at.0 + dx) as f32, (self.at.1 + dy) as f32)
    }
}

impl OutlineBuilder for Pen {
    fn move_to(&mut self, x: f32, y: f32) {
        let (x, y) = self.place(x, y);
        self.path.move_to(x, y);
    }

    fn line_to(&mut self, x: f32, y: f32) {
        let (x, y) = self.place(x, y);
        self.path.line_to(x, y);
    }

    fn quad_to(&mut self, x1: f32, y1: f32, x: f32, y: f32) {
        let ((x1, y1), (x, y)) = (self.place(x1, y1), self.place(x, y));
        self.path.quad_to(x1, y1, x, y);
    }

    fn curve_to(&mut self, x1: f32, y1: f32, x2: f32, y2: f32, x: f32, y: f32) {
        let ((x1, y1), (x2, y2), (x, y)) = (self.place(x1, y1), self.place(x2, y2), self.place(x, y));
        self.path.cubic_to(x1, y1, x2, y2, x, y);
    }

    fn close(&mut self) {
        self.path.close();
    }
}
