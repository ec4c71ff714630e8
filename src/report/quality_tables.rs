//! The tables of a report that tell of quality: perplexity across models, all scores, needles. Scores that were measured on different
//! things stand apart, or beside a column that says on what.

use std::collections::{BTreeMap, BTreeSet};

use super::group::{Group, Subject};
use super::number::{self, Digits};
use super::quality::Score;
use super::run::{Run, Sources};
use super::scoring::{self, Scoring};
use super::study::Study;
use super::table::{Cell, Column, Table};

/// Most caches that make columns; more make rows.
const WIDE: usize = 7;

/// Place of `run` in `study`, for links.
fn place(study: &Study, run: &Run) -> Option<usize> {
    study.runs.iter().position(|r| std::ptr::eq(r, run))
}

/// `cell`, linked to the run at `source`.
fn sourced(cell: Cell, source: Option<usize>) -> Cell {
    Cell { source, ..cell }
}

/// `name` and what all rows were scored on, as a sentence for a note.
fn common(name: &str, rows: &[Option<Scoring>]) -> String {
    scoring::common(rows).map_or_else(String::new, |words| format!(" {name}: {words}."))
}

/// A model's quantized caches whose perplexity was measured on the same tokens in the same way.
struct Scored<'a> {
    subject: &'a str,
    scoring: Option<Scoring>,
    runs: Vec<&'a Run>,
}

impl<'a> Scored<'a> {
    fn all(group: &'a Group<'_>) -> Vec<Self> {
        let of = |s: &'a Subject<'_>| {
            let mut alike: BTreeMap<Option<Scoring>, Vec<&'a Run>> = BTreeMap::new();
            for run in s.runs.iter().copied().filter(|run| run.quality.delta_ppl().is_some()) {
                alike.entry(scoring::ppl(&run.result)).or_default().push(run);
            }
            alike
                .into_iter()
                .map(|(scoring, runs)| Scored { subject: s.name.as_str(), scoring, runs })
                .collect::<Vec<_>>()
        };
        group.scored.iter().flat_map(of).collect()
    }

    fn reference(&self) -> Cell {
        let run = self.runs.first();
        run.map_or_else(Cell::missing, |run| sourced(run.quality.ppl_reference.into(), run.sources.ppl))
    }

    fn delta(&self, cache: &str) -> Cell {
        let run = self.runs.iter().find(|run| run.cache == cache);
        run.map_or_else(Cell::missing, |run| {
            sourced(run.quality.delta_ppl().into(), run.sources.ppl).with_interval(run.quality.delta_ppl_interval())
        })
    }
}

pub(super) fn delta_ppl(group: &Group<'_>) -> Table {
    let scored = Scored::all(group);
    let has = |s: &Scored<'_>, cache: &str| s.runs.iter().any(|run| run.cache == cache);
    let caches: Vec<&String> = group.caches.iter().filter(|c| scored.iter().any(|s| has(s, c))).collect();
    let scorings: Vec<Option<Scoring>> = scored.iter().map(|s| s.scoring.clone()).collect();
    let over = scoring::telling(&scorings);
    let head = |at: usize, s: &Scored<'_>| {
        let over = over.iter().map(move |words| Cell::from(words[at].as_str()));
        std::iter::once(Cell::from(s.subject)).chain(over).collect::<Vec<_>>()
    };
    let mut columns = vec![Column::text("model", "Model")];
    columns.extend(over.iter().map(|_| Column::text("ppl_over", "PPL over")));
    let mut rows = Vec::new();
    if caches.len() <= WIDE {
        columns.push(Column::real("ppl_reference", "PPL", Digits::Fixed(3)));
        columns.extend(caches.iter().map(|cache| Column::real(cache, cache, Digits::Signed(3))));
        for (at, s) in scored.iter().enumerate() {
            let deltas = caches.iter().map(|cache| s.delta(cache));
            rows.push(head(at, s).into_iter().chain([s.reference()]).chain(deltas).collect());
        }
    } else {
        columns.push(Column::text("cache", "KV cache"));
        columns.push(Column::real("ppl_reference", "PPL", Digits::Fixed(3)));
        columns.push(Column::real("delta_ppl", "ΔPPL", Digits::Signed(3)));
        for (at, s) in scored.iter().enumerate() {
            for cache in caches.iter().filter(|cache| has(s, cache)) {
                let cells = [cache.as_str().into(), s.reference(), s.delta(cache)];
                rows.push(head(at, s).into_iter().chain(cells).collect());
            }
        }
    }
    Table {
        id: "delta_ppl".into(),
        title: "Perplexity of the unquantized cache, and ΔPPL of each quantized one".into(),
        note: format!(
            "ΔPPL is measured on the same tokens, with the 95 % interval of the paired difference where the file has it.{}",
            common("PPL", &scorings)
        ),
        columns,
        rows,
    }
}

/// The value of a column for a run.
type Get = fn(&Run) -> Cell;

/// One benchmark's columns, the file that its numbers are from, and what it was scored on.
struct Scores {
    name: &'static str,
    over: &'static str,
    columns: Vec<(Column, Get)>,
    source: fn(&Sources) -> Option<usize>,
    scoring: scoring::Of,
}

fn rate(score: Option<&Score>) -> Cell {
    score.map_or_else(Cell::missing, |s| Cell::from(s.rate).with_interval(Some(s.interval)))
}

fn all_scores() -> [Scores; 5] {
    [
        Scores {
            name: "PPL",
            over: "ppl_over",
            columns: vec![
                (Column::real("ppl", "PPL", Digits::Fixed(3)), |r| r.quality.ppl().into()),
                (Column::real("ppl_rise", "rise of PPL", Digits::SignedPercent(2)), |r| {
                    Cell::from(r.quality.relative_rise()).with_interval(r.quality.relative_interval())
                }),
            ],
            source: |s| s.ppl,
            scoring: scoring::ppl,
        },
        Scores {
            name: "KL",
            over: "kld_over",
            columns: vec![
                (Column::real("kld_mean", "mean KL, nats", Digits::Significant(3)), |r| {
                    r.quality.kld.as_ref().map(|k| k.mean).into()
                }),
                (Column::real("top1_agreement", "same top token", Digits::Percent(1)), |r| {
                    r.quality.kld.as_ref().and_then(|k| k.top1_agreement).into()
                }),
            ],
            source: |s| s.kld,
            scoring: scoring::kld,
        },
        Scores {
            name: "needle",
            over: "needle_over",
            columns: vec![(Column::real("needle", "needle", Digits::Percent(0)), |r| rate(r.quality.needle.as_ref()))],
            source: |s| s.needle,
            scoring: scoring::needle,
        },
        Scores {
            name: "MMLU",
            over: "mmlu_over",
            columns: vec![(Column::real("mmlu", "MMLU", Digits::Percent(1)), |r| rate(r.quality.mmlu.as_ref()))],
            source: |s| s.mmlu,
            scoring: scoring::mmlu,
        },
        Scores {
            name: "MATH",
            over: "math_over",
            columns: vec![(Column::real("math", "MATH", Digits::Percent(1)), |r| rate(r.quality.math.as_ref()))],
            source: |s| s.math,
            scoring: scoring::math,
        },
    ]
}

pub(super) fn quality(study: &Study, group: &Group<'_>) -> Table {
    let runs: Vec<(&str, &Run)> = group
        .scored
        .iter()
        .flat_map(|s| s.runs.iter().map(|r| (s.name.as_str(), *r)))
        .filter(|(_, r)| r.quality.any())
        .collect();
    let mut columns = vec![Column::text("model", "Model"), Column::text("cache", "KV cache")];
    let mut rows: Vec<Vec<Cell>> = runs
        .iter()
        .map(|(name, run)| vec![Cell::from(*name), sourced(run.cache.as_str().into(), place(study, run))])
        .collect();
    let mut note = "With 95 % intervals: paired for the rise of the perplexity, Wilson's for rates.".to_string();
    let mut add = |column: Column, cells: Vec<Cell>| {
        columns.push(column);
        rows.iter_mut().zip(cells).for_each(|(row, cell)| row.push(cell));
    };
    for Scores { name, over, columns, source, scoring } in all_scores() {
        let scorings: Vec<Option<Scoring>> = runs.iter().map(|(_, run)| scoring(&run.result)).collect();
        note.push_str(&common(name, &scorings));
        if let Some(words) = scoring::telling(&scorings) {
            let told = |words: String| if words.is_empty() { Cell::missing() } else { words.into() };
            add(Column::text(over, &format!("{name} over")), words.into_iter().map(told).collect());
        }
        for (column, get) in columns {
            // A column that nobody measured is left out.
            if runs.iter().any(|(_, run)| get(run).number().is_some()) {
                add(column, runs.iter().map(|(_, run)| sourced(get(run), source(&run.sources))).collect());
            }
        }
    }
    let fraction = |run: &Run| run.quality.quantized_read_fraction.filter(|_| run.quantized());
    if runs.iter().any(|(_, run)| fraction(run).is_some()) {
        let source = |s: &Sources| s.ppl.or(s.needle).or(s.mmlu).or(s.math);
        add(
            Column::real("quantized_read_fraction", "reads from codes", Digits::Percent(0)),
            runs.iter().map(|(_, run)| sourced(fraction(run).into(), source(&run.sources))).collect(),
        );
    }
    Table { id: "quality".into(), title: "Quality of every cache".into(), note, columns, rows }
}

pub(super) fn needle(group: &Group<'_>) -> Table {
    let block = |run: &Run| run.result.benchmarks.needle_in_haystack.clone();
    let runs: Vec<(&Subject<'_>, &Run)> = group
        .scored
        .iter()
        .flat_map(|s| s.runs.iter().map(move |r| (s, *r)))
        .filter(|(_, run)| block(run).is_some())
        .collect();
    let contexts: BTreeSet<usize> = runs
        .iter()
        .filter_map(|(_, run)| block(run))
        .flat_map(|n| n.per_context.keys().filter_map(|k| k.parse().ok()).collect::<Vec<usize>>())
        .collect();
    let scorings: Vec<Option<Scoring>> = runs.iter().map(|(_, run)| scoring::needle(&run.result)).collect();
    let over = scoring::telling(&scorings);
    let mut columns = vec![Column::text("model", "Model"), Column::text("cache", "KV cache")];
    columns.extend(over.iter().map(|_| Column::text("needle_over", "needle over")));
    columns
        .extend(contexts.iter().map(|c| Column::real(&format!("rate_{c}"), &number::tokens(*c), Digits::Percent(0))));
    columns.push(Column::integer("trials", "trials"));
    columns.push(Column::real("rate", "all", Digits::Percent(0)));
    columns.push(Column::real("delta", "against unquantized", Digits::Points(1)));
    let mut rows = Vec::new();
    for (at, (s, run)) in runs.iter().enumerate() {
        let (Some(block), Some(score)) = (block(run), run.quality.needle.as_ref()) else { continue };
        let mut row: Vec<Cell> = vec![s.name.as_str().into(), run.cache.as_str().into()];
        row.extend(over.iter().map(|words| Cell::from(words[at].as_str())));
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
        note: "With 95 % intervals: Wilson's for the rate, paired for the difference, which is in points (pt).".into(),
        columns,
        rows,
    }
}
