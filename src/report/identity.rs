//! The columns that tell rows of the tables at the end of a run apart.

use std::collections::BTreeSet;

use crate::schema::{Measurement, RunResult};

/// What a row tells of: a result, and one of its measurements where the row has one.
pub type Row<'a> = (&'a RunResult, Option<&'a Measurement>);

/// A column that tells rows apart.
#[derive(Clone, Copy)]
pub struct Identity {
    /// Its head.
    pub head: &'static str,
    /// What a row says in it.
    pub of: fn(Row<'_>) -> String,
}

const IDENTITIES: [Identity; 4] = [
    Identity { head: "model", of: |(result, _)| result.model.clone() },
    Identity { head: "backend", of: |(result, _)| result.attn_backend.clone() },
    // A patch may have given single rows others than the run's.
    Identity {
        head: "tokens out",
        of: |(result, m)| m.and_then(|m| m.decode_tokens).unwrap_or_else(|| result.decode_tokens()).to_string(),
    },
    // Only rows that have one are told apart by it.
    Identity { head: "follow-up tokens", of: |(_, m)| follow_up_tokens(m) },
];

fn follow_up_tokens(m: Option<&Measurement>) -> String {
    m.and_then(|m| m.follow_up.as_ref()).map_or_else(String::new, |follow_up| follow_up.tokens.to_string())
}

/// The columns in which `rows` differ: what all have in common is not told in each.
pub fn varying(rows: &[Row<'_>]) -> Vec<Identity> {
    let told = |identity: &Identity| {
        let told: BTreeSet<String> = rows.iter().map(|row| (identity.of)(*row)).collect();
        told.iter().filter(|told| !told.is_empty()).count()
    };
    IDENTITIES.into_iter().filter(|identity| told(identity) > 1).collect()
}

/// The cache of a row, called `cache`, behind what the row says in the columns `varying`: for lines, which have no columns.
pub fn name(varying: &[Identity], row: Row<'_>, cache: String) -> String {
    let words = varying.iter().map(|identity| (identity.head, (identity.of)(row))).filter(|(_, told)| !told.is_empty());
    let words = words.map(|(head, told)| match head {
        "model" | "backend" => told,
        counted => format!("{told} {counted}"),
    });
    words.chain([cache]).collect::<Vec<_>>().join(" · ")
}

/// What a row that stands for a whole result says in the columns `varying`.
pub fn cells(varying: &[Identity], result: &RunResult) -> Vec<String> {
    varying.iter().map(|identity| (identity.of)((result, None))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{instrument_summary, needle_grid, quality_summary, summary};
    use crate::schema::{Accuracy, Benchmarks, Energy, EnergyWindow, Measurement, NeedleTrial, RunResult, bare_result};

    fn result(backend: &str) -> RunResult {
        let trial = NeedleTrial { context_length: 256, depth_percent: 0.5, ..Default::default() };
        let benchmarks = Benchmarks {
            mmlu: Some(Accuracy::default()),
            needle_in_haystack_trials: Some(vec![trial]),
            ..Default::default()
        };
        let energy = Energy { decode: Some(EnergyWindow::default()), ..Default::default() };
        let measurements = vec![Measurement { prefill_ms: Some(1.0), energy: Some(energy), ..Default::default() }];
        RunResult { attn_backend: backend.into(), benchmarks, measurements, ..bare_result() }
    }

    #[test]
    fn every_table_at_the_end_of_a_run_tells_its_rows_apart() {
        let (eager, fused) = (result("eager"), result("fused"));
        let tables = |results: &[&RunResult]| {
            let all = [summary::table, instrument_summary::table, quality_summary::table, needle_grid::table];
            all.map(|table| table(results).unwrap().to_string())
        };
        for table in tables(&[&eager, &fused]) {
            for told in ["backend", "eager", "fused"] {
                assert!(table.contains(told), "{told} in\n{table}");
            }
            assert!(!table.contains("model"), "what all rows have in common is not told:\n{table}");
        }
        for table in tables(&[&eager, &eager]) {
            assert!(!table.contains("backend"), "{table}");
        }
    }
}
