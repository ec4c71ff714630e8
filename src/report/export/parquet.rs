//! Apache Parquet: one row group, every column optional, snappy, under the table's machine names.

use std::sync::Arc;

use parquet::basic::{Compression, LogicalType, Repetition, Type as Physical};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, DoubleType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::types::{Type, TypePtr};

use crate::base::error::{Error, Result};
use crate::report::table::{Column, Kind, Table, Value};

/// `table` as a Parquet file.
///
/// # Errors
/// What the writer reports.
pub fn render(table: &Table) -> Result<Vec<u8>> {
    write(table).map_err(|e| Error::Invalid(format!("writing Parquet: {e}")))
}

fn write(table: &Table) -> Result<Vec<u8>, ParquetError> {
    let fields = table.columns.iter().map(field).collect::<Result<Vec<TypePtr>, _>>()?;
    let schema = Arc::new(Type::group_type_builder("rows").with_fields(fields).build()?);
    let properties = Arc::new(WriterProperties::builder().set_compression(Compression::SNAPPY).build());
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, properties)?;
    let mut group = writer.next_row_group()?;
    for (index, column) in table.columns.iter().enumerate() {
        let cells = || table.rows.iter().map(move |row| &row[index].value);
        let Some(mut out) = group.next_column()? else { break };
        match column.kind {
            Kind::Text => put::<ByteArrayType>(
                &mut out,
                cells().map(|v| match v {
                    Value::Text(text) => Some(ByteArray::from(text.as_str())),
                    _ => None,
                }),
            )?,
            Kind::Integer => put::<Int64Type>(
                &mut out,
                cells().map(|v| match v {
                    Value::Integer(n) => Some(*n),
                    _ => None,
                }),
            )?,
            Kind::Real => put::<DoubleType>(
                &mut out,
                cells().map(|v| match v {
                    Value::Real(value) => Some(*value),
                    Value::Integer(n) => Some(*n as f64),
                    _ => None,
                }),
            )?,
            Kind::Flag => put::<BoolType>(
                &mut out,
                cells().map(|v| match v {
                    Value::Flag(flag) => Some(*flag),
                    _ => None,
                }),
            )?,
        }
        out.close()?;
    }
    group.close()?;
    writer.into_inner()
}

fn field(column: &Column) -> Result<TypePtr, ParquetError> {
    let physical = match column.kind {
        Kind::Text => Physical::BYTE_ARRAY,
        Kind::Integer => Physical::INT64,
        Kind::Real => Physical::DOUBLE,
        Kind::Flag => Physical::BOOLEAN,
    };
    let logical = (column.kind == Kind::Text).then_some(LogicalType::String);
    let builder = Type::primitive_type_builder(&column.name, physical).with_repetition(Repetition::OPTIONAL);
    Ok(Arc::new(builder.with_logical_type(logical).build()?))
}

/// Writes `cells`, where a missing one has definition level 0 and no value.
fn put<T: DataType>(
    out: &mut SerializedColumnWriter<'_>,
    cells: impl Iterator<Item = Option<T::T>>,
) -> Result<(), ParquetError> {
    let (mut values, mut levels) = (Vec::new(), Vec::new());
    for cell in cells {
        levels.push(i16::from(cell.is_some()));
        values.extend(cell);
    }
    out.typed::<T>().write_batch(&values, Some(&levels), None)?;
    Ok(())
}
