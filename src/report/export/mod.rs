//! One file for each output format. Each takes a [`Table`](super::table::Table) or a [`Scene`](super::scene::Scene) and knows
//! nothing of result files.

pub mod csv;
pub mod json;
pub mod latex;
pub mod markdown;
pub mod parquet;
pub mod pdf;
pub mod png;
pub mod svg;

use super::table::Table;
use crate::base::error::Result;

/// A format for a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum TableFormat {
    /// Comma-separated values, as Python's csv and pandas write them.
    Csv,
    /// A Markdown table.
    Md,
    /// A LaTeX table for the booktabs package.
    Latex,
    /// An array of objects.
    Json,
    /// Apache Parquet, one row group.
    Parquet,
}

impl TableFormat {
    /// The format that a file name's extension asks for.
    pub fn of_extension(extension: &str) -> Option<Self> {
        Some(match extension.to_ascii_lowercase().as_str() {
            "csv" => TableFormat::Csv,
            "md" | "markdown" => TableFormat::Md,
            "tex" | "latex" => TableFormat::Latex,
            "json" => TableFormat::Json,
            "parquet" => TableFormat::Parquet,
            _ => return None,
        })
    }

    /// Whether a terminal can show it.
    pub fn is_text(self) -> bool {
        self != TableFormat::Parquet
    }

    /// The bytes of `table` in this format.
    ///
    /// # Errors
    /// What the writer of the format reports.
    pub fn render(self, table: &Table) -> Result<Vec<u8>> {
        Ok(match self {
            TableFormat::Csv => csv::render(table)?,
            TableFormat::Md => markdown::render(table).into_bytes(),
            TableFormat::Latex => latex::render(table).into_bytes(),
            TableFormat::Json => json::render(table)?,
            TableFormat::Parquet => parquet::render(table)?,
        })
    }
}
