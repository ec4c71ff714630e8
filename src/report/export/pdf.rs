//! One page of vector graphics with its font embedded, so that it prints the same everywhere and its text can be searched.

use std::collections::BTreeMap;

use pdf_writer::types::{CidFontType, FontFlags, LineCapStyle, LineJoinStyle, SystemInfo, UnicodeCmap};
use pdf_writer::{Content, Finish, Name, Pdf, Rect, Ref, Str, TextStr};

use crate::report::font::{self, Font};
use crate::report::scene::{Anchor, Form, Ink, Scene};

/// Distance of a circle's control points from its axes, as a share of the radius.
const ARC: f64 = 0.552_284_75;
const SYSTEM: SystemInfo = SystemInfo { registry: Str(b"Adobe"), ordering: Str(b"Identity"), supplement: 0 };

/// `scene` as a file.
pub fn render(scene: &Scene) -> Vec<u8> {
    let [catalog, pages, page, content, info] = [1, 2, 3, 4, 5].map(Ref::new);
    let mut pdf = Pdf::new();
    pdf.catalog(catalog).pages(pages);
    pdf.pages(pages).kids([page]).count(1);
    pdf.document_info(info).title(TextStr(&scene.title)).producer(TextStr("kvprof"));
    let mut leaf = pdf.page(page);
    leaf.media_box(Rect::new(0.0, 0.0, scene.width as f32, scene.height as f32)).parent(pages).contents(content);
    let mut resources = leaf.resources();
    let mut fonts = resources.fonts();
    for bold in [false, true] {
        fonts.pair(resource(bold), Ref::new(first_of(bold)));
    }
    fonts.finish();
    resources.finish();
    leaf.finish();
    pdf.stream(content, &draw(scene));
    for bold in [false, true] {
        if let Some(font) = font::font(bold) {
            embed(&mut pdf, font, bold, &characters(scene, bold));
        }
    }
    pdf.finish()
}

fn resource(bold: bool) -> Name<'static> {
    Name(if bold { b"Medium" } else { b"Regular" })
}

/// The first of the five references that a font takes.
fn first_of(bold: bool) -> i32 {
    if bold { 20 } else { 10 }
}

/// Glyphs that `scene` uses in a weight, with the character that each stands for.
fn characters(scene: &Scene, weight: bool) -> BTreeMap<u16, char> {
    let Some(font) = font::font(weight) else { return BTreeMap::new() };
    let texts = scene.shapes.iter().filter_map(|shape| match &shape.form {
        Form::Text { text, bold, .. } if *bold == weight => Some(text.chars()),
        _ => None,
    });
    texts.flatten().map(|c| (font.glyph(c).0, c)).collect()
}

/// Writes a weight of the font: a composite font whose codes are glyph numbers, with the file, the advances and the way back
/// from glyphs to characters.
fn embed(pdf: &mut Pdf, font: &Font, bold: bool, characters: &BTreeMap<u16, char>) {
    let first = first_of(bold);
    let [composite, cid, descriptor, file, cmap] = [0, 1, 2, 3, 4].map(|i| Ref::new(first + i));
    let name = Name(if bold { b"KVPRFM+Roboto-Medium" } else { b"KVPRFR+Roboto-Regular" });
    let thousandths = |units: i16| f32::from(units) * 1000.0 / f32::from(font.face.units_per_em());

    pdf.type0_font(composite)
        .base_font(name)
        .encoding_predefined(Name(b"Identity-H"))
        .descendant_font(cid)
        .to_unicode(cmap);
    let mut out = pdf.cid_font(cid);
    out.subtype(CidFontType::Type2)
        .base_font(name)
        .system_info(SYSTEM)
        .font_descriptor(descriptor)
        .default_width(0.0)
        .cid_to_gid_map_predefined(Name(b"Identity"));
    let mut widths = out.widths();
    for glyph in characters.keys() {
        widths.consecutive(*glyph, [font.advance(ttf_parser::GlyphId(*glyph)) as f32 * 1000.0]);
    }
    widths.finish();
    out.finish();
    let bounds = font.face.global_bounding_box();
    pdf.font_descriptor(descriptor)
        .name(name)
        .flags(FontFlags::SYMBOLIC)
        .bbox(Rect::new(
            thousandths(bounds.x_min),
            thousandths(bounds.y_min),
            thousandths(bounds.x_max),
            thousandths(bounds.y_max),
        ))
        .italic_angle(0.0)
        .ascent(thousandths(font.face.ascender()))
        .descent(thousandths(font.face.descender()))
        .cap_height(font::CAP_HEIGHT as f32 * 1000.0)
        .stem_v(if bold { 100.0 } else { 80.0 })
        .font_file2(file);
    pdf.stream(file, font.bytes).pair(Name(b"Length1"), font.bytes.len() as i32);
    let mut unicode = UnicodeCmap::<u16>::new(Name(b"Custom"), SYSTEM);
    for (glyph, character) in characters {
        unicode.pair(*glyph, *character);
    }
    pdf.cmap(cmap, &unicode.finish());
}

/// The page's drawing operations. Its y axis points upwards.
fn draw(scene: &Scene) -> Vec<u8> {
    let mut out = Content::new();
    let flip = |(x, y): (f64, f64)| (x as f32, (scene.height - y) as f32);
    out.set_line_cap(LineCapStyle::RoundCap).set_line_join(LineJoinStyle::RoundJoin);
    for shape in &scene.shapes {
        let [r, g, b] = components(shape.ink);
        match &shape.form {
            Form::Line { points, width, dashed } => {
                out.set_stroke_rgb(r, g, b).set_line_width(*width as f32);
                out.set_dash_pattern(if *dashed { vec![5.0, 3.0] } else { Vec::new() }, 0.0);
                path(&mut out, points.iter().map(|p| flip(*p)));
                out.stroke();
            }
            Form::Polygon(points) => {
                out.set_fill_rgb(r, g, b);
                path(&mut out, points.iter().map(|p| flip(*p)));
                out.close_path().fill_nonzero();
            }
            Form::Rect(x, y, w, h) => {
                let (x, y) = flip((*x, y + h));
                out.set_fill_rgb(r, g, b).rect(x, y, *w as f32, *h as f32).fill_nonzero();
            }
            Form::Circle(x, y, radius) => {
                out.set_fill_rgb(r, g, b);
                circle(&mut out, flip((*x, *y)), *radius as f32);
                out.fill_nonzero();
            }
            Form::Text { at, text, size, bold, anchor, upright } => {
                let Some(font) = font::font(*bold) else { continue };
                let width = font::width(text, *size, *bold);
                let back = match anchor {
                    Anchor::Start => 0.0,
                    Anchor::Middle => width / 2.0,
                    Anchor::End => width,
                };
                let codes: Vec<u8> = text.chars().flat_map(|c| font.glyph(c).0.to_be_bytes()).collect();
                let matrix = if *upright {
                    let (x, y) = flip((at.0, at.1 + back));
                    [0.0, 1.0, -1.0, 0.0, x, y]
                } else {
                    let (x, y) = flip((at.0 - back, at.1));
                    [1.0, 0.0, 0.0, 1.0, x, y]
                };
                out.set_fill_rgb(r, g, b).begin_text().set_font(resource(*bold), *size as f32);
                out.set_text_matrix(matrix).show(Str(&codes)).end_text();
            }
        }
    }
    out.finish().to_vec()
}

fn components(ink: Ink) -> [f32; 3] {
    let (r, g, b) = ink.rgb();
    [r, g, b].map(|c| f32::from(c) / 255.0)
}

fn path(out: &mut Content, points: impl Iterator<Item = (f32, f32)>) {
    for (i, (x, y)) in points.enumerate() {
        if i == 0 {
            out.move_to(x, y);
        } else {
            out.line_to(x, y);
        }
    }
}

fn circle(out: &mut Content, (x, y): (f32, f32), r: f32) {
    let k = r * ARC as f32;
    out.move_to(x + r, y);
    out.cubic_to(x + r, y + k, x + k, y + r, x, y + r);
    out.cubic_to(x - k, y + r, x - r, y + k, x - r, y);
    out.cubic_to(x - r, y - k, x - k, y - r, x, y - r);
    out.cubic_to(x + k, y - r, x + r, y - k, x + r, y);
}
