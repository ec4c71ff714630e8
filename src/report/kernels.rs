//! Kernel time by category, each cache against the unquantized one: the CMU study's differential table.

use super::group::{Group, Subject};
use super::number::Digits;
use super::study::Row;
use super::table::{Cell, Column, Table};
use crate::schema::{CategoryTime, PhaseKernels};

/// The eight categories as result files name them, in the order of the stack.
pub const CATEGORIES: [&str; 8] =
    ["attention", "ffn", "dequantization", "elementwise", "normalization", "memory", "sampling", "other"];

/// One line for each traced phase and category, and one for all of them: time per token, and what it adds to the unquantized
/// cache's at the same place. The tokens of all sequences count, those of a prompt too, so that times of prefill are small.
pub fn table(group: &Group<'_>) -> Table {
    let mut table = Table {
        id: "kernels".into(),
        title: "Kernel time by category, against the unquantized cache".into(),
        note: "Of a traced pass, per token read (prefill) or generated (decode), those of all sequences. Quantizing is a part of dequantization. \
               Nothing is compared where device memory did not suffice."
            .into(),
        columns: vec![
            Column::text("model", "Model"),
            Column::text("cache", "KV cache"),
            Column::integer("context", "context"),
            Column::integer("batch", "batch"),
            Column::text("phase", "phase"),
            Column::text("category", "category"),
            Column::real("us_per_token", "µs/token", Digits::Significant(3)),
            Column::real("share", "share", Digits::Percent(1)),
            Column::integer("launches", "launches"),
            Column::real("unquantized_us_per_token", "unquantized, µs/token", Digits::Significant(3)),
            Column::real("difference_us_per_token", "difference, µs/token", Digits::Signed(2)),
            Column::real("change", "change", Digits::SignedPercent(0)),
        ],
        rows: Vec::new(),
    };
    for subject in &group.subjects {
        for row in &subject.rows {
            lines(subject, row, &mut table.rows);
        }
    }
    table
}

/// A phase's kernels, and the tokens that it worked on, of all sequences.
struct Traced<'a> {
    name: &'static str,
    kernels: &'a PhaseKernels,
    tokens: f64,
}

fn traced<'a>(row: &Row<'a>) -> Vec<Traced<'a>> {
    let Some((m, kernels)) = row.measured.and_then(|m| Some((m, m.kernels.as_ref()?))) else { return Vec::new() };
    let sequences = m.batch();
    let phases = [
        ("prefill", kernels.prefill.as_ref(), m.context_len),
        ("decode", kernels.decode.as_ref(), m.decode_tokens.unwrap_or(0)),
    ];
    let told = phases.into_iter().filter_map(|(name, kernels, tokens)| {
        let tokens = tokens as f64 * sequences as f64;
        Some(Traced { name, kernels: kernels?, tokens: Some(tokens).filter(|tokens| *tokens > 0.0)? })
    });
    told.collect()
}

fn lines(subject: &Subject<'_>, row: &Row<'_>, out: &mut Vec<Vec<Cell>>) {
    let place = row.context().zip(row.batch());
    let full = subject.baseline().filter(|b| *b != row.run.cache);
    let full = full.zip(place).and_then(|(cache, (context, batch))| subject.row(cache, context, batch));
    // Times in memory that spilled are the host link's: nothing is held against them.
    let full = full.filter(|full| !full.spilled() && !row.spilled());
    let full = full.map(traced).unwrap_or_default();
    for phase in traced(row) {
        let partner = full.iter().find(|p| p.name == phase.name);
        for category in CATEGORIES.map(Some).into_iter().chain([None]) {
            let us = |p: &Traced<'_>| time(p.kernels, category).ms / p.tokens * 1e3;
            let (own, time) = (us(&phase), time(phase.kernels, category));
            let before = partner.map(us);
            if time.count == 0 && before.is_none_or(|us| us == 0.0) {
                continue;
            }
            let numbers: [Cell; 6] = [
                own.into(),
                time.share.into(),
                (time.count as usize).into(),
                before.into(),
                before.map(|us| own - us).into(),
                before.filter(|us| *us > 0.0).map(|us| own / us - 1.0).into(),
            ];
            let head: [Cell; 6] = [
                subject.name.as_str().into(),
                row.run.cache.as_str().into(),
                row.context().into(),
                row.batch().into(),
                phase.name.into(),
                category.unwrap_or("all").into(),
            ];
            out.push(head.into_iter().chain(numbers.map(|cell| cell.from_run(row.index))).collect());
        }
    }
}

/// Time of a category, or of all. A category that this version does not know is part of `other`.
fn time(kernels: &PhaseKernels, category: Option<&str>) -> CategoryTime {
    let wanted = |name: &str| match category {
        None => true,
        Some("other") => name == "other" || !CATEGORIES.contains(&name),
        Some(category) => name == category,
    };
    let of = kernels.categories.iter().filter(|(name, _)| wanted(name)).map(|(_, time)| time);
    of.fold(CategoryTime::default(), |sum, time| CategoryTime {
        ms: sum.ms + time.ms,
        count: sum.count.saturating_add(time.count),
        share: sum.share + time.share,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_category_counts_as_other_and_all_is_everything() {
        let of = |ms| CategoryTime { ms, count: 1, share: ms / 6.0 };
        let categories = [("attention", of(1.0)), ("other", of(2.0)), ("teleport", of(3.0))];
        let categories = categories.into_iter().map(|(name, time)| (name.to_string(), time)).collect();
        let kernels = PhaseKernels { categories, ..Default::default() };
        assert_eq!(time(&kernels, Some("other")).ms, 5.0);
        assert_eq!(time(&kernels, Some("ffn")), CategoryTime::default());
        assert_eq!((time(&kernels, None).ms, time(&kernels, None).count), (6.0, 3));
    }
}
