//! Two sets of results, pair by pair: what changed, how sure that is, and whether a condition on it is crossed.

pub mod condition;
pub mod metric;

use std::collections::{BTreeMap, BTreeSet};

use self::metric::{Delta, Metric, Verdict};
use super::label;
use super::number::Digits;
use super::scoring;
use super::study::{Row, Run, Study};
use super::table::{Cell, Column, Table};

/// One pair of results and one metric.
#[derive(Debug)]
pub struct Line {
    /// Model.
    pub model: String,
    /// What is compared: the cache, or both caches where they differ.
    pub what: String,
    /// Context and batch; `None` for quality, which is measured once a run.
    pub place: Option<(usize, usize)>,
    /// What was measured.
    pub metric: &'static Metric,
    /// The change.
    pub delta: Delta,
    /// What a reader must know of the pair.
    pub remark: Option<&'static str>,
}

/// Remark on a pair of which one side has random weights.
const RANDOM: &str =
    "trained weights on one side, random ones on the other: times and sizes are comparable, quality is not";

/// A comparison.
#[derive(Debug, Default)]
pub struct Comparison {
    /// Pairs × metrics.
    pub lines: Vec<Line>,
    /// What has no partner, in words.
    pub unpaired: Vec<String>,
}

/// How one model was run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Setting<'a> {
    backend: &'a str,
    cache: &'a str,
    /// Tokens generated, where a study has several lengths.
    output: Option<usize>,
    /// Float type; empty where the file does not say.
    dtype: &'a str,
    random_weights: bool,
}

/// Compares `new` with `base`. A setting of a model is paired with the same setting; one that the base lacks is paired with the base's
/// only one of the same backend and cache, else with its only one of the same float type and kind of weights, else with its only
/// one of that model (INT4 against FP16). Quality is not compared between trained and random weights.
pub fn compare(base: &Study, new: &Study) -> Comparison {
    let mut out = Comparison::default();
    let settings = by_model(base);
    let mut seen: BTreeSet<(usize, usize)> = BTreeSet::new();
    let mut used: BTreeSet<(&str, Setting<'_>)> = BTreeSet::new();
    let base_rows: BTreeMap<_, Row<'_>> =
        base.rows().map(|r| (((r.run.result.model.as_str(), setting(r.run)), r.context(), r.batch()), r)).collect();
    let base_runs: BTreeMap<_, &Run> =
        base.newest().into_iter().map(|r| ((r.result.model.as_str(), setting(r)), r)).collect();
    let new_runs: BTreeMap<_, &Run> =
        new.newest().into_iter().map(|r| ((r.result.model.as_str(), setting(r)), r)).collect();
    for row in new.rows() {
        let model = row.run.result.model.as_str();
        let Some(partner) = partner(settings.get(model), setting(row.run)) else {
            out.unpaired.push(format!("new: {} {} has no partner", row.run.model, row.run.cache));
            continue;
        };
        used.insert((model, partner));
        let what = words(partner, setting(row.run));
        let remark = (partner.random_weights != setting(row.run).random_weights).then_some(RANDOM);
        if remark.is_some() {
            out.unpaired.push(format!("{} {what}: quality ({RANDOM})", row.run.model));
        }
        let new_key = (model, setting(row.run));
        if let (Some(before), Some(after)) = (base_runs.get(&(model, partner)), new_runs.get(&new_key)) {
            let key = (std::ptr::from_ref::<Run>(before) as usize, std::ptr::from_ref::<Run>(after) as usize);
            if seen.insert(key) && remark.is_none() {
                for metric in &metric::QUALITY {
                    let sides = [before, after].map(|run| (metric.scoring)(&run.result));
                    if let ([Some(_), Some(_)], Some(words)) = (&sides, scoring::telling(&sides)) {
                        let (model, name) = (&row.run.model, metric.name);
                        out.unpaired.push(format!("{model} {what}: {name} ({} against {})", words[1], words[0]));
                    } else if let Some(delta) = metric.quality.and_then(|change| change(before, after)) {
                        let (model, what) = (row.run.model.clone(), what.clone());
                        out.lines.push(Line { model, what, place: None, metric, delta, remark });
                    }
                }
            }
        }
        match base_rows.get(&((model, partner), row.context(), row.batch())) {
            Some(before) if !before.skipped() && !row.skipped() => {
                let place = row.context().zip(row.batch());
                out.lines.extend(metric::COST.iter().filter_map(|m| {
                    let delta = (m.cost?)(before, &row)?;
                    Some(Line { model: row.run.model.clone(), what: what.clone(), place, metric: m, delta, remark })
                }));
            }
            Some(_) => out.unpaired.push(format!("{} {what}{}: skipped on a side", row.run.model, at(&row))),
            None if row.measured.is_some() => {
                out.unpaired.push(format!("new: {} {}{} has no partner", row.run.model, row.run.cache, at(&row)));
            }
            None => {}
        }
    }
    for (model, settings) in &settings {
        for s in settings.iter().filter(|s| !used.contains(&(*model, **s))) {
            out.unpaired.push(format!("base: {model} {} ({}) has no partner", s.cache, s.backend));
        }
    }
    let mut once = BTreeSet::new();
    out.unpaired.retain(|line| once.insert(line.clone()));
    out
}

fn setting(run: &Run) -> Setting<'_> {
    Setting {
        backend: &run.result.attn_backend,
        cache: &run.cache,
        output: run.output,
        dtype: label::dtype(&run.result),
        random_weights: label::random_weights(&run.result),
    }
}

fn by_model(study: &Study) -> BTreeMap<&str, BTreeSet<Setting<'_>>> {
    let mut out: BTreeMap<&str, BTreeSet<Setting<'_>>> = BTreeMap::new();
    for run in &study.runs {
        out.entry(&run.result.model).or_default().insert(setting(run));
    }
    out
}

fn partner<'a>(base: Option<&BTreeSet<Setting<'a>>>, wanted: Setting<'_>) -> Option<Setting<'a>> {
    let base = base?;
    // A side that has one output length does not name it.
    let like = |s: &&Setting<'a>| s.output == wanted.output || s.output.is_none() || wanted.output.is_none();
    let only = |of: &dyn Fn(&&Setting<'a>) -> bool| {
        let mut found = base.iter().filter(|s| like(s) && of(s));
        found.next().filter(|_| found.next().is_none())
    };
    let run_alike = |s: &&Setting<'a>| (s.backend, s.cache) == (wanted.backend, wanted.cache);
    let loaded_alike = |s: &&Setting<'a>| (s.dtype, s.random_weights) == (wanted.dtype, wanted.random_weights);
    only(&|s| run_alike(s) && loaded_alike(s))
        .or_else(|| only(&run_alike))
        .or_else(|| only(&loaded_alike))
        .or_else(|| only(&|_| true))
        .copied()
}

fn words(base: Setting<'_>, new: Setting<'_>) -> String {
    let mut words = match (base.backend == new.backend, base.cache == new.cache) {
        (true, true) => new.cache.to_string(),
        (true, false) => format!("{} against {}", new.cache, base.cache),
        (false, true) => format!("{}: {} against {}", new.cache, new.backend, base.backend),
        (false, false) => format!("{} {} against {} {}", new.backend, new.cache, base.backend, base.cache),
    };
    if base.dtype != new.dtype {
        let name = |dtype: &str| if dtype.is_empty() { "unknown float type" } else { dtype }.to_string();
        words.push_str(&format!(", {} against {}", name(new.dtype), name(base.dtype)));
    }
    if base.random_weights != new.random_weights {
        let name = |random| if random { "random" } else { "trained" };
        words.push_str(&format!(", {} against {} weights", name(new.random_weights), name(base.random_weights)));
    }
    if let Some(tokens) = new.output {
        words.push_str(&format!(", {tokens} tokens out"));
    }
    words
}

fn at(row: &Row<'_>) -> String {
    match (row.context(), row.batch()) {
        (Some(context), Some(batch)) => format!(" at {context} tokens, batch {batch}"),
        _ => String::new(),
    }
}

/// The comparison as a table, one line for each pair and metric.
pub fn table(comparison: &Comparison) -> Table {
    let columns = vec![
        Column::text("model", "Model"),
        Column::text("cache", "KV cache"),
        Column::integer("context_len", "context"),
        Column::integer("batch_size", "batch"),
        Column::text("metric", "metric"),
        Column::text("unit", "unit"),
        Column::real("base", "base", Digits::Significant(4)),
        Column::real("new", "new", Digits::Significant(4)),
        Column::text("change", "change"),
        Column::real("change_value", "change, number", Digits::Significant(4)),
        Column::real("change_low", "95 % low", Digits::Significant(4)),
        Column::real("change_high", "95 % high", Digits::Significant(4)),
        Column::text("verdict", "verdict"),
        Column::text("remark", "remark"),
    ];
    let rows = comparison
        .lines
        .iter()
        .map(|line| {
            let d = &line.delta;
            vec![
                line.model.as_str().into(),
                line.what.as_str().into(),
                line.place.map(|p| p.0).into(),
                line.place.map(|p| p.1).into(),
                line.metric.name.into(),
                line.metric.unit.into(),
                d.base.into(),
                d.new.into(),
                line.metric.words(d).into(),
                d.change.into(),
                d.interval.map(|i| i.0).into(),
                d.interval.map(|i| i.1).into(),
                d.verdict.words().into(),
                line.remark.into(),
            ]
        })
        .collect();
    let remarks: BTreeSet<&str> = comparison.lines.iter().filter_map(|line| line.remark).collect();
    let note = remarks.into_iter().map(|remark| format!("Lines that say so have {remark}.")).collect();
    Table { id: "compare".into(), title: String::new(), note, columns, rows }
}

/// The columns of [`table`] that people need, remarks being in its note; machine formats have all.
pub fn for_people(table: &Table) -> Table {
    let keep: Vec<bool> = table
        .columns
        .iter()
        .map(|c| !["change_value", "change_low", "change_high", "remark"].contains(&c.name.as_str()))
        .collect();
    let pick = |cells: &[Cell]| cells.iter().zip(&keep).filter(|(_, k)| **k).map(|(c, _)| c.clone()).collect();
    Table {
        columns: table.columns.iter().zip(&keep).filter(|(_, k)| **k).map(|(c, _)| c.clone()).collect(),
        rows: table.rows.iter().map(|row| pick(row)).collect(),
        ..table.clone()
    }
}

impl Comparison {
    /// How many lines have `verdict`.
    pub fn count(&self, verdict: Verdict) -> usize {
        self.lines.iter().filter(|line| line.delta.verdict == verdict).count()
    }
}
