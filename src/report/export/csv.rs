//! Comma-separated values in Python's manner: `True`/`False`, floats that always show a decimal point, empty where missing.

use crate::base::error::{Error, Result};
use crate::report::table::{Table, Value};

/// `table` with its machine names as the first line.
///
/// # Errors
/// What the writer reports.
pub fn render(table: &Table) -> Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let wrong = |e: csv::Error| Error::Invalid(format!("writing CSV: {e}"));
    writer.write_record(table.columns.iter().map(|c| c.name.as_str())).map_err(wrong)?;
    for row in &table.rows {
        writer.write_record(row.iter().map(|cell| text(&cell.value))).map_err(wrong)?;
    }
    writer.into_inner().map_err(|e| Error::Invalid(format!("writing CSV: {e}")))
}

fn text(value: &Value) -> String {
    match value {
        Value::Missing => String::new(),
        Value::Text(text) => text.clone(),
        Value::Integer(n) => n.to_string(),
        // Debug formatting is the shortest form that reads back the same, with a decimal point: Python's repr.
        Value::Real(value) => format!("{value:?}"),
        Value::Flag(flag) => if *flag { "True" } else { "False" }.into(),
    }
}
