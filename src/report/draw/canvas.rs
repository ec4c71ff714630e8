//! The bridge from plotters to a [`Scene`]: a drawing backend that keeps shapes instead of painting pixels.

use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::Rc;

use plotters::style::RGBColor;
use plotters_backend::text_anchor::{HPos, VPos};
use plotters_backend::{BackendColor, BackendCoord, BackendStyle, BackendTextStyle, DrawingBackend, DrawingErrorKind};

use crate::report::font::{self, CAP_HEIGHT};
use crate::report::scene::{Anchor, Form, Ink, Scene};

/// Plotters counts in whole pixels: this many to a point keep positions exact enough for print.
pub const FINE: f64 = 20.0;

/// A scene that plotters can draw on.
#[derive(Clone)]
pub struct Canvas {
    scene: Rc<RefCell<Scene>>,
}

type Outcome = Result<(), DrawingErrorKind<Infallible>>;

impl Canvas {
    /// An empty canvas of `width` × `height` points.
    pub fn new(width: f64, height: f64) -> Self {
        Canvas { scene: Rc::new(RefCell::new(Scene { width, height, ..Scene::default() })) }
    }

    /// What was drawn.
    pub fn finish(self) -> Scene {
        self.scene.take()
    }

    fn push(&self, form: Form, ink: Ink) {
        self.scene.borrow_mut().push(form, ink);
    }
}

/// Plotters' form of a role's colour; the canvas finds the role again by it.
pub fn colour(ink: Ink) -> RGBColor {
    let (r, g, b) = ink.rgb();
    RGBColor(r, g, b)
}

fn ink(colour: BackendColor) -> Ink {
    let roles = [Ink::Text, Ink::Muted, Ink::Axis, Ink::Grid, Ink::Paper];
    let (r, g, b) = colour.rgb;
    roles.into_iter().find(|role| role.rgb() == colour.rgb).unwrap_or(Ink::Exact(r, g, b))
}

/// Points from plotters' pixels.
pub fn point((x, y): BackendCoord) -> (f64, f64) {
    (f64::from(x) / FINE, f64::from(y) / FINE)
}

impl DrawingBackend for Canvas {
    type ErrorType = Infallible;

    fn get_size(&self) -> (u32, u32) {
        let scene = self.scene.borrow();
        ((scene.width * FINE) as u32, (scene.height * FINE) as u32)
    }

    fn ensure_prepared(&mut self) -> Outcome {
        Ok(())
    }

    fn present(&mut self) -> Outcome {
        Ok(())
    }

    /// Nothing that kvprof draws is made of pixels.
    fn draw_pixel(&mut self, _: BackendCoord, _: BackendColor) -> Outcome {
        Ok(())
    }

    fn draw_line<S: BackendStyle>(&mut self, from: BackendCoord, to: BackendCoord, style: &S) -> Outcome {
        self.draw_path([from, to], style)
    }

    fn draw_path<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(&mut self, path: I, style: &S) -> Outcome {
        let points = path.into_iter().map(point).collect();
        let width = f64::from(style.stroke_width()) / FINE;
        self.push(Form::Line { points, width, dashed: false }, ink(style.color()));
        Ok(())
    }

    fn draw_rect<S: BackendStyle>(&mut self, a: BackendCoord, b: BackendCoord, style: &S, fill: bool) -> Outcome {
        let ((x0, y0), (x1, y1)) = (point(a), point(b));
        if fill {
            self.push(Form::Rect(x0, y0, x1 - x0, y1 - y0), ink(style.color()));
            return Ok(());
        }
        self.draw_path([a, (b.0, a.1), b, (a.0, b.1), a], style)
    }

    fn draw_circle<S: BackendStyle>(&mut self, centre: BackendCoord, radius: u32, style: &S, _: bool) -> Outcome {
        let (x, y) = point(centre);
        self.push(Form::Circle(x, y, f64::from(radius) / FINE), ink(style.color()));
        Ok(())
    }

    fn fill_polygon<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(&mut self, points: I, style: &S) -> Outcome {
        self.push(Form::Polygon(points.into_iter().map(point).collect()), ink(style.color()));
        Ok(())
    }

    fn draw_text<S: BackendTextStyle>(&mut self, text: &str, style: &S, at: BackendCoord) -> Outcome {
        let size = style.size() / FINE;
        let (x, y) = point(at);
        let anchor = match style.anchor().h_pos {
            HPos::Left => Anchor::Start,
            HPos::Center => Anchor::Middle,
            HPos::Right => Anchor::End,
        };
        let below = match style.anchor().v_pos {
            VPos::Top => size * CAP_HEIGHT,
            VPos::Center => size * CAP_HEIGHT / 2.0,
            VPos::Bottom => 0.0,
        };
        let form = Form::Text { at: (x, y + below), text: text.into(), size, bold: false, anchor, upright: false };
        self.push(form, ink(style.color()));
        Ok(())
    }

    fn estimate_text_size<S: BackendTextStyle>(
        &self,
        text: &str,
        style: &S,
    ) -> Result<(u32, u32), DrawingErrorKind<Infallible>> {
        Ok((font::width(text, style.size(), false).ceil() as u32, style.size().ceil() as u32))
    }
}
