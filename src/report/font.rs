//! The figures' font: compiled in, so that text has the same width on every machine (`fonts/README.md` says which font).

use std::sync::OnceLock;

use ttf_parser::{Face, GlyphId};

static REGULAR: &[u8] = include_bytes!("fonts/roboto-regular.ttf");
static MEDIUM: &[u8] = include_bytes!("fonts/roboto-medium.ttf");

/// A weight of the font.
pub struct Font {
    /// The TrueType file.
    pub bytes: &'static [u8],
    /// The file, parsed.
    pub face: Face<'static>,
}

/// Medium for titles (`bold`), regular for everything else. `None` only if the compiled-in file were damaged.
pub fn font(bold: bool) -> Option<&'static Font> {
    static FONTS: [OnceLock<Option<Font>>; 2] = [OnceLock::new(), OnceLock::new()];
    let bytes = if bold { MEDIUM } else { REGULAR };
    FONTS[usize::from(bold)].get_or_init(|| Face::parse(bytes, 0).ok().map(|face| Font { bytes, face })).as_ref()
}

impl Font {
    /// Glyph of `c`; a character that the font lacks is shown as `?`.
    pub fn glyph(&self, c: char) -> GlyphId {
        self.face.glyph_index(c).or_else(|| self.face.glyph_index('?')).unwrap_or(GlyphId(0))
    }

    /// Advance of `glyph` in ems.
    pub fn advance(&self, glyph: GlyphId) -> f64 {
        f64::from(self.face.glyph_hor_advance(glyph).unwrap_or(0)) / f64::from(self.face.units_per_em())
    }
}

/// Width of `text` at `size`, in the unit of `size`.
pub fn width(text: &str, size: f64, bold: bool) -> f64 {
    match font(bold) {
        Some(font) => text.chars().map(|c| font.advance(font.glyph(c))).sum::<f64>() * size,
        None => text.chars().count() as f64 * size * 0.6,
    }
}

/// Height of a capital letter over the baseline, in ems.
pub const CAP_HEIGHT: f64 = 0.711;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_font_has_every_sign_that_figures_use() {
        for bold in [false, true] {
            let font = font(bold).unwrap();
            for c in "ABCxyz0189 −×Δµα≤≥±·–—…°%,.()[]".chars() {
                assert!(font.face.glyph_index(c).is_some(), "{c}");
            }
        }
    }

    #[test]
    fn width_grows_with_text_and_size() {
        assert!(width("INT4", 10.0, false) > width("IN", 10.0, false));
        assert!((width("INT4", 20.0, false) - 2.0 * width("INT4", 10.0, false)).abs() < 1e-9);
    }
}
