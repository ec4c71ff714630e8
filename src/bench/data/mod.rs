//! Data sets: where their files are, and what was read.
//!
//! A data set is looked for in the folder or file that `--data` names and nowhere else; without `--data`, in the hub's cache and
//! then on the hub. What was read is recorded by name, revision and SHA-256.

mod read;

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

pub use read::rows;

use crate::base::hex::hex;
use crate::model::hub::{Hub, HubRepo, commit_of, names_below};
use crate::schema::DataSource;
use crate::{Error, Result};

/// One example of a data set: column or field name → value.
pub type Row = Map<String, Value>;

/// A data set, or one split of it: file name patterns in the order in which they are tried (`*` and `?` match within a
/// folder's name too).
#[derive(Debug)]
pub struct DataSet {
    /// What result files call it.
    pub name: &'static str,
    /// Repository on the hub.
    pub repo: &'static str,
    /// Its files there.
    pub hub: &'static [&'static str],
    /// Its files in a local folder.
    pub local: &'static [&'static str],
}

/// WikiText-2, raw, test split.
pub const WIKITEXT2: DataSet = DataSet {
    name: "wikitext2",
    repo: "Salesforce/wikitext",
    hub: &["wikitext-2-raw-v1/test-*.parquet"],
    local: &[
        "wiki.test.raw",
        "wikitext2/wiki.test.raw",
        "wikitext-2-raw-v1/test-*.parquet",
        "wikitext-2-raw/wiki.test.raw",
    ],
};

/// The test books of PG-19.
pub const PG19: DataSet = DataSet {
    name: "pg19",
    repo: "emozilla/pg19-test",
    hub: &["data/test-*.parquet", "test*.parquet", "test*.jsonl"],
    local: &["pg19/*.txt", "books/*.txt", "data/test-*.parquet", "pg19/*.parquet", "pg19/*.jsonl"],
};

/// The 500 MATH problems of the PRM800K split.
pub const MATH500: DataSet = DataSet {
    name: "math500",
    repo: "HuggingFaceH4/MATH-500",
    hub: &["test.jsonl"],
    local: &["math500/test.jsonl", "MATH-500/test.jsonl", "test.jsonl"],
};

/// MMLU, test split.
pub const MMLU_TEST: DataSet = DataSet {
    name: "mmlu",
    repo: "cais/mmlu",
    hub: &["all/test-*.parquet"],
    local: &["mmlu/data/test/*.csv", "data/test/*.csv", "test/*.csv", "all/test-*.parquet", "mmlu/all/test-*.parquet"],
};

/// MMLU, the five examples of each subject.
pub const MMLU_DEV: DataSet = DataSet {
    name: "mmlu",
    repo: "cais/mmlu",
    hub: &["all/dev-*.parquet"],
    local: &["mmlu/data/dev/*.csv", "data/dev/*.csv", "dev/*.csv", "all/dev-*.parquet", "mmlu/all/dev-*.parquet"],
};

/// Files of a data set on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// Sorted by name.
    pub paths: Vec<PathBuf>,
    /// Name of the data set, or of the file that stands in for it.
    pub name: String,
    /// Commit of the hub.
    pub revision: Option<String>,
}

impl DataSet {
    /// The files, fetched from the hub if need be. `data` is `--data`.
    ///
    /// # Errors
    /// Names the files that were looked for and the flag that supplies them.
    pub fn find(&self, data: Option<&Path>) -> Result<Files> {
        match data {
            Some(path) if path.is_file() => Ok(Files::one(path)),
            Some(folder) => self.in_folder(folder),
            None => {
                let or =
                    |told: String| format!("{told}. Or give a local copy with --data FOLDER ({} in it)", self.local[0]);
                self.on_hub().map_err(|e| match e {
                    Error::Usage(told) => Error::Usage(or(told)),
                    Error::Hub(told) => Error::Hub(or(told)),
                    other => other,
                })
            }
        }
    }

    /// The files in the folder or file `data`, where they are there.
    pub fn local(&self, data: Option<&Path>) -> Option<Files> {
        data.and_then(|path| self.find(Some(path)).ok())
    }

    fn in_folder(&self, folder: &Path) -> Result<Files> {
        if !folder.exists() {
            return Err(Error::usage(format!("--data {}: no such file or folder", folder.display())));
        }
        let names = names_below(folder)?;
        for pattern in self.local {
            let paths: Vec<PathBuf> = matching(pattern, &names).into_iter().map(|name| folder.join(name)).collect();
            if !paths.is_empty() {
                return Ok(Files { paths, name: self.name.into(), revision: commit_of(folder) });
            }
        }
        Err(Error::usage(format!(
            "--data {}: has no files of {}; looked for {}",
            folder.display(),
            self.name,
            self.local.join(", ")
        )))
    }

    fn on_hub(&self) -> Result<Files> {
        let hub = Hub::from_env(false)?;
        let repo = HubRepo::dataset(self.repo, None);
        // The cache first: a data set that was fetched once needs no network.
        let cached = hub.cached_files(&repo)?;
        let mut names = self.complete(&cached);
        if names.is_empty() && hub.is_online() {
            names = self.complete(&hub.files(&repo)?);
        }
        if names.is_empty() {
            return Err(Error::usage(match hub.is_online() {
                true => format!("{} on the hub has no {}", self.repo, self.hub.join(" or ")),
                false => format!(
                    "{} of {} is not in the cache at {}, and HF_HUB_OFFLINE forbids a download",
                    self.hub[0],
                    self.repo,
                    hub.cache_folder().display()
                ),
            }));
        }
        let paths = names.iter().map(|name| hub.get(&repo, name)).collect::<Result<Vec<_>>>()?;
        let revision = paths.first().and_then(|path| commit_of(path));
        Ok(Files { paths, name: self.name.into(), revision })
    }

    /// The files of the first pattern that has all its shards among `names`.
    fn complete(&self, names: &[String]) -> Vec<String> {
        let shards =
            |found: &[String]| -> Option<usize> { found.first()?.split_once("-of-")?.1.get(..5)?.parse().ok() };
        let found = self.hub.iter().map(|pattern| matching(pattern, names));
        found.into_iter().find(|f| !f.is_empty() && shards(f).is_none_or(|n| n == f.len())).unwrap_or_default()
    }
}

impl Files {
    /// A file that was named.
    pub fn one(path: &Path) -> Self {
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        Files { paths: vec![path.into()], name, revision: None }
    }

    /// SHA-256 over the files' contents, one after the other in order of name.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn source(&self) -> Result<DataSource> {
        source(&self.name, self.revision.clone(), &[self])
    }
}

/// What was read from several splits, as one source.
///
/// # Errors
/// When a file cannot be read.
pub fn source(name: &str, revision: Option<String>, splits: &[&Files]) -> Result<DataSource> {
    let mut hasher = Sha256::new();
    for path in splits.iter().flat_map(|files| &files.paths) {
        hasher.update(std::fs::read(path).map_err(|e| Error::io(path, e))?);
    }
    Ok(DataSource { name: name.into(), revision, sha256: hex(&hasher.finalize()) })
}

/// Digest of what `files` hold, and of what their names say of how they are read: the ending; of `.csv` and `.raw` files the rest too,
/// in which MMLU has its subjects and WikiText its form.
///
/// # Errors
/// When a file cannot be read.
pub fn digest(files: &[Files]) -> Result<String> {
    let mut hasher = Sha256::new();
    for path in files.iter().flat_map(|files| &files.paths) {
        let mut file = std::fs::File::open(path).map_err(|e| Error::io(path, e))?;
        let bytes = std::io::copy(&mut file, &mut hasher).map_err(|e| Error::io(path, e))?;
        let ending = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        let name = path.file_name().filter(|_| ["csv", "raw"].contains(&ending.as_str())).unwrap_or_default();
        hasher.update(format!("\n{bytes} {} {ending}\n", name.to_string_lossy()));
    }
    Ok(hex(&hasher.finalize()))
}

fn matching(pattern: &str, names: &[String]) -> Vec<String> {
    let Ok(pattern) = glob::Pattern::new(pattern) else { return Vec::new() };
    let options = glob::MatchOptions { require_literal_separator: true, ..Default::default() };
    let mut found: Vec<String> = names.iter().filter(|name| pattern.matches_with(name, options)).cloned().collect();
    found.sort_unstable();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder_with(names: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, name).unwrap();
        }
        folder
    }

    #[test]
    fn a_local_folder_is_searched_by_the_known_layouts() {
        let folder =
            folder_with(&["mmlu/data/test/b_test.csv", "mmlu/data/test/a_test.csv", "mmlu/data/dev/a_dev.csv"]);
        let files = MMLU_TEST.find(Some(folder.path())).unwrap();
        let names: Vec<_> = files.paths.iter().map(|p| p.file_name().unwrap().to_string_lossy().into_owned()).collect();
        assert_eq!(names, ["a_test.csv", "b_test.csv"]);
        assert_eq!(files.source().unwrap().name, "mmlu");
        assert_eq!(files.source().unwrap().sha256.len(), 64);
    }

    #[test]
    fn a_file_stands_in_for_the_data_set() {
        let folder = folder_with(&["mine.jsonl"]);
        let files = MATH500.find(Some(&folder.path().join("mine.jsonl"))).unwrap();
        assert_eq!(files.source().unwrap().name, "mine.jsonl");
        // `printf mine.jsonl | sha256sum`
        assert!(files.source().unwrap().sha256.starts_with(&hex(&Sha256::digest("mine.jsonl"))));
    }

    #[test]
    fn what_is_missing_locally_is_named_with_the_flag() {
        let folder = folder_with(&["other.txt"]);
        let error = MATH500.find(Some(folder.path())).unwrap_err().to_string();
        assert!(error.contains("--data") && error.contains("math500/test.jsonl"), "{error}");
        let error = MATH500.find(Some(&folder.path().join("absent"))).unwrap_err().to_string();
        assert!(error.contains("no such file"), "{error}");
    }

    #[test]
    fn a_data_set_with_a_shard_missing_is_not_complete() {
        let names = |list: &[&str]| -> Vec<String> { list.iter().map(|n| n.to_string()).collect() };
        let half = names(&["all/test-00000-of-00002.parquet"]);
        let whole = names(&[
            "all/test-00001-of-00002.parquet",
            "all/test-00000-of-00002.parquet",
            "all/dev-00000-of-00001.parquet",
        ]);
        assert!(MMLU_TEST.complete(&half).is_empty());
        assert_eq!(MMLU_TEST.complete(&whole).len(), 2);
        // A hash in the name, as older uploads have it.
        assert_eq!(PG19.complete(&names(&["data/test-00000-of-00001-29a5.parquet"])).len(), 1);
    }
}
