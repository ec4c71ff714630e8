//! The tables of a report: memory, latency, perplexity across models, needle, all quality, energy, kernels.

use std::collections::BTreeSet;

use super::group::{Group, Subject};
use super::number::{self, Digits};
use super::quality::Score;
use super::sharing::Sources;
use super::study::{MIB, Row, Run, Study};
use super::table::{Cell, Column, Table};

/// Most caches that make columns; more make rows.
const WIDE: usize = 7;

/// All tables that `group` has data for, in the order of the report.
pub fn all(study: &Study, group: &Group<'_>) -> Vec<Table> {
    let tables = [
        delta_ppl(group),
        quality(study, group),
        memory(group),
        latency(group),
        needle(group),
        energy(group),
        super::kernels::table(group),
    ];
    tables.into_iter().filter(|table| !table.rows.is_empty()).collect()
}

/// Place of `run` in `study`, for links.
fn place(study: &Study, run: &Run) -> Option<usize> {
    study.runs.iter().position(|r| std::ptr::eq(r, run))
}

/// `cell`, linked to the run at `source`.
fn sourced(cell: Cell, source: Option<usize>) -> Cell {
    Cell { source, ..cell }
}

fn delta_ppl(group: &Group<'_>) -> Table {
    let subjects: Vec<&Subject<'_>> =
        group.subjects.iter().filter(|s| s.runs.iter().any(|r| r.quality.delta_ppl().is_some())).collect();
    let caches: Vec<&String> = group
        .caches
        .iter()
        .filter(|c| subjects.iter().any(|s| s.run(c).is_some_and(|r| r.quality.delta_ppl().is_some())))
        .collect();
    let reference = |s: &Subject<'_>| {
        let run = s.runs.iter().find(|r| r.quality.ppl_reference.is_some());
        run.map_or_else(Cell::missing, |run| sourced(run.quality.ppl_reference.into(), run.sources.ppl))
    };
    let delta = |s: &Subject<'_>, cache: &str| {
        let run = s.run(cache).filter(|r| r.quality.delta_ppl().is_some());
        run.map_or_else(Cell::missing, |run| {
            sourced(run.quality.delta_ppl().into(), run.sources.ppl).with_interval(run.quality.delta_ppl_interval())
        })
    };
    let signed = |name: &str| Column::real(name, name, Digits::Signed(3));
    let mut table = Table {
        id: "delta_ppl".into(),
        title: "Perplexity of the unquantized cache, and ΔPPL of each quantized one".into(),
        note: "ΔPPL is measured on the same tokens, with the 95 % interval of the paired difference where the file has it.".into(),
        ..Table::default()
    };
    if caches.len() <= WIDE {
        table.columns = vec![Column::text("model", "Model"), Column::real("ppl_reference", "PPL", Digits::Fixed(3))];
        table.columns.extend(caches.iter().map(|c| signed(c)));
        for s in &subjects {
            let deltas = caches.iter().map(|c| delta(s, c));
            table.rows.push([s.name.as_str().into(), reference(s)].into_iter().chain(deltas).collect());
        }
    } else {
        table.columns = vec![
            Column::text("model", "Model"),
            Column::text("cache", "KV cache"),
            Column::real("ppl_reference", "PPL", Digits::Fixed(3)),
            Column::real("delta_ppl", "ΔPPL", Digits::Signed(3)),
        ];
        for s in &subjects {
            for cache in caches.iter().filter(|c| s.run(c).is_some_and(|r| r.quality.delta_ppl().is_some())) {
                table.rows.push(vec![s.name.as_str().into(), cache.as_str().into(), reference(s), delta(s, cache)]);
            }
        }
    }
    table
}

fn quality(study: &Study, group: &Group<'_>) -> Table {
    let runs: Vec<(&str, &Run)> = group
        .subjects
        .iter()
        .flat_map(|s| s.runs.iter().map(|r| (s.name.as_str(), *r)))
        .filter(|(_, r)| r.quality.any())
        .collect();
    let score = |get: fn(&Run) -> Option<&Score>| {
        move |run: &Run| get(run).map_or_else(Cell::missing, |s| Cell::from(s.rate).with_interval(Some(s.interval)))
    };
    type Get<'a> = Box<dyn Fn(&Run) -> Cell + 'a>;
    type Source = fn(&Sources) -> Option<usize>;
    let all: Vec<(Column, Get<'_>, Source)> = vec![
        (Column::real("ppl", "PPL", Digits::Fixed(3)), Box::new(|r| r.quality.ppl().into()), |s| s.ppl),
        (
            Column::real("ppl_rise", "rise of PPL", Digits::SignedPercent(2)),
            Box::new(|r| Cell::from(r.quality.relative_rise()).with_interval(r.quality.relative_interval())),
            |s| s.ppl,
        ),
        (
            Column::real("kld_mean", "mean KL, nats", Digits::Significant(3)),
            Box::new(|r| r.quality.kld.as_ref().map(|k| k.mean).into()),
            |s| s.kld,
        ),
        (
            Column::real("top1_agreement", "same top token", Digits::Percent(1)),
            Box::new(|r| r.quality.kld.as_ref().and_then(|k| k.top1_agreement).into()),
            |s| s.kld,
        ),
        (Column::real("needle", "needle", Digits::Percent(0)), Box::new(score(|r| r.quality.needle.as_ref())), |s| {
            s.needle
        }),
        (Column::real("mmlu", "MMLU", Digits::Percent(1)), Box::new(score(|r| r.quality.mmlu.as_ref())), |s| s.mmlu),
        (Column::real("math", "MATH", Digits::Percent(1)), Box::new(score(|r| r.quality.math.as_ref())), |s| s.math),
        (
            Column::real("quantized_read_fraction", "reads from codes", Digits::Percent(0)),
            Box::new(|r| r.quality.quantized_read_fraction.filter(|_| r.quantized()).into()),
            |s| s.ppl.or(s.needle).or(s.mmlu).or(s.math),
        ),
    ];
    // A column that nobody measured is left out.
    let used: Vec<&(Column, Get<'_>, Source)> =
        all.iter().filter(|(_, get, _)| runs.iter().any(|(_, r)| get(r).number().is_some())).collect();
    let mut columns = vec![Column::text("model", "Model"), Column::text("cache", "KV cache")];
    columns.extend(used.iter().map(|(column, ..)| column.clone()));
    let rows = runs
        .iter()
        .map(|(name, run)| {
            let cells = used.iter().map(|(_, get, from)| sourced(get(run), from(&run.sources)));
            [Cell::from(*name), sourced(run.cache.as_str().into(), place(study, run))]
                .into_iter()
                .chain(cells)
                .collect()
        })
        .collect();
    Table {
        id: "quality".into(),
        title: "Quality of every cache".into(),
        note: "With 95 % intervals: paired for the rise of the perplexity, Wilson's for rates.".into(),
        columns,
        rows,
    }
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
            "The last column: how many times smaller than the unquantized cache, at the longest context that both have."
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
                let ratio = s.baseline().filter(|b| *b != cache).and_then(|baseline| {
                    let at_context = |c: &usize| {
                        let ratio = s.row(baseline, *c, batch)?.cache_bytes()? / at(c)?.cache_bytes()?;
                        Some(Cell::from(ratio).from_run(at(c)?.index))
                    };
                    contexts.iter().rev().find_map(at_context)
                });
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
        Column::real("decode_tokens_per_s", "decode, tokens/s", Digits::Significant(3)),
        Column::real("decode_change", "against unquantized", Digits::SignedPercent(0)),
        Column::real("step_p99_ms", "p99 step, ms", Digits::Significant(3)),
        Column::real("flush_ms", "flush step, ms", Digits::Significant(3)),
    ];
    let mut table = Table {
        id: "latency".into(),
        title: "Prefill and decode time".into(),
        note:
            "An asterisk: device memory did not suffice and part of it was the host's, so the time is the host link's."
                .into(),
        columns,
        rows: Vec::new(),
    };
    for s in &group.subjects {
        for row in &s.rows {
            let (Some(m), Some(context), Some(batch)) = (row.measured, row.context(), row.batch()) else { continue };
            let remark = |cell: Cell| {
                let cell = cell.from_run(row.index);
                if row.spilled() && cell.number().is_some() {
                    cell.with_remark("part of the memory was the host's")
                } else {
                    cell
                }
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
                remark(row.decode_rate().into()),
                remark(change.into()),
                remark(m.steps.as_ref().map(|s| s.p99_ms).into()),
                remark(m.steps.as_ref().and_then(|s| s.flush_mean_ms).into()),
            ]);
        }
    }
    without_empty(table)
}

fn needle(group: &Group<'_>) -> Table {
    let runs = || group.subjects.iter().flat_map(|s| s.runs.iter().map(move |r| (s, *r)));
    let block = |run: &Run| run.result.benchmarks.needle_in_haystack.clone();
    let contexts: BTreeSet<usize> = runs()
        .filter_map(|(_, r)| block(r))
        .flat_map(|n| n.per_context.keys().filter_map(|k| k.parse().ok()).collect::<Vec<usize>>())
        .collect();
    let mut columns = vec![Column::text("model", "Model"), Column::text("cache", "KV cache")];
    columns
        .extend(contexts.iter().map(|c| Column::real(&format!("rate_{c}"), &number::tokens(*c), Digits::Percent(0))));
    columns.push(Column::integer("trials", "trials"));
    columns.push(Column::real("rate", "all", Digits::Percent(0)));
    columns.push(Column::real("delta", "against unquantized", Digits::SignedPercent(0)));
    let mut rows = Vec::new();
    for (s, run) in runs() {
        let (Some(block), Some(score)) = (block(run), run.quality.needle.as_ref()) else { continue };
        let mut row: Vec<Cell> = vec![s.name.as_str().into(), run.cache.as_str().into()];
        row.extend(contexts.iter().map(|c| {
            sourced(block.per_context.get(&c.to_string()).map(|n| n.success_rate).into(), run.sources.needle)
        }));
        row.push(sourced(score.trials.into(), run.sources.needle));
        row.push(sourced(Cell::from(score.rate).with_interval(Some(score.interval)), run.sources.needle));
        row.push(sourced(Cell::from(score.delta).with_interval(score.delta_interval), run.sources.needle));
        rows.push(row);
    }
    Table {
        id: "needle".into(),
        title: "Needle in a haystack: share found, by context length".into(),
        note: "With 95 % intervals: Wilson's for the rate, paired for the difference, which is in points.".into(),
        columns,
        rows,
    }
}

fn energy(group: &Group<'_>) -> Table {
    let mut table = Table {
        id: "energy".into(),
        title: "Energy".into(),
        note: "Of the device, idle power included (gross) and subtracted (net).".into(),
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
            table.rows.push(head.into_iter().chain(numbers.map(|n| Cell::from(n).from_run(row.index))).collect());
        }
    }
    without_empty(table)
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
