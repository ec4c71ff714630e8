//! A LaTeX table for the booktabs package: a `table` environment with caption and label, to be `\input` as it is, or, where it is
//! longer than a page, a `longtable`, which breaks and repeats its heads.

use crate::report::table::{Cell, Column, Kind, Table, Value};

/// Rows that a page has room for, caption and heads beside them.
const PAGE_ROWS: usize = 40;

/// `table` for people; an en dash where missing.
pub fn render(table: &Table) -> String {
    let layout: String = table.columns.iter().map(|c| if numeric(c) { 'r' } else { 'l' }).collect();
    let heads: Vec<String> = table.columns.iter().map(|c| escape(&c.header)).collect();
    let heads = format!("    \\toprule\n    {} \\\\\n    \\midrule\n", heads.join(" & "));
    let caption = if table.note.is_empty() { table.title.clone() } else { format!("{}. {}", table.title, table.note) };
    let caption = if caption.is_empty() { caption } else { format!("  \\caption{{{}}}\n", escape(&caption)) };
    let label = format!("  \\label{{tab:{}}}", table.id);
    let rows = rows(table);
    if table.rows.len() > PAGE_ROWS {
        return format!(
            "% Needs \\usepackage{{booktabs,longtable}}\n\\begin{{longtable}}{{@{{}}{layout}@{{}}}}\n{caption}{label} \\\\\n\
             {heads}    \\endfirsthead\n{heads}    \\endhead\n    \\bottomrule\n    \\endfoot\n{rows}\\end{{longtable}}\n"
        );
    }
    format!(
        "% Needs \\usepackage{{booktabs}}\n\\begin{{table}}[tb]\n  \\centering\n{caption}{label}\n  \
         \\begin{{tabular}}{{@{{}}{layout}@{{}}}}\n{heads}{rows}    \\bottomrule\n  \\end{{tabular}}\n\\end{{table}}\n"
    )
}

/// The rows below the heads.
fn rows(table: &Table) -> String {
    let mut out = String::new();
    let mut before: Option<&Cell> = None;
    for row in &table.rows {
        // A rule between the groups that the first column makes.
        if before.is_some_and(|b| row.first().is_some_and(|cell| cell.value != b.value)) && groups(table) {
            out.push_str("    \\addlinespace\n");
        }
        before = row.first();
        let cells: Vec<String> = row.iter().zip(&table.columns).map(|(cell, column)| text(cell, column)).collect();
        out.push_str(&format!("    {} \\\\\n", cells.join(" & ")));
    }
    out
}

/// Whether the first column repeats, so that it makes groups.
fn groups(table: &Table) -> bool {
    table.rows.windows(2).any(|pair| pair[0].first().map(|c| &c.value) == pair[1].first().map(|c| &c.value))
}

fn numeric(column: &Column) -> bool {
    matches!(column.kind, Kind::Integer | Kind::Real)
}

fn text(cell: &Cell, column: &Column) -> String {
    match &cell.value {
        Value::Missing => "--".into(),
        Value::Text(_) | Value::Flag(_) => escape(&cell.shown(column.digits)),
        Value::Integer(_) | Value::Real(_) => {
            let text = escape(&cell.shown(column.digits));
            // A remark is a footnote mark; the note below the table explains it.
            if cell.remark.is_some() { format!("{text}\\textsuperscript{{*}}") } else { text }
        }
    }
}

/// `text` with LaTeX's special characters made harmless and the signs that text fonts lack set in math mode.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\textbackslash{}"),
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => {
                out.push('\\');
                out.push(c);
            }
            '~' => out.push_str("\\textasciitilde{}"),
            '^' => out.push_str("\\textasciicircum{}"),
            '<' => out.push_str("$<$"),
            '>' => out.push_str("$>$"),
            '−' => out.push_str("$-$"),
            '+' => out.push_str("$+$"),
            '×' => out.push_str("$\\times$"),
            '±' => out.push_str("$\\pm$"),
            '≤' => out.push_str("$\\le$"),
            '≥' => out.push_str("$\\ge$"),
            'Δ' => out.push_str("$\\Delta$"),
            '–' => out.push_str("--"),
            '—' => out.push_str("---"),
            '\n' | '\r' => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn special_characters_are_harmless() {
        assert_eq!(
            escape("a_b & 5% {x} \\ $1 #2 ~ ^"),
            r"a\_b \& 5\% \{x\} \textbackslash{} \$1 \#2 \textasciitilde{} \textasciicircum{}"
        );
        assert_eq!(escape("−0.5 × Δ"), r"$-$0.5 $\times$ $\Delta$");
    }
}
