//! Scalable vector graphics: a file of its own, or inline in a page that decides the colours.

use std::fmt::Write;

use crate::report::font;
use crate::report::scene::{self, Anchor, Form, Ink, Scene};

/// Where colours come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colours {
    /// Written into the picture, for white paper.
    Literal,
    /// Custom properties of the page: `--text`, `--muted`, `--axis`, `--grid`, `--paper`, `--s0` … `--s8`.
    Page,
}

/// `scene` as an `svg` element. A shape's tip becomes a `title` (which viewers show on hovering) in a file of its own, and a
/// `data-tip` attribute in a page.
pub fn render(scene: &Scene, colours: Colours) -> String {
    let mut out = String::new();
    let (w, h) = (round(scene.width), round(scene.height));
    let size = match colours {
        Colours::Literal => format!(" width=\"{w}pt\" height=\"{h}pt\""),
        Colours::Page => String::new(),
    };
    // Writing to a string cannot fail.
    let _ = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {w} {h}\"{size} role=\"img\" aria-label=\"{}\" \
         font-family=\"Roboto, Helvetica, Arial, sans-serif\">",
        escape(&scene.title)
    );
    if colours == Colours::Literal {
        let _ = write!(out, "\n<rect width=\"{w}\" height=\"{h}\" fill=\"#ffffff\"/>");
    }
    for shape in &scene.shapes {
        let tip = shape.tip.as_deref().map(escape);
        let data = match (&tip, colours) {
            (Some(tip), Colours::Page) => format!(" class=\"mark\" tabindex=\"0\" data-tip=\"{tip}\""),
            _ => String::new(),
        };
        let (name, attributes, content) = element(&shape.form, &paint(shape.ink, colours));
        let title = match (&tip, colours) {
            (Some(tip), Colours::Literal) => format!("<title>{tip}</title>"),
            _ => String::new(),
        };
        let _ = match title.is_empty() && content.is_empty() {
            true => write!(out, "\n<{name} {attributes}{data}/>"),
            false => write!(out, "\n<{name} {attributes}{data}>{title}{content}</{name}>"),
        };
    }
    out.push_str("\n</svg>\n");
    out
}

/// Name, attributes and content of a shape's element.
fn element(form: &Form, paint: &str) -> (&'static str, String, String) {
    match form {
        Form::Line { points, width, dashed } => {
            let dash = if *dashed { " stroke-dasharray=\"5 3\"" } else { "" };
            let joint = "stroke-linejoin=\"round\" stroke-linecap=\"round\"";
            let attributes = format!(
                "points=\"{}\" fill=\"none\" stroke=\"{paint}\" stroke-width=\"{}\" {joint}{dash}",
                list(points),
                round(*width)
            );
            ("polyline", attributes, String::new())
        }
        Form::Polygon(points) => ("polygon", format!("points=\"{}\" fill=\"{paint}\"", list(points)), String::new()),
        Form::Rect(x, y, w, h) => {
            let [x, y, w, h] = [x, y, w, h].map(|v| round(*v));
            ("rect", format!("x=\"{x}\" y=\"{y}\" width=\"{w}\" height=\"{h}\" fill=\"{paint}\""), String::new())
        }
        Form::Circle(x, y, r) => {
            let [x, y, r] = [x, y, r].map(|v| round(*v));
            ("circle", format!("cx=\"{x}\" cy=\"{y}\" r=\"{r}\" fill=\"{paint}\""), String::new())
        }
        Form::Text { at, text, size, bold, anchor, upright } => {
            let anchor = match anchor {
                Anchor::Start => "",
                Anchor::Middle => " text-anchor=\"middle\"",
                Anchor::End => " text-anchor=\"end\"",
            };
            let weight = if *bold { " font-weight=\"500\"" } else { "" };
            let (x, y) = (round(at.0), round(at.1));
            let turn = if *upright { format!(" transform=\"rotate(-90 {x} {y})\"") } else { String::new() };
            // The width is stated, so that another font cannot make texts overlap.
            let length = round(font::width(text, *size, *bold));
            let attributes = format!(
                "x=\"{x}\" y=\"{y}\" font-size=\"{}\"{weight}{anchor}{turn} textLength=\"{length}\" lengthAdjust=\"spacingAndGlyphs\" \
                 fill=\"{paint}\"",
                round(*size)
            );
            ("text", attributes, escape(text))
        }
    }
}

fn paint(ink: Ink, colours: Colours) -> String {
    let role = match ink {
        Ink::Text => "text".to_string(),
        Ink::Muted => "muted".into(),
        Ink::Axis => "axis".into(),
        Ink::Grid => "grid".into(),
        Ink::Paper => "paper".into(),
        Ink::Series(place) => format!("s{}", scene::colour_of(place)),
        Ink::Exact(..) => String::new(),
    };
    if colours == Colours::Literal || role.is_empty() {
        let (r, g, b) = ink.rgb();
        return format!("#{r:02x}{g:02x}{b:02x}");
    }
    format!("var(--{role})")
}

/// Hundredths of a point are enough.
fn round(value: f64) -> f64 {
    let rounded = (value * 100.0).round() / 100.0;
    if rounded == 0.0 { 0.0 } else { rounded }
}

fn list(points: &[(f64, f64)]) -> String {
    points.iter().map(|(x, y)| format!("{},{}", round(*x), round(*y))).collect::<Vec<_>>().join(" ")
}

/// `text` for element content and quoted attributes; control characters, which XML forbids, are left out.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push_str("&#10;"),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}
