//! Legends, marks, and text that must fit.

use super::{PANEL_WIDTH, SMALL};
use crate::report::font;
use crate::report::scene::{Anchor, Form, Ink, Scene};

/// Height of a line of the legend.
const LINE: f64 = 18.0;
/// Width of a swatch and the space after it.
const SWATCH: f64 = 24.0;
/// Space between entries.
const BETWEEN: f64 = 14.0;

/// What stands before a legend's entry.
#[derive(Debug, Clone, Copy)]
pub enum Swatch {
    /// Only the mark.
    Mark,
    /// A line and the mark.
    Line,
    /// A filled square.
    Block,
}

/// Draws `entries` (name and place in the palette) in as many lines as they need, the first one's top at `top`; returns the
/// height they take.
pub fn draw(scene: &mut Scene, entries: &[(String, u8)], swatch: Swatch, left: f64, top: f64) -> f64 {
    let room = PANEL_WIDTH - left - 4.0;
    let (mut x, mut line) = (0.0, 0.0);
    for (name, colour) in entries {
        let name = fit(name, SMALL, false, room - SWATCH);
        let width = SWATCH + font::width(&name, SMALL, false) + BETWEEN;
        if x > 0.0 && x + width - BETWEEN > room {
            (x, line) = (0.0, line + 1.0);
        }
        let (from, middle) = (left + x, top + line * LINE + LINE / 2.0);
        match swatch {
            Swatch::Block => scene.push(Form::Rect(from + 4.0, middle - 5.0, 11.0, 10.0), Ink::Series(*colour)),
            Swatch::Mark => mark(scene, (from + 9.0, middle), *colour, false, ""),
            Swatch::Line => {
                let points = vec![(from, middle), (from + 18.0, middle)];
                scene.push(Form::Line { points, width: 1.6, dashed: *colour == 0 }, Ink::Series(*colour));
                mark(scene, (from + 9.0, middle), *colour, false, "");
            }
        }
        let at = (from + SWATCH, middle + SMALL * font::CAP_HEIGHT / 2.0);
        scene.text(at, &name, SMALL, Anchor::Start, Ink::Text);
        x += width;
    }
    if entries.is_empty() { 0.0 } else { (line + 1.0) * LINE }
}

/// Draws the mark of a palette place, so that series differ in form as well as in colour; hollow where `doubtful`.
pub fn mark(scene: &mut Scene, (x, y): (f64, f64), colour: u8, doubtful: bool, tip: &str) {
    let form = |r: f64| {
        let polygon =
            |points: &[(f64, f64)]| Form::Polygon(points.iter().map(|(dx, dy)| (x + dx * r, y + dy * r)).collect());
        match colour % 6 {
            0 => Form::Circle(x, y, r),
            1 => Form::Rect(x - 0.9 * r, y - 0.9 * r, 1.8 * r, 1.8 * r),
            2 => polygon(&[(0.0, -1.25), (1.15, 0.8), (-1.15, 0.8)]),
            3 => polygon(&[(0.0, -1.3), (1.3, 0.0), (0.0, 1.3), (-1.3, 0.0)]),
            4 => polygon(&[(0.0, 1.25), (1.15, -0.8), (-1.15, -0.8)]),
            _ => polygon(&[
                (-0.4, -1.2),
                (0.4, -1.2),
                (0.4, -0.4),
                (1.2, -0.4),
                (1.2, 0.4),
                (0.4, 0.4),
                (0.4, 1.2),
                (-0.4, 1.2),
                (-0.4, 0.4),
                (-1.2, 0.4),
                (-1.2, -0.4),
                (-0.4, -0.4),
            ]),
        }
    };
    // A rim of paper keeps marks apart where they meet.
    scene.push(form(4.9), Ink::Paper);
    if tip.is_empty() {
        scene.push(form(3.8), Ink::Series(colour));
    } else {
        scene.push_tip(form(3.8), Ink::Series(colour), tip);
    }
    if doubtful {
        scene.push(form(2.1), Ink::Paper);
    }
}

/// `text`, shortened with an ellipsis where it is wider than `room`.
pub fn fit(text: &str, size: f64, bold: bool, room: f64) -> String {
    if font::width(text, size, bold) <= room {
        return text.to_string();
    }
    let mut kept: String = text.to_string();
    while kept.pop().is_some() {
        let shortened = format!("{}…", kept.trim_end());
        if font::width(&shortened, size, bold) <= room {
            return shortened;
        }
    }
    String::new()
}

/// `text` in lines no wider than `room`, broken after `-`, `,`, `/` and spaces; a piece that is still wider is shortened.
pub fn wrap(text: &str, size: f64, bold: bool, room: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for piece in text.split_inclusive(['-', ',', ' ', '/']) {
        match lines.last_mut() {
            Some(line) if font::width(format!("{line}{piece}").trim_end(), size, bold) <= room => line.push_str(piece),
            _ => lines.push(piece.to_string()),
        }
    }
    lines.iter().map(|line| fit(line.trim_end(), size, bold, room)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_broken_or_shortened_to_fit() {
        assert_eq!(wrap("INT2-HQQ-KIVI", 11.0, false, 60.0), ["INT2-HQQ-", "KIVI"]);
        assert_eq!(wrap("Small-1B · fused", 11.0, false, 500.0), ["Small-1B · fused"]);
        let short = fit("a name far too long for its place", 11.0, false, 60.0);
        assert!(short.ends_with('…') && font::width(&short, 11.0, false) <= 60.0, "{short}");
        assert_eq!(fit("x", 11.0, false, 0.1), "");
    }

    #[test]
    fn a_long_legend_takes_more_lines() {
        let entries: Vec<(String, u8)> = (0..8).map(|i| (format!("INT{i}-HQQ-KIVI"), i)).collect();
        let mut scene = Scene::default();
        let height = draw(&mut scene, &entries, Swatch::Line, 40.0, 0.0);
        assert!(height >= 3.0 * LINE);
        for shape in &scene.shapes {
            if let Form::Text { at, text, size, .. } = &shape.form {
                assert!(at.0 + font::width(text, *size, false) <= PANEL_WIDTH);
            }
        }
    }
}
