//! Tables for a terminal: without the columns that no row has a value for, and in parts, one below the other, where the terminal is
//! narrower than the table. The same as Markdown, for a page or an issue.

use std::fmt::{self, Display};

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Table};

use super::export::markdown;

const ABSENT: &str = "–";

/// What a column takes beside its content: a space on each side, and a rule.
const FRAME: usize = 3;

/// A table whose first columns, the keys, tell its rows apart.
pub struct TerminalTable {
    table: Table,
    keys: usize,
    /// The first column that is aligned right.
    right: usize,
}

impl TerminalTable {
    /// A table under `heads`; the first `keys` columns stand in each of its parts.
    pub fn new<H: ToString>(heads: impl IntoIterator<Item = H>, keys: usize) -> Self {
        let mut table = Table::new();
        // Wrapped cells would break numbers apart.
        table.load_style(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(heads.into_iter().map(|head| head.to_string()));
        TerminalTable { table, keys, right: usize::MAX }
    }

    /// The same with the columns from the `first` on aligned right, as numbers are read.
    pub fn right_from(mut self, first: usize) -> Self {
        for column in self.table.column_iter_mut().skip(first) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        self.right = first;
        self
    }

    /// Adds a row. A cell is [`absent`] where there is no value, and empty where the row above tells it.
    pub fn add_row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.table.add_row(cells);
    }

    /// Whether a row has a value beside its keys.
    pub fn has_values(&self) -> bool {
        self.used().iter().any(|column| *column >= self.keys)
    }

    /// The table for a terminal of `width` columns; as wide as it is where that is `None`. A part has at least one column beside the
    /// keys, however narrow the terminal.
    pub fn within(&self, width: Option<u16>) -> String {
        let widths = self.table.column_max_content_widths();
        let taken = |columns: &[usize]| 1 + columns.iter().map(|at| usize::from(widths[*at]) + FRAME).sum::<usize>();
        let (keys, values): (Vec<usize>, Vec<usize>) = self.used().into_iter().partition(|at| *at < self.keys);
        let mut parts = Vec::new();
        let mut part = keys.clone();
        for column in values {
            part.push(column);
            let too_wide = width.is_some_and(|width| taken(&part) > usize::from(width));
            if too_wide && part.len() > keys.len() + 1 {
                part.pop();
                parts.push(std::mem::replace(&mut part, [keys.as_slice(), &[column]].concat()));
            }
        }
        parts.push(part);
        parts.iter().map(|part| self.showing(part)).collect::<Vec<_>>().join("\n")
    }

    /// The table as Markdown in GitHub's dialect, however wide.
    pub fn markdown(&self) -> String {
        let used = self.used();
        let cells = |row: &comfy_table::Row| -> Vec<String> {
            let cells: Vec<_> = row.cell_iter().collect();
            used.iter().filter_map(|at| cells.get(*at)).map(|cell| cell.content()).collect()
        };
        let heads = self.table.header().map(cells).unwrap_or_default();
        let body: Vec<Vec<String>> = self.table.row_iter().map(cells).collect();
        let right: Vec<bool> = used.iter().map(|at| *at >= self.right).collect();
        markdown::grid(&heads, &body, &right)
    }

    /// The columns in which some row has a value.
    fn used(&self) -> Vec<usize> {
        let has_value = |at: &usize| {
            let mut cells = self.table.column_cells_iter(*at).flatten();
            cells.any(|cell| !matches!(cell.content().as_str(), "" | ABSENT))
        };
        (0..self.table.column_iter().count()).filter(has_value).collect()
    }

    /// The table with these columns only.
    fn showing(&self, columns: &[usize]) -> String {
        let mut table = self.table.clone();
        for (at, column) in table.column_iter_mut().enumerate() {
            if !columns.contains(&at) {
                column.set_constraint(ColumnConstraint::Hidden);
            }
        }
        table.to_string()
    }
}

impl Display for TerminalTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.within(None))
    }
}

/// A cell without a value.
pub fn absent() -> String {
    ABSENT.into()
}

/// Columns of the terminal that standard output is; `None` where it is none, or does not say.
pub fn width() -> Option<u16> {
    Table::new().width().filter(|width| *width > 0)
}

/// `text` in lines of at most `width` columns, those after the first set in; a word that is wider has a line of its own. As it is where
/// that is `None`.
pub fn wrapped(text: &str, width: Option<u16>) -> String {
    const SET_IN: &str = "  ";
    let Some(width) = width.map(usize::from) else { return text.into() };
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last().map_or(0, |line| line.chars().count());
        if line > 0 && line + 1 + word.chars().count() > width {
            lines.push(SET_IN.to_string());
        } else if line > 0
            && let Some(line) = lines.last_mut()
        {
            line.push(' ');
        }
        if let Some(line) = lines.last_mut() {
            line.push_str(word);
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> TerminalTable {
        let mut table = TerminalTable::new(["KV cache", "context", "prefill ms", "saved", "J/token"], 2).right_from(1);
        table.add_row(["none", "1024", "94.6", "1.00×", ABSENT].map(String::from));
        table.add_row(["", "2048", "201.7", "1.00×", ABSENT].map(String::from));
        table
    }

    #[test]
    fn a_column_without_a_value_is_left_out_and_one_with_some_is_not() {
        let mut table = table();
        assert!(!table.to_string().contains("J/token"), "{table}");
        table.add_row(["int4-hqq", "1024", ABSENT, ABSENT, "3.46"].map(String::from));
        assert!(table.to_string().contains("J/token") && table.to_string().contains(ABSENT), "{table}");
    }

    #[test]
    fn a_table_of_keys_alone_has_no_values() {
        let mut table = TerminalTable::new(["KV cache", "PPL"], 1);
        table.add_row(["none", ABSENT].map(String::from));
        assert!(!table.has_values());
        table.add_row(["int4-hqq", "2.082"].map(String::from));
        assert!(table.has_values());
    }

    #[test]
    fn what_is_wider_than_the_terminal_is_told_in_parts_that_all_name_their_rows() {
        let table = table();
        let whole = table.to_string();
        let width = whole.lines().next().unwrap().chars().count() as u16;
        assert_eq!(table.within(Some(width)), whole);
        let parts = table.within(Some(width - 1));
        assert!(parts.lines().all(|line| line.chars().count() < usize::from(width)), "{parts}");
        for (told, times) in [("context", 2), ("2048", 2), ("94.6", 1), ("saved", 1)] {
            assert_eq!(parts.matches(told).count(), times, "{told} in\n{parts}");
        }
        assert_eq!(table.within(Some(1)), parts, "a part has one value at least");
    }

    #[test]
    fn markdown_has_the_same_columns_and_keeps_its_bars_apart_from_those_of_a_cell() {
        let mut table = table();
        table.add_row(["a|b", "512", "3.5", ABSENT, ABSENT].map(String::from));
        let expected = [
            "| KV cache | context | prefill ms | saved |",
            "| -------- | ------: | ---------: | ----: |",
            "| none     |    1024 |       94.6 | 1.00× |",
            "|          |    2048 |      201.7 | 1.00× |",
            "| a\\|b     |     512 |        3.5 |     – |",
        ];
        assert_eq!(table.markdown().lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn sentences_are_broken_between_words() {
        let text = "For builtin, use int4-hqq.";
        assert_eq!(wrapped(text, None), text);
        assert_eq!(wrapped(text, Some(26)), text);
        assert_eq!(wrapped(text, Some(25)), "For builtin, use\n  int4-hqq.");
        assert_eq!(wrapped(text, Some(3)), "For\n  builtin,\n  use\n  int4-hqq.");
        assert_eq!(wrapped("−1 ± 2", Some(6)), "−1 ± 2", "columns, not bytes");
    }
}
