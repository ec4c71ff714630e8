//! Every output format, as it was when last looked at. `cargo insta review` shows what changed.

use kvprof::report::chart::{
    Axis, Bar, Bars, Chart, Heat, HeatCell, NumberForm, Panel, Plot, Point, Points, Scale, Series,
};
use kvprof::report::draw::{self, Drawn};
use kvprof::report::export::svg::Colours;
use kvprof::report::export::{TableFormat, pdf, png, svg};
use kvprof::report::number::Digits;
use kvprof::report::table::{Cell, Column, Table};
use sha2::{Digest, Sha256};

/// A table with every kind of cell and every character that a format must escape.
fn table() -> Table {
    Table {
        id: "example".into(),
        title: "An example, 50 % of it".into(),
        note: "Brackets: 95 % interval".into(),
        columns: vec![
            Column::text("model", "Model_name"),
            Column::integer("context", "context"),
            Column::real("ppl", "ΔPPL", Digits::Signed(3)),
            Column::real("share", "share", Digits::Percent(1)),
            Column::flag("spilled", "spilled"),
        ],
        rows: vec![
            vec![
                "a|b & \"c\", <d>".into(),
                4096usize.into(),
                Cell::from(0.0021).with_interval(Some((-0.001, 0.0052))),
                0.5.into(),
                false.into(),
            ],
            vec![
                "a|b & \"c\", <d>".into(),
                8192usize.into(),
                Cell::from(-1.25).with_remark("doubtful"),
                Cell::missing(),
                true.into(),
            ],
            vec!["second".into(), Cell::missing(), f64::NAN.into(), 1e-7.into(), Cell::missing()],
        ],
    }
}

fn text(format: TableFormat) -> String {
    String::from_utf8(format.render(&table()).unwrap()).unwrap()
}

#[test]
fn csv() {
    insta::assert_snapshot!(text(TableFormat::Csv));
}

#[test]
fn markdown() {
    insta::assert_snapshot!(text(TableFormat::Md));
}

#[test]
fn latex() {
    insta::assert_snapshot!(text(TableFormat::Latex));
}

#[test]
fn latex_of_more_rows_than_a_page_breaks_and_repeats_its_heads() {
    let mut long = table();
    let row = long.rows.remove(0);
    long.rows = vec![row; 41];
    let text = String::from_utf8(TableFormat::Latex.render(&long).unwrap()).unwrap();
    assert_eq!(text.matches("Model\\_name & context").count(), 2, "{text}");
    let row_count = text.lines().filter(|line| line.contains("4096")).count();
    let head: Vec<&str> = text.lines().take(16).collect();
    assert_eq!((row_count, text.trim_end().ends_with("\\end{longtable}")), (41, true));
    insta::assert_snapshot!(head.join("\n"));
}

#[test]
fn json() {
    insta::assert_snapshot!(text(TableFormat::Json));
}

/// The columns and values that a reader gets back (the bytes hold the writer's version).
#[test]
fn parquet() {
    use parquet::file::reader::{FileReader, SerializedFileReader};

    let bytes = bytes::Bytes::from(TableFormat::Parquet.render(&table()).unwrap());
    let reader = SerializedFileReader::new(bytes).unwrap();
    let mut out = Vec::new();
    parquet::schema::printer::print_schema(&mut out, reader.metadata().file_metadata().schema());
    let rows: Vec<String> = reader.get_row_iter(None).unwrap().map(|row| row.unwrap().to_string()).collect();
    insta::assert_snapshot!(format!("{}\n{}", String::from_utf8(out).unwrap(), rows.join("\n")));
}

/// A figure with each kind of plot.
fn chart() -> Chart {
    let axis = |label: &str, scale, form| Axis { label: label.into(), scale, form };
    let point = |x, y, interval, doubtful| Point {
        x,
        y,
        interval,
        doubtful,
        tip: format!("at {x}\n<{y}>"),
        ..Point::default()
    };
    let series =
        |name: &str, colour, points| Series { name: name.into(), colour, joined: true, points, ..Series::default() };
    let points = Points {
        x: axis("context, tokens", Scale::Log2, NumberForm::Tokens),
        y: axis("rise of perplexity", Scale::Symlog(0.001), NumberForm::Percent),
        series: vec![
            series("FP16", 0, vec![point(4096.0, 0.0, None, false), point(8192.0, 0.0, None, true)]),
            series("INT2", 1, vec![point(4096.0, 0.03, Some((0.02, 0.04)), false), point(8192.0, 5.2, None, false)]),
        ],
        rule: Some((0.01, "bound".into())),
    };
    let bars = Bars {
        x: axis("kernel time, ms", Scale::Linear, NumberForm::Plain),
        parts: vec!["attention".into(), "ffn".into()],
        bars: vec![Bar {
            name: "INT4-HQQ-KIVI".into(),
            values: vec![1.5, 0.5],
            tips: vec!["attention".into(), "ffn".into()],
        }],
    };
    let cell = |shade: f64, text: &str| Some(HeatCell { shade, text: text.into(), tip: text.into() });
    let heat = Heat {
        x_label: "cache".into(),
        y_label: "model".into(),
        columns: vec!["INT8".into(), "INT4".into(), "INT2".into()],
        rows: vec!["Small".into()],
        cells: vec![vec![cell(0.0, "0.001"), cell(1.0, "+43.7"), None]],
        ends: ("low".into(), "high".into()),
    };
    let panel = |title: &str, plot| Panel { title: title.into(), plot };
    Chart {
        id: "example".into(),
        title: "An example".into(),
        caption: String::new(),
        panels: vec![
            panel("Lines", Plot::Points(points)),
            panel("Bars", Plot::Bars(bars)),
            panel("Cells", Plot::Heat(heat)),
        ],
    }
}

#[test]
fn svg_file() {
    insta::assert_snapshot!(svg::render(&draw::figure(&Drawn::new(&chart())), Colours::Literal));
}

#[test]
fn svg_in_a_page() {
    insta::assert_snapshot!(svg::render(&draw::panel(&chart().panels[2]), Colours::Page));
}

/// The page's drawing operations in full, and a digest of everything (the embedded fonts are long).
#[test]
fn pdf_file() {
    let bytes = pdf::render(&draw::figure(&Drawn::new(&chart())));
    let find =
        |needle: &[u8], from: usize| from + bytes[from..].windows(needle.len()).position(|w| w == needle).unwrap();
    let object = find(b"4 0 obj", 0);
    let start = find(b"stream\n", object) + 7;
    let end = find(b"endstream", start);
    let readable = |b: &&u8| b.is_ascii_graphic() || **b == b' ' || **b == b'\n';
    let operations: String = bytes[start..end].iter().filter(readable).map(|b| char::from(*b)).collect();
    let texts = operations.lines().filter(|l| l.ends_with("Tj")).count();
    insta::assert_snapshot!(format!(
        "{} bytes, {texts} texts\n{:x}\n{}",
        bytes.len(),
        Sha256::digest(&bytes),
        shapes(&operations)
    ));
}

/// Operations without the texts, whose codes are glyph numbers.
fn shapes(operations: &str) -> String {
    operations.lines().filter(|l| !l.ends_with("Tj")).take(60).collect::<Vec<_>>().join("\n")
}

/// Size and a coarse picture: the mean darkness of a grid of fields, in tenths, which does not hang on rounding in the last bit.
#[test]
fn png_file() {
    let bytes = png::render(&draw::figure(&Drawn::new(&chart()))).unwrap();
    let map = tiny_skia::Pixmap::decode_png(&bytes).unwrap();
    let (columns, rows) = (48, 32);
    let mut picture = format!("{} × {}\n", map.width(), map.height());
    for row in 0..rows {
        for column in 0..columns {
            let (x0, x1) = (column * map.width() / columns, (column + 1) * map.width() / columns);
            let (y0, y1) = (row * map.height() / rows, (row + 1) * map.height() / rows);
            let mut dark = 0.0;
            for y in y0..y1 {
                for x in x0..x1 {
                    let p = map.pixel(x, y).unwrap();
                    dark += 1.0 - (f64::from(p.red()) + f64::from(p.green()) + f64::from(p.blue())) / 765.0;
                }
            }
            let mean = dark / f64::from((x1 - x0) * (y1 - y0));
            picture.push(match (mean * 40.0) as u32 {
                0 if mean < 0.002 => ' ',
                0 => '.',
                1..=3 => ':',
                4..=9 => 'o',
                _ => '#',
            });
        }
        picture.push('\n');
    }
    insta::assert_snapshot!(picture);
}

/// No text leaves the picture, and no two texts of a panel overlap.
#[test]
fn texts_stay_apart_and_inside() {
    use kvprof::report::font;
    use kvprof::report::scene::{Anchor, Form};

    for panel in chart().panels {
        let scene = draw::panel(&panel);
        let boxes: Vec<(String, [f64; 4])> = scene
            .shapes
            .iter()
            .filter_map(|shape| match &shape.form {
                Form::Text { at, text, size, bold, anchor, upright: false } => {
                    let width = font::width(text, *size, *bold);
                    let left = match anchor {
                        Anchor::Start => at.0,
                        Anchor::Middle => at.0 - width / 2.0,
                        Anchor::End => at.0 - width,
                    };
                    Some((text.clone(), [left, at.1 - size * 0.72, left + width, at.1]))
                }
                _ => None,
            })
            .collect();
        for (i, (text, [x0, y0, x1, y1])) in boxes.iter().enumerate() {
            assert!(
                *x0 >= 0.0 && *y0 >= 0.0 && *x1 <= scene.width && *y1 <= scene.height,
                "{text:?} leaves {}",
                panel.title
            );
            for (other, [a0, b0, a1, b1]) in &boxes[i + 1..] {
                assert!(x1 <= a0 || a1 <= x0 || y1 <= b0 || b1 <= y0, "{text:?} overlaps {other:?} in {}", panel.title);
            }
        }
    }
}
