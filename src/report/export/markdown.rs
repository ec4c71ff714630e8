//! A Markdown table (GitHub's dialect), columns padded so that the source reads as a table too.

use crate::report::table::{Column, Kind, Table};

/// `table` for people, an em dash where missing; numbers right-aligned.
pub fn render(table: &Table) -> String {
    let heads: Vec<String> = table.columns.iter().map(|c| escape(&c.header)).collect();
    let body: Vec<Vec<String>> = table
        .rows
        .iter()
        .map(|row| {
            row.iter().zip(&table.columns).map(|(cell, column)| {
                let text = cell.shown(column.digits);
                if text.is_empty() { "—".to_string() } else { escape(&text) }
            })
        })
        .map(Iterator::collect)
        .collect();
    let width = |i: usize| {
        let cells = body.iter().map(|row| row[i].chars().count());
        cells.chain([heads[i].chars().count(), 3]).max().unwrap_or(3)
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let line = |cells: &[String]| {
        let padded: Vec<String> = cells
            .iter()
            .zip(&table.columns)
            .zip(&widths)
            .map(|((text, column), width)| pad(text, column, *width))
            .collect();
        format!("| {} |\n", padded.join(" | "))
    };
    let rule: Vec<String> = table
        .columns
        .iter()
        .zip(&widths)
        .map(|(column, &width)| if right(column) { format!("{}:", "-".repeat(width - 1)) } else { "-".repeat(width) })
        .collect();
    let mut out = String::new();
    if !table.title.is_empty() {
        out.push_str(&format!("**{}**\n\n", table.title));
    }
    out.push_str(&line(&heads));
    out.push_str(&format!("| {} |\n", rule.join(" | ")));
    body.iter().for_each(|row| out.push_str(&line(row)));
    if !table.note.is_empty() {
        out.push_str(&format!("\n{}\n", table.note));
    }
    out
}

fn right(column: &Column) -> bool {
    matches!(column.kind, Kind::Integer | Kind::Real)
}

fn pad(text: &str, column: &Column, width: usize) -> String {
    let fill = " ".repeat(width.saturating_sub(text.chars().count()));
    if right(column) { format!("{fill}{text}") } else { format!("{text}{fill}") }
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('|', "\\|").replace(['\n', '\r'], " ").replace('<', "&lt;")
}
