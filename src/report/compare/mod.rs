//! Two sets of results, pair by pair: what changed, how sure that is, and whether a condition on it is crossed.

pub mod change;
pub mod condition;
pub mod metric;
pub mod needles;
mod pair;

use std::collections::{BTreeMap, BTreeSet};

use self::change::{Delta, Verdict};
use self::metric::{Metric, Quality};
use self::pair::{Measured, Way};
use super::number::Digits;
use super::run::Run;
use super::scoring::{self, Scoring};
use super::study::{Row, Study};
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

/// Remark on a rate that is nothing on both sides.
const NOTHING: &str = "no success on either side, which says nothing about what changed";

/// What was not compared.
#[derive(Debug)]
pub struct Unpaired {
    /// What, and why not.
    pub text: String,
    /// The metrics that the base of a pair has and that nothing is known of by this; none for what has no partner at all.
    pub lost: Vec<&'static Metric>,
}

impl From<String> for Unpaired {
    fn from(text: String) -> Self {
        Unpaired { text, lost: Vec::new() }
    }
}

/// A comparison.
#[derive(Debug, Default)]
pub struct Comparison {
    /// Pairs × metrics.
    pub lines: Vec<Line>,
    /// What was not compared.
    pub unpaired: Vec<Unpaired>,
}

/// Compares `new` with `base`. A way of running a model is paired with the same way; one that the base lacks is paired with the base's
/// only one of the same backend and cache, else with its only one that was loaded alike, else with its only one of that model (INT4
/// against FP16). What was not measured on the same (text, questions, tokens out …) is left out, and said; quality is not compared
/// between trained and random weights.
pub fn compare(base: &Study, new: &Study) -> Comparison {
    let mut out = Comparison::default();
    let (base, new) = (pair::models(base), pair::models(new));
    let mut used: BTreeSet<(&str, &Way<'_>)> = BTreeSet::new();
    for (model, ways) in &new {
        for (way, after) in ways {
            let found = base.get(model).and_then(|base| Some((base, pair::partner(base, way)?)));
            let Some((ways, partner)) = found else {
                let lone = |run: &&Run| format!("new: {} {} has no partner", run.model, run.cache).into();
                out.unpaired.extend(after.runs.iter().map(lone));
                continue;
            };
            used.insert((model, partner));
            let remark = (partner.loaded.random_weights != way.loaded.random_weights).then_some(RANDOM);
            let both = Both { before: &ways[partner], after, what: pair::words(partner, way), remark };
            match remark {
                Some(_) => out.unpaired.extend(both.model().map(|model| {
                    let had = |quality: &&Quality| !scored(quality, &both.before.runs).is_empty();
                    let lost = metric::QUALITY.iter().filter(had).map(|quality| &quality.metric).collect();
                    Unpaired { text: format!("{model} {}: quality ({RANDOM})", both.what), lost }
                })),
                None => out.quality(&both),
            }
            out.cost(&both);
        }
    }
    for (model, ways) in &base {
        for way in ways.keys().filter(|way| !used.contains(&(*model, *way))) {
            out.unpaired.push(format!("base: {model} {} ({}) has no partner", way.cache, way.backend).into());
        }
    }
    let mut once = BTreeSet::new();
    out.unpaired.retain(|line| once.insert(line.text.clone()));
    out
}

/// What both sides measured of one model in one way each.
struct Both<'b, 'a> {
    before: &'b Measured<'a>,
    after: &'b Measured<'a>,
    what: String,
    remark: Option<&'static str>,
}

impl Both<'_, '_> {
    /// The model's name for people; each run has one.
    fn model(&self) -> Option<&str> {
        self.after.runs.first().map(|run| run.model.as_str())
    }
}

impl Comparison {
    /// Compares what was scored alike, each score once, however many runs share it.
    fn quality(&mut self, both: &Both<'_, '_>) {
        let Both { before, after, what, .. } = both;
        for quality in &metric::QUALITY {
            let (mut before, mut after) = (scored(quality, &before.runs), scored(quality, &after.runs));
            let alike: Vec<Scoring> = after.keys().filter(|new| before.contains_key(new)).cloned().collect();
            for scoring in alike {
                let (Some(base), Some(new)) = (before.remove(&scoring), after.remove(&scoring)) else { continue };
                // What is odd in both, that they were stopped half-way, is no difference between them.
                let odd = scoring::telling(&[Some(scoring)])
                    .map_or_else(String::new, |words| format!(", {}", words.join(", ")));
                self.score(both, quality, [base, new], format!("{what}{odd}"));
            }
            self.scored_in_common(both, quality, &mut before, &mut after);
            self.scored_apart(both, &quality.metric, before, after);
        }
    }

    /// Compares one score of `base` and `new`, which were scored alike on what `what` says.
    fn score(&mut self, both: &Both<'_, '_>, quality: &'static Quality, [base, new]: [&Run; 2], what: String) {
        let metric = &quality.metric;
        let why = match (quality.change)(base, new) {
            Ok(Some(delta)) => {
                let nothing = metric.of_nothing(&delta).then_some(NOTHING);
                let (model, remark) = (new.model.clone(), both.remark.or(nothing).or(delta.unpaired));
                self.lines.push(Line { model, what, place: None, metric, delta, remark });
                return;
            }
            Ok(None) => "no number on a side".into(),
            Err(why) => why,
        };
        let text = format!("{} {what}: {} ({why})", new.model, metric.name);
        self.unpaired.push(Unpaired { text, lost: vec![metric] });
    }

    /// Compares what scores that are not alike have in common, takes them out, and names what only one of them has.
    fn scored_in_common(
        &mut self,
        both: &Both<'_, '_>,
        quality: &'static Quality,
        before: &mut Scores<'_>,
        after: &mut Scores<'_>,
    ) {
        let Some(common) = quality.common else { return };
        loop {
            let with = |base: &Run| after.iter().find_map(|(of_new, new)| Some((of_new.clone(), common(base, new)?)));
            let found = before.iter().find_map(|(of_base, base)| Some((of_base.clone(), with(base)?)));
            let Some((of_base, (of_new, common))) = found else { return };
            before.remove(&of_base);
            after.remove(&of_new);
            let [base, new] = &common.sides;
            self.score(both, quality, [base, new], format!("{}, {}", both.what, common.place));
            for (side, place) in ["base", "new"].iter().zip(common.alone) {
                let alone = place.map(|place| {
                    format!("{side}: {} {}: {} {place} has no partner", new.model, both.what, quality.metric.name)
                });
                self.unpaired.extend(alone.map(Unpaired::from));
            }
        }
    }

    /// Names the scores that the other side has not: each beside one of the other side's, as long as there are such.
    fn scored_apart(&mut self, both: &Both<'_, '_>, metric: &'static Metric, before: Scores<'_>, after: Scores<'_>) {
        let (Some(model), what, name) = (both.model(), &both.what, metric.name) else { return };
        let (mut before, mut after) = (before.into_keys(), after.into_keys());
        loop {
            let (side, scoring) = match (before.next(), after.next()) {
                (Some(base), Some(new)) => {
                    let text = format!("{model} {what}: {name} ({})", unlike(base, new));
                    self.unpaired.push(Unpaired { text, lost: vec![metric] });
                    continue;
                }
                (Some(base), None) => ("base", base),
                (None, Some(new)) => ("new", new),
                (None, None) => break,
            };
            let on = scoring::common(&[Some(scoring)]).map_or_else(String::new, |on| format!(" ({on})"));
            let text = format!("{side}: {model} {what}: {name}{on} has no partner");
            let lost = if side == "base" { vec![metric] } else { Vec::new() };
            self.unpaired.push(Unpaired { text, lost });
        }
    }

    /// Compares the rows of one context and batch, but for what depends on settings in which they differ.
    fn cost(&mut self, both: &Both<'_, '_>) {
        let lone = |side: &str, row: &Row<'_>| {
            let told: String = row.run.told.words().iter().map(|told| format!(", {told}")).collect();
            Unpaired::from(format!("{side}: {} {}{}{told} has no partner", row.run.model, both.what, at(row)))
        };
        let mut used = BTreeSet::new();
        for new in &both.after.rows {
            match pair::row(&both.before.rows, new) {
                Some((index, base)) => {
                    used.insert(index);
                    self.rows(both, base, new);
                }
                None => self.unpaired.push(lone("new", new)),
            }
        }
        let left = both.before.rows.iter().enumerate().filter(|(index, _)| !used.contains(index));
        self.unpaired.extend(left.map(|(_, row)| lone("base", row)));
    }

    /// Compares two rows of one context and batch.
    fn rows(&mut self, both: &Both<'_, '_>, base: &Row<'_>, new: &Row<'_>) {
        let (model, place) = (&new.run.model, at(new));
        let what = format!("{}{}", both.what, pair::settings(base, new));
        if base.skipped() || new.skipped() {
            let had = metric::COST.iter().filter(|cost| cost.of_row(base));
            let lost = had.map(|cost| &cost.metric).collect();
            self.unpaired.push(Unpaired { text: format!("{model} {what}{place}: skipped on a side"), lost });
            return;
        }
        let [of_base, of_new] = pair::used(base, new);
        let differing = of_new.differing(&of_base);
        let spill = spilled(base, new);
        let mut missing: BTreeMap<Missing, Vec<&'static Metric>> = BTreeMap::new();
        for cost in &metric::COST {
            let metric = &cost.metric;
            let why = match (cost.change)(base, new) {
                None if cost.of_row(base) => Missing::InNew,
                None if cost.of_row(new) => Missing::InBase,
                None => continue,
                Some(_) if cost.depends_on.iter().any(|part| differing.contains(part)) => Missing::SetOtherwise,
                Some(_) if cost.spill_matters && spill.is_some() => Missing::Spilled,
                Some(delta) => {
                    let (model, what, place) = (model.clone(), what.clone(), new.context().zip(new.batch()));
                    self.lines.push(Line { model, what, place, metric, delta, remark: both.remark });
                    continue;
                }
            };
            missing.entry(why).or_default().push(metric);
        }
        for (why, metrics) in missing {
            let words = match why {
                // `what` says in which settings the two differ.
                Missing::SetOtherwise => "",
                Missing::Spilled => spill.unwrap_or_default(),
                Missing::InBase => " (base has none)",
                Missing::InNew => " (new has none)",
            };
            let names: Vec<&str> = metrics.iter().map(|metric| metric.name).collect();
            let text = format!("{model} {what}{place}: {}{words}", names.join(", "));
            let lost = if why == Missing::InBase { Vec::new() } else { metrics };
            self.unpaired.push(Unpaired { text, lost });
        }
    }
}

/// Why a metric of two rows is not compared, in the order in which it is told.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Missing {
    SetOtherwise,
    Spilled,
    InBase,
    InNew,
}

/// What was scored by one benchmark, each score once, with a run that has it.
type Scores<'a> = BTreeMap<Scoring, &'a Run>;

fn scored<'a>(quality: &Quality, runs: &[&'a Run]) -> Scores<'a> {
    let mut scores = Scores::new();
    for run in runs {
        if let Some(scoring) = (quality.scoring)(&run.result) {
            scores.entry(scoring).or_insert(run);
        }
    }
    scores
}

/// In what two scores were not measured alike.
fn unlike(base: Scoring, new: Scoring) -> String {
    let words = scoring::telling(&[Some(base), Some(new)]).unwrap_or_default();
    words.into_iter().rev().collect::<Vec<_>>().join(" against ")
}

/// On which side device memory spilled to the host, in words; `None` where on neither.
fn spilled(base: &Row<'_>, new: &Row<'_>) -> Option<&'static str> {
    match (base.spilled(), new.spilled()) {
        (true, true) => Some(" (device memory spilled on both sides)"),
        (true, false) => Some(" (device memory spilled in base)"),
        (false, true) => Some(" (device memory spilled in new)"),
        (false, false) => None,
    }
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
    let note =
        remarks.into_iter().map(|remark| format!("Lines that say so have {remark}.")).collect::<Vec<_>>().join(" ");
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
