//! The tables of a report; here those of cost: memory, latency, energy.

use std::collections::BTreeSet;

use super::group::Group;
use super::number::{self, Digits};
use super::quality_tables;
use super::study::{MIB, Row, Study};
use super::table::{Cell, Column, Table};
use crate::schema::FollowUp;

/// What the tables of a report are called, whether or not it has data for them.
pub const IDS: [&str; 7] = ["delta_ppl", "quality", "memory", "latency", "needle", "energy", "kernels"];

/// All tables that `group` has data for, in the order of the report.
pub fn all(study: &Study, group: &Group<'_>) -> Vec<Table> {
    composed(study, group).into_iter().filter(|table| !table.rows.is_empty()).collect()
}

/// The tables of [`IDS`], those without rows among them.
fn composed(study: &Study, group: &Group<'_>) -> [Table; 7] {
    [
        quality_tables::delta_ppl(group),
        quality_tables::quality(study, group),
        memory(group),
        latency(group),
        quality_tables::needle(group),
        energy(group),
        super::kernels::table(group),
    ]
}

/// Model, cache, batch (where it varies), then one column for each context.
fn memory(group: &Group<'_>) -> Table {
    let rows = || group.subjects.iter().flat_map(|s| &s.rows);
    let contexts: BTreeSet<usize> = rows().filter(|r| r.cache_bytes().is_some()).filter_map(Row::context).collect();
    let batches: BTreeSet<usize> = rows().filter_map(Row::batch).collect();
    let mut columns = vec![Column::text("model", "Model"), Column::text("cache", "KV cache")];
    if batches.len() > 1 {
        columns.push(Column::integer("batch", "batch"));
    }
    // Small models need decimals, large ones do not.
    let least = rows().filter_map(|r| r.cache_bytes()).map(|b| b / MIB).fold(f64::INFINITY, f64::min);
    let digits = Digits::Fixed(if least < 1.0 { 3 } else { 1 });
    for context in &contexts {
        columns.push(Column::real(&format!("mib_{context}"), &number::tokens(*context), digits));
    }
    columns.push(Column::real("compression", "smaller by", Digits::Significant(3)));
    let mut table = Table {
        id: "memory".into(),
        title: "Size of the KV cache, MiB, by context length".into(),
        note:
            "The last column: how many times smaller than the unquantized cache, at the longest context; by the cache's own ledger where no unquantized \
             one was measured."
                .into(),
        columns,
        rows: Vec::new(),
    };
    for s in &group.subjects {
        for &cache in s.caches() {
            for batch in s.batches() {
                let at = |context: &usize| s.row(cache, *context, batch).filter(|r| r.cache_bytes().is_some());
                if !contexts.iter().any(|c| at(c).is_some()) {
                    continue;
                }
                let mut row: Vec<Cell> = vec![s.name.as_str().into(), cache.into()];
                if batches.len() > 1 {
                    row.push(batch.into());
                }
                row.extend(contexts.iter().map(|c| {
                    at(c).map_or_else(Cell::missing, |r| Cell::from(r.cache_bytes().map(|b| b / MIB)).from_run(r.index))
                }));
                let baseline = s.baseline();
                let ratio = |c: &usize| {
                    let row = at(c).filter(|row| row.run.quantized())?;
                    let measured = baseline.and_then(|baseline| s.row(baseline, *c, batch)?.cache_bytes());
                    Some(Cell::from(measured.or(row.unquantized_bytes())? / row.cache_bytes()?).from_run(row.index))
                };
                let ratio = contexts.iter().rev().find_map(ratio);
                row.push(ratio.into());
                table.rows.push(row);
            }
        }
    }
    table
}

fn latency(group: &Group<'_>) -> Table {
    let columns = vec![
        Column::text("model", "Model"),
        Column::text("cache", "KV cache"),
        Column::integer("context", "context"),
        Column::integer("batch", "batch"),
        Column::real("prefill_ms", "prefill, ms", Digits::Significant(4)),
        Column::integer("follow_up_tokens", "follow-up, tokens"),
        Column::real("follow_up_ms", "follow-up, ms", Digits::Significant(4)),
        Column::real("decode_tokens_per_s", "decode, tokens/s", Digits::Significant(3)),
        Column::real("decode_change", "against unquantized", Digits::SignedPercent(0)),
        Column::real("step_p99_ms", "p99 step, ms", Digits::Significant(3)),
        Column::real("flush_ms", "flush step, ms", Digits::Significant(3)),
    ];
    let mut table = Table {
        id: "latency".into(),
        title: "Prefill and decode time".into(),
        note: asterisk(group, "the time is the host link's").unwrap_or_default(),
        columns,
        rows: Vec::new(),
    };
    for s in &group.subjects {
        for row in &s.rows {
            let (Some(m), Some(context), Some(batch)) = (row.measured, row.context(), row.batch()) else { continue };
            let remark = |cell: Cell| cell.timed(row.index, row.spilled());
            // That of an older row, which did not spill, is of another run.
            let follow_up = |get: fn(&FollowUp) -> Cell| match row.follow_up {
                Some((run, follow_up)) => get(follow_up).timed(run, run == row.index && row.spilled()),
                None => Cell::missing(),
            };
            let full = s.baseline().filter(|b| *b != row.run.cache).and_then(|b| s.row(b, context, batch));
            let change = full
                .filter(|f| !f.spilled() && !row.spilled())
                .and_then(|f| Some(row.decode_rate()? / f.decode_rate()? - 1.0));
            table.rows.push(vec![
                s.name.as_str().into(),
                row.run.cache.as_str().into(),
                context.into(),
                batch.into(),
                remark(m.prefill_ms.into()),
                follow_up(|follow_up| follow_up.tokens.into()),
                follow_up(|follow_up| follow_up.ms.into()),
                remark(row.decode_rate().into()),
                remark(change.into()),
                remark(m.steps.as_ref().map(|s| s.p99_ms).into()),
                remark(m.steps.as_ref().and_then(|s| s.flush_mean_ms).into()),
            ]);
        }
    }
    without_empty(table)
}

fn energy(group: &Group<'_>) -> Table {
    let mut table = Table {
        id: "energy".into(),
        title: "Energy".into(),
        note: ["Of the device, idle power included (gross) and subtracted (net).".to_string()]
            .into_iter()
            .chain(asterisk(group, "the energy is that of waiting for the host link"))
            .collect::<Vec<_>>()
            .join(" "),
        columns: vec![
            Column::text("model", "Model"),
            Column::text("cache", "KV cache"),
            Column::integer("context", "context"),
            Column::integer("batch", "batch"),
            Column::real("decode_j", "decode, J/token (gross)", Digits::Significant(3)),
            Column::real("decode_net_j", "decode, J/token (net)", Digits::Significant(3)),
            Column::real("prefill_j", "prefill, J/token (gross)", Digits::Significant(3)),
            Column::real("power_w", "mean power, W", Digits::Significant(3)),
        ],
        rows: Vec::new(),
    };
    for s in &group.subjects {
        for row in s.rows.iter().filter(|r| r.energy_j().is_some()) {
            let energy = row.measured.and_then(|m| m.energy.as_ref());
            let decode = energy.and_then(|e| e.decode.as_ref());
            let net = decode.filter(|w| w.tokens > 0).and_then(|w| Some(w.net_j? / w.tokens as f64));
            let power = decode.map(|w| w.mean_w).or(row.measured.and_then(|m| m.avg_power_watts));
            let numbers = [row.energy_j(), net, energy.and_then(|e| e.prefill.as_ref()).map(|w| w.j_per_token), power];
            let head: [Cell; 4] =
                [s.name.as_str().into(), row.run.cache.as_str().into(), row.context().into(), row.batch().into()];
            let numbers = numbers.map(|n| Cell::from(n).timed(row.index, row.spilled()));
            table.rows.push(head.into_iter().chain(numbers).collect());
        }
    }
    without_empty(table)
}

/// What an asterisk says of its number, where some row has one.
fn asterisk(group: &Group<'_>, so: &str) -> Option<String> {
    let spilled = group.subjects.iter().flat_map(|subject| &subject.rows).any(|row| row.spilled());
    spilled.then(|| format!("An asterisk: device memory did not suffice and part of it was the host's, so {so}."))
}

/// `table` without the columns that no row has a value for.
fn without_empty(mut table: Table) -> Table {
    let used: Vec<bool> = (0..table.columns.len())
        .map(|i| table.rows.iter().any(|row| row[i].value != super::table::Value::Missing))
        .collect();
    let mut keep = used.iter();
    table.columns.retain(|_| *keep.next().unwrap_or(&true));
    for row in &mut table.rows {
        let mut keep = used.iter();
        row.retain(|_| *keep.next().unwrap_or(&true));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_has_its_name_in_the_list() {
        let study = Study::default();
        assert_eq!(composed(&study, &Group::of(&study)).map(|table| table.id), IDS);
    }
}
