//! What a cache saves and costs, and what to know before trusting it, in sentences.

use std::collections::BTreeSet;

use super::judge::{scores, speeds};
use crate::report::group::Subject;
use crate::report::number::{self, Digits};
use crate::report::run::Run;
use crate::report::study::Row;

/// The scores that [`judge`] leaves out, since they cannot fall.
pub(super) fn left_out(subject: &Subject<'_>) -> Vec<String> {
    let runs = subject.runs.iter().filter(|run| run.quantized());
    let nothing = runs.flat_map(|run| scores(&run.quality)).filter(|(_, score)| score.of_nothing());
    let names: BTreeSet<&str> = nothing.map(|(name, _)| name).collect();
    let told =
        |name| format!("Of {name} the model scores nothing with an unquantized cache, so that it is left out here.");
    names.into_iter().map(told).collect()
}

pub(super) fn saves(row: &Row<'_>, before: f64, (context, batch): (usize, usize)) -> Option<String> {
    let bytes = row.cache_bytes().filter(|_| before > 0.0)?;
    let batch = if batch == 1 { String::new() } else { format!(" and batch {batch}") };
    Some(format!(
        "{} instead of {} of cache at {} tokens of context{batch}: {} less, {}× smaller.",
        number::bytes(bytes),
        number::bytes(before),
        number::tokens(context),
        number::shown(1.0 - bytes / before, Digits::Percent(0)),
        number::significant(before / bytes, 2)
    ))
}

pub(super) fn costs(row: &Row<'_>, full: &Row<'_>) -> Option<String> {
    let change = |new: f64, old: f64| number::shown(new / old - 1.0, Digits::SignedPercent(0));
    let mut parts = Vec::new();
    if let Some((new, old)) = speeds(row, full) {
        let [a, b] = [new, old].map(|v| number::significant(v, 3));
        parts.push(format!("decoding at {a} instead of {b} tokens/s ({})", change(new, old)));
    }
    let prefill = |r: &Row<'_>| r.measured.and_then(|m| m.prefill_ms).filter(|ms| *ms > 0.0);
    if let Some((new, old)) = prefill(row).zip(prefill(full)) {
        let [a, b] = [new, old].map(|v| number::significant(v, 3));
        parts.push(format!("a prefill of {a} instead of {b} ms ({})", change(new, old)));
    }
    if let Some((new, old)) = row.energy_j().zip(full.energy_j()) {
        let [a, b] = [new, old].map(|v| number::significant(v, 3));
        parts.push(format!("{a} instead of {b} J per token ({})", change(new, old)));
    }
    let last = parts.pop()?;
    let text = if parts.is_empty() { last } else { format!("{} and {last}", parts.join(", ")) };
    Some(format!("{text}."))
}

pub(super) fn caveats(subject: &Subject<'_>, chosen: &Run, baseline: bool, saves: bool) -> Vec<String> {
    let mut out = Vec::new();
    if !baseline {
        let so = match saves {
            true => "so costs are not known, and what is saved is by the cache's own ledger",
            false => "so savings and costs are not known",
        };
        out.push(format!("No unquantized cache was measured at the same place, {so}."));
    }
    if chosen.quality.ln_ratio.is_some() && chosen.quality.ln_ratio_estimate.is_none() {
        out.push("The file records no uncertainty of the perplexity difference.".into());
    }
    if chosen.quality.ln_ratio.is_none() {
        out.push("Perplexity was not measured.".into());
    }
    let of_cache = |row: &Row<'_>| row.run.quantized() && row.run.cache == chosen.cache;
    let did_not_fit = |name: &str, wanted: &dyn Fn(&Row<'_>) -> bool| {
        let rows = subject.rows.iter().filter(|row| row.spilled() && wanted(row));
        let at: BTreeSet<usize> = rows.filter_map(Row::context).collect();
        let at: Vec<String> = at.into_iter().map(number::tokens).collect();
        (!at.is_empty()).then(|| {
            format!(
                "At {} tokens {name} did not fit into device memory; its times there are the host link's.",
                at.join(", ")
            )
        })
    };
    out.extend(did_not_fit("the unquantized cache", &|row| !row.run.quantized()));
    out.extend(did_not_fit(&chosen.cache, &of_cache));
    out
}
