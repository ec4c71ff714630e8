//! Rows of a data file, by its extension.

use std::fs::File;
use std::path::Path;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use serde_json::Value;

use super::Row;
use crate::{Error, Result};

/// The rows of a `.parquet`, `.jsonl` or `.json` (one array) file.
///
/// # Errors
/// Names the file, and the line where one is wrong; another extension is an error that lists the known ones.
pub fn rows(path: &Path) -> Result<Vec<Row>> {
    match path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_lowercase().as_str() {
        "parquet" => parquet(path),
        "jsonl" => json_lines(path),
        "json" => json_array(path),
        other => {
            Err(Error::file(path, format!("holds no rows that can be read (.{other}); give .parquet, .jsonl or .json")))
        }
    }
}

fn text(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    let content = String::from_utf8(bytes).map_err(|_| Error::file(path, "is not UTF-8 text"))?;
    Ok(content.strip_prefix('\u{feff}').map(str::to_string).unwrap_or(content))
}

fn json_lines(path: &Path) -> Result<Vec<Row>> {
    let content = text(path)?;
    let lines = content.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(at, line)| {
            serde_json::from_str(line).map_err(|e| {
                Error::file(path, format!("line {} is not a JSON object ({e}); mend or remove it", at + 1))
            })
        })
        .collect()
}

fn json_array(path: &Path) -> Result<Vec<Row>> {
    serde_json::from_str(&text(path)?)
        .map_err(|e| Error::file(path, format!("is not an array of JSON objects ({e}); give one, or a .jsonl file")))
}

fn parquet(path: &Path) -> Result<Vec<Row>> {
    let broken =
        |e: parquet::errors::ParquetError| Error::file(path, format!("is not a parquet file that can be read ({e})"));
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    let reader = SerializedFileReader::new(file).map_err(broken)?;
    let rows = reader.get_row_iter(None).map_err(broken)?;
    rows.map(|row| {
        let row = row.map_err(broken)?;
        Ok(row.get_column_iter().map(|(name, field)| (name.clone(), value(field))).collect())
    })
    .collect()
}

/// Text, numbers, lists and groups; what no data set here uses becomes null.
fn value(field: &Field) -> Value {
    match field {
        Field::Str(text) => Value::from(text.as_str()),
        Field::Bytes(bytes) => String::from_utf8(bytes.data().to_vec()).map_or(Value::Null, Value::from),
        Field::Bool(v) => Value::from(*v),
        Field::Byte(v) => Value::from(*v),
        Field::Short(v) => Value::from(*v),
        Field::Int(v) => Value::from(*v),
        Field::Long(v) => Value::from(*v),
        Field::UByte(v) => Value::from(*v),
        Field::UShort(v) => Value::from(*v),
        Field::UInt(v) => Value::from(*v),
        Field::ULong(v) => Value::from(*v),
        Field::Float(v) => Value::from(*v),
        Field::Double(v) => Value::from(*v),
        Field::ListInternal(list) => list.elements().iter().map(value).collect(),
        Field::Group(group) => {
            Value::Object(group.get_column_iter().map(|(name, field)| (name.clone(), value(field))).collect())
        }
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(name: &str, content: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        (folder, path)
    }

    #[test]
    fn json_lines_are_rows_and_a_wrong_line_is_named() {
        let (_keep, path) = written("a.jsonl", b"{\"problem\": \"1+1\"}\n\n{\"problem\": \"2+2\"}\n");
        let rows = rows(&path).unwrap();
        assert_eq!((rows.len(), rows[1]["problem"].as_str()), (2, Some("2+2")));
        let (_keep, path) = written("b.jsonl", b"{\"problem\": 1}\n{\"prob");
        let error = super::rows(&path).unwrap_err().to_string();
        assert!(error.contains("b.jsonl") && error.contains("line 2"), "{error}");
    }

    #[test]
    fn debris_is_an_error_that_names_the_file() {
        for (name, content) in
            [("x.parquet", &b"PAR1 not really"[..]), ("x.json", b"{}"), ("x.jsonl", b"\xff\xfe"), ("x.txt", b"hello")]
        {
            let (_keep, path) = written(name, content);
            let error = rows(&path).unwrap_err();
            assert!(error.is_usage() && error.to_string().contains(name), "{error}");
        }
    }
}
