//! What a decode step takes, for the terminal: energy, and where its time goes.

use super::identity::{self, Row};
use super::kernels::CATEGORIES;
use super::label::quantization;
use super::terminal::{TerminalTable, absent};
use crate::schema::{Measurement, RunResult};

/// What a column says of a measurement.
type Value = dyn Fn(&Measurement) -> Option<String>;

/// A column: its head, and what it says of a measurement.
struct Column {
    head: String,
    value: Box<Value>,
}

/// Energy and kernel time of a decode step, one row for each measurement; `None` when none has either.
pub fn table(results: &[&RunResult]) -> Option<TerminalTable> {
    let rows: Vec<(&RunResult, &Measurement)> =
        results.iter().flat_map(|r| r.measurements.iter().map(move |m| (*r, m))).collect();
    let columns = columns();
    let varying = identity::varying(&rows.iter().map(|(result, m)| (*result, Some(*m))).collect::<Vec<Row<'_>>>());
    let heads = varying.iter().map(|identity| identity.head).chain(["a decode step", "context"]);
    let heads = heads.map(String::from).chain(columns.iter().map(|c| c.head.clone()));
    let places = varying.len() + 2;
    let mut table = TerminalTable::new(heads, places).right_from(places - 1);
    for (result, m) in rows {
        let context = match m.batch_size {
            Some(batch) if batch > 1 => format!("{} × {batch}", m.context_len),
            _ => m.context_len.to_string(),
        };
        let place = [quantization(result), context];
        let values = columns.iter().map(|c| (c.value)(m).unwrap_or_else(absent));
        let names = varying.iter().map(|identity| (identity.of)((result, Some(m))));
        table.add_row(names.chain(place).chain(values));
    }
    table.has_values().then_some(table)
}

fn columns() -> Vec<Column> {
    fn decode(m: &Measurement) -> Option<&crate::schema::PhaseKernels> {
        m.kernels.as_ref()?.decode.as_ref()
    }
    let column =
        |head: &str, value: fn(&Measurement) -> Option<String>| Column { head: head.into(), value: Box::new(value) };
    let mut columns = vec![
        column("J/token", |m| Some(format!("{:.3}", m.energy.as_ref()?.decode.as_ref()?.j_per_token))),
        column("W", |m| Some(format!("{:.0}", m.energy.as_ref()?.decode.as_ref()?.mean_w))),
        column("kernels ms", |m| {
            let steps = m.decode_tokens.filter(|steps| *steps > 0)?;
            Some(format!("{:.2}", decode(m)?.busy_ms / steps as f64))
        }),
        column("busy", |m| Some(format!("{:.0} %", decode(m)?.busy_share * 100.0))),
    ];
    columns.extend(CATEGORIES.map(|name| Column {
        head: name.into(),
        value: Box::new(move |m| {
            let time = decode(m)?.categories.get(name).filter(|time| time.count > 0)?;
            Some(format!("{:.1} %", time.share * 100.0))
        }),
    }));
    columns
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{CategoryTime, Energy, EnergyWindow, KernelTimes, PhaseKernels, bare_result};

    fn result(m: Measurement) -> RunResult {
        RunResult { measurements: vec![m], ..bare_result() }
    }

    #[test]
    fn only_what_was_measured_has_a_column() {
        assert!(table(&[&result(Measurement::default())]).is_none());
        let window = EnergyWindow { j_per_token: 1.25, mean_w: 320.0, ..Default::default() };
        let energy = Energy { decode: Some(window), ..Default::default() };
        let ffn = CategoryTime { ms: 3.0, count: 4, share: 0.75 };
        let decode = PhaseKernels {
            categories: [("ffn".to_string(), ffn), ("memory".to_string(), CategoryTime::default())].into(),
            busy_ms: 4.0,
            busy_share: 0.5,
            ..Default::default()
        };
        let kernels = KernelTimes { decode: Some(decode), ..Default::default() };
        let measured =
            Measurement { decode_tokens: Some(4), energy: Some(energy), kernels: Some(kernels), ..Default::default() };
        let text = table(&[&result(measured), &result(Measurement::default())]).unwrap().to_string();
        for shown in ["J/token", "1.250", "320", "1.00", "50 %", "ffn", "75.0 %", "–"] {
            assert!(text.contains(shown), "{shown} in\n{text}");
        }
        assert!(!text.contains("memory") && !text.contains("attention"), "{text}");
    }
}
