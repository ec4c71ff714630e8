//! What `run`, `sweep` and `patch` show at their end, the same for all: warnings on standard error, results on standard output.

use super::output::say;
use crate::report::{instrument_summary, needle_grid, quality_summary, summary, warnings};
use crate::schema::RunResult;
use crate::session::runner::Outcome;
use crate::session::store::Stored;

/// How results are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Tables, and the names of the files.
    Tables,
    /// A JSON array.
    Json,
    /// Not at all.
    Nothing,
}

/// Shows the results of `outcomes` as `form`, and their warnings in any form.
///
/// # Errors
/// When standard output cannot be written to.
pub fn show(outcomes: &[Outcome], form: Form) -> anyhow::Result<()> {
    let stored: Vec<&Stored> = outcomes.iter().filter_map(|o| o.stored.as_ref()).collect();
    let results: Vec<&RunResult> = stored.iter().map(|s| &s.result).collect();
    warnings::tell(&results);
    match form {
        Form::Nothing => {}
        Form::Json => say!("{}", serde_json::to_string_pretty(&results)?),
        Form::Tables if results.is_empty() => {}
        Form::Tables => {
            say!("{}", summary::table(&results));
            let more =
                [instrument_summary::table(&results), quality_summary::table(&results), needle_grid::table(&results)];
            for table in more.into_iter().flatten() {
                say!("{table}");
            }
            for stored in stored {
                say!("{}", stored.path.display());
            }
        }
    }
    Ok(())
}
