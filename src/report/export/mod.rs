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

use std::path::Path;

use super::table::Table;
use crate::base::error::{Error, Result};

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
    /// The format of what is written to `path`, or to standard output without one: that of the `flag`, else that of the path's extension, else
    /// `default`.
    ///
    /// # Errors
    /// A usage error where the extension tells no format, or standard output cannot show it.
    pub fn chosen(flag: Option<Self>, path: Option<&Path>, default: Self) -> Result<Self> {
        let extension = path.and_then(Path::extension).map(|e| e.to_string_lossy());
        let format = match (flag, extension) {
            (Some(format), _) => format,
            (None, Some(extension)) => TableFormat::of_extension(&extension).ok_or_else(|| {
                Error::usage(format!(
                    "cannot tell the format from .{extension}; add --format csv, md, latex, json or parquet"
                ))
            })?,
            (None, None) => default,
        };
        match path.is_some() || format.is_text() {
            true => Ok(format),
            false => Err(Error::usage("Parquet is not text: name a file with --output")),
        }
    }

    /// The format that a file name's extension asks for.
    fn of_extension(extension: &str) -> Option<Self> {
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
    fn is_text(self) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_decides_then_the_extension_then_what_is_usual() {
        let chosen = |flag, path: Option<&str>| TableFormat::chosen(flag, path.map(Path::new), TableFormat::Md);
        assert_eq!(chosen(Some(TableFormat::Csv), Some("x.json")).unwrap(), TableFormat::Csv);
        assert_eq!(chosen(Some(TableFormat::Csv), Some("x.xlsx")).unwrap(), TableFormat::Csv);
        assert_eq!(chosen(None, Some("folder.d/x.TEX")).unwrap(), TableFormat::Latex);
        assert_eq!(chosen(None, Some("folder.d/x")).unwrap(), TableFormat::Md);
        assert_eq!(chosen(None, None).unwrap(), TableFormat::Md);
        assert!(chosen(None, Some("x.xlsx")).unwrap_err().to_string().contains("cannot tell the format from .xlsx"));
        assert!(chosen(Some(TableFormat::Parquet), None).unwrap_err().to_string().contains("--output"));
    }
}
