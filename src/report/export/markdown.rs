//! A Markdown table (GitHub's dialect), columns padded so that the source reads as a table too.

use crate::report::table::{Cell, Column, Kind, Table};

/// `table` for people, an em dash where missing; numbers right-aligned.
pub fn render(table: &Table) -> String {
    let heads: Vec<String> = table.columns.iter().map(|c| c.header.clone()).collect();
    let shown = |(cell, column): (&Cell, &Column)| {
        let text = cell.shown(column.digits);
        if text.is_empty() { "—".to_string() } else { text }
    };
    let body: Vec<Vec<String>> =
        table.rows.iter().map(|row| row.iter().zip(&table.columns).map(shown).collect()).collect();
    let right: Vec<bool> = table.columns.iter().map(|c| matches!(c.kind, Kind::Integer | Kind::Real)).collect();
    let mut out = String::new();
    if !table.title.is_empty() {
        out.push_str(&format!("**{}**\n\n", table.title));
    }
    out.push_str(&grid(&heads, &body, &right));
    if !table.note.is_empty() {
        out.push_str(&format!("\n{}\n", table.note));
    }
    out
}

/// The lines of a table of `body` under `heads`, the columns of which `right` says so aligned right.
pub fn grid(heads: &[String], body: &[Vec<String>], right: &[bool]) -> String {
    let heads: Vec<String> = heads.iter().map(|head| escape(head)).collect();
    let body: Vec<Vec<String>> = body.iter().map(|row| row.iter().map(|text| escape(text)).collect()).collect();
    let width = |i: usize| {
        let cells = body.iter().map(|row| row[i].chars().count());
        cells.chain([heads[i].chars().count(), 3]).max().unwrap_or(3)
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let line = |cells: &[String]| {
        let padded = cells.iter().zip(right).zip(&widths).map(|((text, right), width)| pad(text, *right, *width));
        format!("| {} |\n", padded.collect::<Vec<_>>().join(" | "))
    };
    let rule = right.iter().zip(&widths).map(|(right, &width)| match right {
        true => format!("{}:", "-".repeat(width - 1)),
        false => "-".repeat(width),
    });
    let mut out = line(&heads);
    out.push_str(&format!("| {} |\n", rule.collect::<Vec<_>>().join(" | ")));
    body.iter().for_each(|row| out.push_str(&line(row)));
    out
}

fn pad(text: &str, right: bool, width: usize) -> String {
    let fill = " ".repeat(width.saturating_sub(text.chars().count()));
    if right { format!("{fill}{text}") } else { format!("{text}{fill}") }
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('|', "\\|").replace(['\n', '\r'], " ").replace('<', "&lt;")
}
