//! A table as a value: what every output format writes.

use super::number::{self, Digits};

/// A table.
#[derive(Debug, Clone, Default)]
pub struct Table {
    /// Name of its file, without extension.
    pub id: String,
    /// Title for people.
    pub title: String,
    /// What a reader must know to read it: units, what is compared with what.
    pub note: String,
    /// Columns.
    pub columns: Vec<Column>,
    /// Rows, each as long as `columns`.
    pub rows: Vec<Vec<Cell>>,
}

/// A column.
#[derive(Debug, Clone)]
pub struct Column {
    /// Name in machine formats.
    pub name: String,
    /// Name for people, unit included.
    pub header: String,
    /// Type of its cells.
    pub kind: Kind,
    /// How people see its numbers.
    pub digits: Digits,
}

impl Column {
    /// A column of words.
    pub fn text(name: &str, header: &str) -> Self {
        Column { name: name.into(), header: header.into(), kind: Kind::Text, digits: Digits::Exact }
    }

    /// A column of whole numbers.
    pub fn integer(name: &str, header: &str) -> Self {
        Column { kind: Kind::Integer, ..Column::text(name, header) }
    }

    /// A column of numbers, shown to people with `digits`.
    pub fn real(name: &str, header: &str, digits: Digits) -> Self {
        Column { kind: Kind::Real, digits, ..Column::text(name, header) }
    }

    /// A column of yes and no.
    pub fn flag(name: &str, header: &str) -> Self {
        Column { kind: Kind::Flag, ..Column::text(name, header) }
    }
}

/// Type of a column's cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Words.
    Text,
    /// Whole numbers.
    Integer,
    /// Numbers.
    Real,
    /// Yes and no.
    Flag,
}

/// A cell.
#[derive(Debug, Clone, Default)]
pub struct Cell {
    /// Its value.
    pub value: Value,
    /// 95 % interval of the value.
    pub interval: Option<(f64, f64)>,
    /// Index of the run it comes from.
    pub source: Option<usize>,
    /// Why it is as it is (memory spilled, out of memory).
    pub remark: Option<String>,
}

/// Value of a cell.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Value {
    /// Not measured.
    #[default]
    Missing,
    /// Words.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// A number.
    Real(f64),
    /// Yes or no.
    Flag(bool),
}

impl Cell {
    /// An empty cell.
    pub fn missing() -> Self {
        Cell::default()
    }

    /// The same, coming from run `source`.
    pub fn from_run(mut self, source: usize) -> Self {
        self.source = Some(source);
        self
    }

    /// The same, a time or an energy from run `source`: with a remark where it was measured in memory that `spilled`.
    pub fn timed(self, source: usize, spilled: bool) -> Self {
        let cell = self.from_run(source);
        match spilled && cell.number().is_some() {
            true => cell.with_remark("part of the memory was the host's"),
            false => cell,
        }
    }

    /// The same, with its 95 % interval.
    pub fn with_interval(mut self, interval: Option<(f64, f64)>) -> Self {
        self.interval = interval;
        self
    }

    /// The same, with a remark.
    pub fn with_remark(mut self, remark: impl Into<String>) -> Self {
        self.remark = Some(remark.into());
        self
    }

    /// Text for people; an empty string for a missing value.
    pub fn shown(&self, digits: Digits) -> String {
        let value = match &self.value {
            Value::Missing => return String::new(),
            Value::Text(text) => return text.clone(),
            Value::Integer(n) => return n.to_string(),
            Value::Flag(flag) => return if *flag { "yes" } else { "no" }.into(),
            Value::Real(value) => number::shown(*value, digits),
        };
        match self.interval {
            Some((low, high)) => {
                format!("{value} [{}, {}]", number::shown(low, digits), number::shown(high, digits))
            }
            None => value,
        }
    }

    /// Number to sort by.
    pub fn number(&self) -> Option<f64> {
        match self.value {
            Value::Integer(n) => Some(n as f64),
            Value::Real(value) => Some(value),
            Value::Flag(flag) => Some(f64::from(u8::from(flag))),
            Value::Missing | Value::Text(_) => None,
        }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Cell { value: Value::Text(text.into()), ..Cell::default() }
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Cell { value: Value::Text(text), ..Cell::default() }
    }
}

impl From<usize> for Cell {
    fn from(n: usize) -> Self {
        Cell { value: i64::try_from(n).map_or(Value::Missing, Value::Integer), ..Cell::default() }
    }
}

impl From<f64> for Cell {
    /// A number that is not finite is a missing one.
    fn from(value: f64) -> Self {
        Cell { value: if value.is_finite() { Value::Real(value) } else { Value::Missing }, ..Cell::default() }
    }
}

impl From<bool> for Cell {
    fn from(flag: bool) -> Self {
        Cell { value: Value::Flag(flag), ..Cell::default() }
    }
}

impl<T: Into<Cell>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Self {
        value.map_or_else(Cell::missing, Into::into)
    }
}
