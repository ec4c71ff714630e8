//! An array of objects, one for each row; `null` where missing.

use serde_json::{Map, Value as Json};

use crate::base::error::{Error, Result};
use crate::report::table::{Table, Value};

/// `table` under its machine names, indented, ending in a newline.
///
/// # Errors
/// What the writer reports.
pub fn render(table: &Table) -> Result<Vec<u8>> {
    let rows: Vec<Json> = table
        .rows
        .iter()
        .map(|row| {
            let object: Map<String, Json> =
                table.columns.iter().zip(row).map(|(column, cell)| (column.name.clone(), json(&cell.value))).collect();
            Json::Object(object)
        })
        .collect();
    let mut bytes = serde_json::to_vec_pretty(&rows).map_err(|e| Error::Invalid(format!("writing JSON: {e}")))?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn json(value: &Value) -> Json {
    match value {
        Value::Missing => Json::Null,
        Value::Text(text) => Json::from(text.as_str()),
        Value::Integer(n) => Json::from(*n),
        Value::Real(value) => Json::from(*value),
        Value::Flag(flag) => Json::from(*flag),
    }
}
