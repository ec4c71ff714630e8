//! Models in several files, `NAME-00001-of-00003.gguf` and so on: metadata in the first, tensors in all. `llama-gguf-split` writes them, and
//! llama.cpp reads them as this does (`llama_model_loader`).

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::part::Part;
use crate::Result;

/// Missing files that a message names.
const MOST_NAMED: usize = 4;

/// All parts, in order, of the model that `given` is a part of: itself alone where it is a whole model.
///
/// # Errors
/// When a part is missing or damaged, or parts do not belong together.
pub(super) fn all_parts(given: Part) -> Result<Vec<Part>> {
    let Some(parts) = given.count("split.count").filter(|&parts| parts > 1) else { return Ok(vec![given]) };
    let number = given.count("split.no").unwrap_or(0).saturating_add(1);
    let paths = paths(given.path(), number, parts).ok_or_else(|| {
        let ending = format!("-{number:05}-of-{parts:05}.gguf");
        given.wrong(format!(
            "is part {number} of {parts} of a model by its metadata, and its name does not end in {ending}, by which the others would be found; \
             give all parts the names that they were published under"
        ))
    })?;
    let mut missing = paths.iter().filter(|path| !path.is_file());
    let named: Vec<String> = missing.by_ref().take(MOST_NAMED).map(|path| name_of(path)).collect();
    if !named.is_empty() {
        let more = match missing.count() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let named = named.join(", ");
        return Err(given.wrong(format!(
            "is part {number} of {parts} of a model; missing beside it: {named}{more}; fetch them into its folder"
        )));
    }
    let mut given = Some(given);
    let mut all = Vec::with_capacity(parts);
    for (at, path) in paths.iter().enumerate() {
        let part = match given.take_if(|_| at + 1 == number) {
            Some(part) => part,
            None => Part::open(path)?,
        };
        check_place(&part, at, parts)?;
        all.push(part);
    }
    check_tensors(&all)?;
    Ok(all)
}

/// The files of all `parts` by the name of one of them, `NAME-00002-of-00003.gguf`; `None` where that is not the name of part `number`.
fn paths(given: &Path, number: usize, parts: usize) -> Option<Vec<PathBuf>> {
    // The format keeps both in 16 bits; a damaged file must not make us look for more.
    u16::try_from(parts).ok()?;
    let name = given.file_stem()?.to_str()?.strip_suffix(&format!("-{number:05}-of-{parts:05}"))?;
    let ending = given.extension()?.to_str()?;
    let path = |number| given.with_file_name(format!("{name}-{number:05}-of-{parts:05}.{ending}"));
    (1..=parts).contains(&number).then(|| (1..=parts).map(path).collect())
}

/// Refuses a file that is not part number `at`, counted from 0, of `parts`.
fn check_place(part: &Part, at: usize, parts: usize) -> Result<()> {
    let told = ["split.no", "split.count"].map(|key| part.count(key));
    if told == [Some(at), Some(parts)] {
        return Ok(());
    }
    let [no, of] = told.map(|told| told.map_or("?".to_owned(), |told| told.to_string()));
    Err(part.wrong(format!(
        "is not part {} of {parts} as its name has it: its metadata say `split.no` {no} (counted from 0) and `split.count` {of}; fetch it again",
        at + 1
    )))
}

/// Refuses parts that hold a tensor twice or, together, not as many as each of them says that the model has.
fn check_tensors(parts: &[Part]) -> Result<()> {
    let mut holders: HashMap<&String, &Part> = HashMap::new();
    for part in parts {
        for name in part.tensors() {
            if let Some(other) = holders.insert(name, part) {
                let other = name_of(other.path());
                return Err(part.wrong(format!(
                    "holds tensor `{name}`, and so does {other}: they are not parts of one model; fetch all parts of one"
                )));
            }
        }
    }
    let together = holders.len();
    for part in parts {
        if let Some(told) = part.count("split.tensors.count").filter(|&told| told != together) {
            return Err(part.wrong(format!(
                "says that the model has {told} tensors, and its {} parts hold {together}: one is damaged or of another model; fetch all parts \
                 of one",
                parts.len()
            )));
        }
    }
    Ok(())
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
