//! File arguments that several commands share.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::report::report_rejected;
use crate::report::study::{Study, canonical, search};
use crate::{Error, Result};

/// The results of `paths`, which are called `named`, and exit code 1 where a file was skipped. What is left out is told on standard error, each
/// line after `side`.
///
/// # Errors
/// A missing path, and no result file at all.
pub fn load(paths: &[PathBuf], named: &str, side: &str) -> Result<(Study, ExitCode)> {
    let study = Study::load(paths)?;
    let skipped = report_rejected(&study, side);
    match study.runs.is_empty() {
        true => Err(Error::usage(format!("no result file among {named}; `kvprof run` makes them"))),
        false => Ok((study, skipped)),
    }
}

/// Refuses an output that would replace one of `inputs`, however either is spelt.
///
/// # Errors
/// A usage error that names the output.
pub fn refuse_input<'a>(output: &Path, inputs: impl IntoIterator<Item = &'a PathBuf>) -> Result<()> {
    let place = canonical(output);
    match inputs.into_iter().any(|input| canonical(input) == place) {
        true => Err(Error::usage(format!("{} is one of the result files; name another output", output.display()))),
        false => Ok(()),
    }
}

/// The files that `patterns` name, each once: files as they are, folders as the `.json` files below them, as for a report, and globs that the shell
/// left unexpanded.
///
/// # Errors
/// When a pattern names nothing, or all that is named are backups, which are left alone.
pub fn result_files(patterns: &[String]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut known = HashSet::new();
    for pattern in patterns {
        let path = PathBuf::from(pattern);
        let mut found: Vec<PathBuf> = if path.is_dir() {
            let mut below = Vec::new();
            search(&path, &mut below)?;
            below
        } else if path.exists() {
            vec![path]
        } else {
            let matches = glob::glob(pattern).map_err(|e| Error::usage(format!("{pattern}: {e}")))?;
            matches.flatten().filter(|p| p.is_file()).collect()
        };
        if found.is_empty() {
            let what =
                if Path::new(pattern).is_dir() { "the folder holds no result file" } else { "no such result file" };
            return Err(Error::usage(format!("{pattern}: {what}")));
        }
        found.sort();
        for path in found {
            // Two patterns may name one file, and a pattern that the shell expanded names backups too.
            let backup = path.extension().is_some_and(|e| e.to_string_lossy().starts_with("bak"));
            if !backup && known.insert(canonical(&path)) {
                files.push(path);
            }
        }
    }
    if files.is_empty() {
        return Err(Error::usage(format!(
            "{}: only backups; copy one to a name that ends in .json",
            patterns.join(" ")
        )));
    }
    Ok(files)
}
