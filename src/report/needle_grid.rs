//! The needle grid: context × depth, one block of columns for each cache.

use super::identity::{self, Row};
use super::label::quantization;
use super::terminal::{TerminalTable, absent};
use crate::schema::{NeedleTrial, RunResult};

/// Successes at every context length and depth, one row for each cache and context; `None` when no result has needles.
pub fn table(results: &[&RunResult]) -> Option<TerminalTable> {
    let trials = |result: &RunResult| result.benchmarks.needle_in_haystack_trials.clone().unwrap_or_default();
    let mut depths: Vec<f64> = results.iter().flat_map(|r| trials(r)).map(|t| t.depth_percent).collect();
    depths.sort_by(f64::total_cmp);
    depths.dedup();
    if depths.is_empty() {
        return None;
    }
    let columns = depths.iter().map(|depth| format!("at {:.0} %", depth * 100.0));
    let rows: Vec<Row<'_>> = results.iter().filter(|r| !trials(r).is_empty()).map(|r| (*r, None)).collect();
    let varying = identity::varying(&rows);
    let heads = varying.iter().map(|identity| identity.head).chain(["needle", "context"]);
    let places = varying.len() + 2;
    let mut table = TerminalTable::new(heads.map(String::from).chain(columns), places).right_from(places - 1);
    for result in results {
        let trials = trials(result);
        let mut contexts: Vec<usize> = trials.iter().map(|t| t.context_length).collect();
        contexts.sort_unstable();
        contexts.dedup();
        for (row, context) in contexts.iter().enumerate() {
            let name = quantization(result);
            let names = identity::cells(&varying, result).into_iter().chain([name]);
            let names = names.map(|name| if row == 0 { name } else { String::new() });
            let scores = depths.iter().map(|depth| score(&trials, *context, *depth));
            table.add_row(names.chain([context.to_string()]).chain(scores));
        }
    }
    Some(table)
}

/// `3/4`, or a dash where nothing was tried.
fn score(trials: &[NeedleTrial], context: usize, depth: f64) -> String {
    let here = || trials.iter().filter(|t| t.context_length == context && t.depth_percent == depth);
    match here().count() {
        0 => absent(),
        tried => format!("{}/{tried}", here().filter(|t| t.success).count()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_counts_the_trials_of_its_context_and_depth() {
        let trial = |context_length, depth_percent, success| NeedleTrial {
            context_length,
            depth_percent,
            success,
            ..Default::default()
        };
        let trials = [trial(256, 0.5, true), trial(256, 0.5, false), trial(512, 0.5, true)];
        assert_eq!(score(&trials, 256, 0.5), "1/2");
        assert_eq!(score(&trials, 512, 0.5), "1/1");
        assert_eq!(score(&trials, 512, 0.9), "–");
    }
}
