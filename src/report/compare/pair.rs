//! Which results of the base a new one is held against.

use std::collections::BTreeMap;

use crate::report::label::{Loaded, loaded_as};
use crate::report::run::Run;
use crate::report::setting::{self, Setting};
use crate::report::study::{Row, Study};

/// How one model was loaded and run, but for the [`Setting`] of each row.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Way<'a> {
    pub backend: &'a str,
    pub cache: &'a str,
    /// Whether the cache is quantized; the name of one that is not is that of its float type.
    quantized: bool,
    pub loaded: Loaded,
}

/// What was measured of one model in one way.
#[derive(Default)]
pub(super) struct Measured<'a> {
    /// Where quality is read from.
    pub runs: Vec<&'a Run>,
    /// Cost.
    pub rows: Vec<Row<'a>>,
}

/// Models by name, in the ways that they were run.
pub(super) type Models<'a> = BTreeMap<&'a str, BTreeMap<Way<'a>, Measured<'a>>>;

pub(super) fn models(study: &Study) -> Models<'_> {
    let mut models = Models::new();
    for run in study.newest() {
        models.entry(&run.result.model).or_default().entry(way(run)).or_default().runs.push(run);
    }
    for row in study.rows().filter(|row| row.measured.is_some()) {
        models.entry(&row.run.result.model).or_default().entry(way(row.run)).or_default().rows.push(row);
    }
    models
}

fn way(run: &Run) -> Way<'_> {
    Way {
        backend: &run.result.attn_backend,
        cache: &run.cache,
        quantized: run.quantized(),
        loaded: loaded_as(&run.result),
    }
}

/// The way of the base that `wanted` is held against: the same; else the only one of the same backend and cache, else the only one that was
/// loaded alike, else the only one there is (INT4 against FP16).
pub(super) fn partner<'b, 'a>(base: &'b BTreeMap<Way<'a>, Measured<'a>>, wanted: &Way<'_>) -> Option<&'b Way<'a>> {
    let only = |of: &dyn Fn(&&Way<'a>) -> bool| {
        let mut found = base.keys().filter(of);
        found.next().filter(|_| found.next().is_none())
    };
    let cache_alike = |w: &&Way<'a>| w.cache == wanted.cache || !(w.quantized || wanted.quantized);
    let run_alike = |w: &&Way<'a>| w.backend == wanted.backend && cache_alike(w);
    let loaded_alike = |w: &&Way<'a>| w.loaded == wanted.loaded;
    only(&|w| run_alike(w) && loaded_alike(w))
        .or_else(|| only(&run_alike))
        .or_else(|| only(&loaded_alike))
        .or_else(|| only(&|_| true))
}

/// The row of `base` that `new` is held against: of the same context and batch, with the same settings as far as both files tell; else the
/// only one of that context and batch, whose settings are then no others' either. With its place in `base`.
pub(super) fn row<'b, 'a>(base: &'b [Row<'a>], new: &Row<'_>) -> Option<(usize, &'b Row<'a>)> {
    let size = |row: &Row<'_>| (row.context(), row.batch());
    let there = || base.iter().enumerate().filter(|(_, row)| size(row) == size(new));
    let alike = |(_, row): &(usize, &Row<'_>)| {
        let [base, new] = used(row, new);
        base.differing(&new).is_empty()
    };
    // Where several were run alike, the one that the same was asked of: the others have partners of their own.
    let asked = |(_, row): &(usize, &Row<'_>)| row.run.setting.differing(&new.run.setting).len();
    there().filter(alike).min_by_key(asked).or_else(|| there().next().filter(|_| there().count() == 1))
}

/// The settings of two rows of one context and batch, with the follow-up prompts that they stand for, if of an older row: the prefill chunk
/// as it was used, where both files tell, since the usual one may be what the other side asked for; else as it was asked for.
pub(super) fn used(base: &Row<'_>, new: &Row<'_>) -> [Setting; 2] {
    let chunk = |row: &Row<'_>| setting::prefill_chunk(&row.run.result, row.measured?);
    let chunks = chunk(base).zip(chunk(new));
    let [of_base, of_new] = [base, new].map(|row| match row.follow_up {
        Some((_, follow_up)) => row.run.setting.clone().with_follow_up(follow_up.tokens),
        None => row.run.setting.clone(),
    });
    match chunks {
        Some((base, new)) => [of_base.with_chunk(base), of_new.with_chunk(new)],
        None => [of_base, of_new],
    }
}

/// The two ways in words: what they have in common once, where they differ both.
pub(super) fn words(base: &Way<'_>, new: &Way<'_>) -> String {
    let mut words = match (base.backend == new.backend, base.cache == new.cache) {
        (true, true) => new.cache.to_string(),
        (true, false) => format!("{} against {}", new.cache, base.cache),
        (false, true) => format!("{}: {} against {}", new.cache, new.backend, base.backend),
        (false, false) => format!("{} {} against {} {}", new.backend, new.cache, base.backend, base.cache),
    };
    // Two unquantized caches of other names have said it by these.
    let told = base.cache != new.cache && !(base.quantized || new.quantized);
    let (before, after) = (&base.loaded, &new.loaded);
    if before.dtype != after.dtype && !told {
        let name = |dtype: &str| if dtype.is_empty() { "unknown float type" } else { dtype }.to_string();
        words.push_str(&format!(", {} against {}", name(&after.dtype), name(&before.dtype)));
    }
    if before.window != after.window {
        words.push_str(&format!(", {} against {}", after.window, before.window));
    }
    if before.random_weights != after.random_weights {
        let name = |random| if random { "random" } else { "trained" };
        words.push_str(&format!(", {} against {} weights", name(after.random_weights), name(before.random_weights)));
    }
    words
}

/// The settings of two rows in words, each with a comma before it: where they differ both, else what the new study has several of.
pub(super) fn settings(base: &Row<'_>, new: &Row<'_>) -> String {
    let mut words = String::new();
    let [of_base, of_new] = used(base, new);
    let differing = of_new.differing(&of_base);
    let told = new.run.told.without(&differing);
    for pair in pairs(&of_base.only(&differing), &of_new.only(&differing)).into_iter() {
        words.push_str(&format!(", {pair}"));
    }
    told.words().iter().for_each(|told| words.push_str(&format!(", {told}")));
    words
}

/// Two settings of the same parts, each part of one against that of the other.
pub(super) fn pairs(base: &Setting, new: &Setting) -> Vec<String> {
    new.words().iter().zip(base.words()).map(|(new, base)| format!("{new} against {base}")).collect()
}
