//! A table on the page: sortable by script, every number a link to its file.

use std::fmt::Write;

use crate::report::export::svg::escape;
use crate::report::number;
use crate::report::table::{Cell, Column, Kind, Table};

/// `table` as an element. `links` and `names` are those of the runs that cells come from.
pub fn render(table: &Table, links: &[String], names: &[String]) -> String {
    // Writing to a string cannot fail.
    let mut out = format!("<table id=\"t-{0}\">\n<thead><tr>", escape(&table.id));
    for column in &table.columns {
        let class = if numeric(column) { " class=\"n\"" } else { "" };
        let _ = write!(
            out,
            "<th scope=\"col\"{class} aria-sort=\"none\"><button type=\"button\">{}</button></th>",
            escape(&column.header)
        );
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    for row in &table.rows {
        out.push_str("<tr>");
        for (cell, column) in row.iter().zip(&table.columns) {
            let class = if numeric(column) { " class=\"n\"" } else { "" };
            let sort = cell.number().map_or_else(String::new, |v| format!(" data-v=\"{v}\""));
            let _ = write!(out, "<td{class}{sort}>{}</td>", content(cell, column, links, names));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody>\n</table>");
    out
}

fn numeric(column: &Column) -> bool {
    matches!(column.kind, Kind::Integer | Kind::Real)
}

/// The value, its interval on a line of its own, linked to its file.
fn content(cell: &Cell, column: &Column, links: &[String], names: &[String]) -> String {
    let plain = Cell { interval: None, ..cell.clone() }.shown(column.digits);
    if plain.is_empty() {
        return "<span class=\"none\">–</span>".into();
    }
    let mut text = escape(&plain);
    if let Some(remark) = &cell.remark {
        let _ = write!(text, "<abbr title=\"{}\">*</abbr>", escape(remark));
    }
    if let Some((low, high)) = cell.interval {
        let [low, high] = [low, high].map(|v| escape(&number::shown(v, column.digits)));
        let _ = write!(text, "<small>{low} to {high}</small>");
    }
    match cell.source.and_then(|i| links.get(i).zip(names.get(i))) {
        Some((link, name)) => format!("<a href=\"{}\" title=\"{}\">{text}</a>", escape(link), escape(name)),
        None => text,
    }
}
