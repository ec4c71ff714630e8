//! What `run`, `sweep` and `patch` show at their end: warnings on standard error, results on standard output.

use std::path::Path;

use super::output::{self, say};
use crate::base::message::tell;
use crate::report::advice::{self, Bound};
use crate::report::group::Group;
use crate::report::number::counted;
use crate::report::study::Study;
use crate::report::{instrument_summary, needle_grid, quality_summary, summary, terminal, warnings};
use crate::schema::RunResult;
use crate::session::runner::Outcome;
use crate::session::store::Stored;

/// How results are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Tables, the names of the files, and which cache to use.
    Tables,
    /// The same without the names of the files, as Markdown.
    Markdown,
    /// A JSON array.
    Json,
    /// Not at all.
    Nothing,
}

impl Form {
    /// What the flags `--quiet` and `--markdown` ask for.
    pub fn of(quiet: bool, markdown: bool) -> Self {
        match (quiet, markdown) {
            (true, _) => Form::Nothing,
            (false, true) => Form::Markdown,
            (false, false) => Form::Tables,
        }
    }
}

/// Shows the results of `outcomes` as `form`, and their warnings in any form; returns them.
///
/// # Errors
/// When standard output cannot be written to.
pub fn show(outcomes: &[Outcome], form: Form) -> anyhow::Result<Vec<&RunResult>> {
    let stored: Vec<&Stored> = outcomes.iter().filter_map(|o| o.stored.as_ref()).collect();
    let results: Vec<&RunResult> = stored.iter().map(|s| &s.result).collect();
    warnings::tell(&results);
    match form {
        Form::Nothing => {}
        Form::Json => say!("{}", serde_json::to_string_pretty(&results)?),
        Form::Tables | Form::Markdown => {
            show_tables(&results, stored.iter().map(|stored| stored.path.as_path()), form)?;
            let study = Study::of(stored.iter().map(|s| (s.path.clone(), s.result.clone())).collect());
            show_advice(&Group::of(&study), &Bound::default(), form)?;
        }
    }
    if form != Form::Nothing
        && let Some(line) = earlier(outcomes)
    {
        tell!("{line}");
    }
    Ok(results)
}

/// Shows `results` as tables in the form of `form`, and the names of their `files`; in Markdown, which is for others, without these.
///
/// # Errors
/// When standard output cannot be written to.
pub fn show_tables<'a>(
    results: &[&RunResult],
    files: impl Iterator<Item = &'a Path>,
    form: Form,
) -> anyhow::Result<()> {
    let tables = [summary::table, instrument_summary::table, quality_summary::table, needle_grid::table];
    let tables = tables.into_iter().filter_map(|table| table(results));
    if form == Form::Markdown {
        // Without an empty line between them two tables are one.
        let tables: Vec<String> = tables.map(|table| table.markdown()).collect();
        output::write(tables.join("\n").as_bytes())?;
        return Ok(());
    }
    for table in tables {
        say!("{}", table.within(terminal::width()));
    }
    for file in files {
        say!("{}", file.display());
    }
    Ok(())
}

/// Says of each subject of `group` which cache to use within `bound`, in the form of `form`; nothing where that cannot be told.
///
/// # Errors
/// When standard output cannot be written to.
pub fn show_advice(group: &Group<'_>, bound: &Bound, form: Form) -> anyhow::Result<()> {
    for paragraph in advice::paragraphs(group, bound) {
        say!();
        for (at, line) in paragraph.iter().enumerate() {
            match form {
                Form::Markdown => say!("{}{line}", if at == 0 { "" } else { "- " }),
                _ => say!("{}", terminal::wrapped(line, terminal::width())),
            }
        }
    }
    Ok(())
}

/// How much of the results was measured before, and what another process has; `None` where there is nothing to say.
fn earlier(outcomes: &[Outcome]) -> Option<String> {
    let (mut complete, mut continued, mut blocks, mut elsewhere) = (0, 0, 0, 0);
    for outcome in outcomes {
        match (&outcome.stored, &outcome.error) {
            (None, None) => elsewhere += 1,
            (Some(stored), None) if stored.measured.is_empty() => complete += 1,
            (Some(stored), _) if stored.earlier().next().is_some() => {
                continued += 1;
                blocks += stored.earlier().count();
            }
            _ => {}
        }
    }
    let of = outcomes.len();
    let told = [
        (complete > 0).then(|| format!("{complete} of {of} runs were complete before")),
        (continued > 0).then(|| {
            format!("{continued} of {of} runs went on in files with {} measured before", counted(blocks, "block"))
        }),
        (elsewhere > 0).then(|| format!("{elsewhere} of {of} runs are left to another process that has them")),
    ];
    let told: Vec<String> = told.into_iter().flatten().collect();
    (!told.is_empty()).then(|| told.join("; "))
}
