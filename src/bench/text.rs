//! The text that `ppl` and `kld` read, and the book that hides a needle.

use std::path::Path;

use sha2::{Digest, Sha256};

use super::corpus;
use super::data::{self, DataSet, Files, PG19, WIKITEXT2};
use super::settings::Settings;
use crate::base::hex::hex;
use crate::model::Subject;
use crate::schema::DataSource;
use crate::{Error, Result};

/// A text and where it came from.
pub struct Text {
    /// Name, revision and hash.
    pub source: DataSource,
    /// Read one after the other; no window crosses from one into the next.
    documents: Vec<String>,
}

impl Text {
    /// Loads the text that `--ppl-data` and `--data` ask for; `tokens` of it will be read at most.
    ///
    /// # Errors
    /// When it cannot be found or read, naming the file and the flag that supplies it.
    pub fn load(settings: &Settings, subject: &Subject, tokens: usize) -> Result<Self> {
        Text::named(default_name(settings, &subject.model), settings, tokens)
    }

    /// The text called `name`: `builtin`, `wikitext2`, `pg19`, or a file.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn named(name: &str, settings: &Settings, tokens: usize) -> Result<Self> {
        match name {
            "builtin" if tokens == usize::MAX => Err(endless()),
            "builtin" => Text::builtin(settings.seed, tokens),
            _ => match data_set(name) {
                Some(set) => Text::read(&set.find(settings.data.as_deref())?, name == WIKITEXT2.name),
                None => {
                    check_name(name, "--ppl-data")?;
                    Text::read(&Files::one(Path::new(name)), false)
                }
            },
        }
    }

    /// Unseen text of the built-in language.
    fn builtin(seed: u64, tokens: usize) -> Result<Self> {
        // Its tokens are two to six bytes long; what is too much is not tokenized.
        let content =
            corpus::text(corpus::FIRST_HELD_OUT_SEED.saturating_add(seed), tokens.saturating_mul(8).min(16 << 20))?;
        let source = DataSource { name: "builtin".into(), revision: None, sha256: hex(&Sha256::digest(&content)) };
        Ok(Text { source, documents: vec![content] })
    }

    /// `lines`: whether rows are lines of one text, as those of WikiText are.
    fn read(files: &Files, lines: bool) -> Result<Self> {
        let mut documents = Vec::new();
        for path in &files.paths {
            documents.extend(documents_of(path, lines)?);
        }
        Ok(Text { source: files.source()?, documents })
    }

    /// The texts themselves.
    pub fn documents(&self) -> &[String] {
        &self.documents
    }

    /// Token ids of its documents, without any special token, until there are `wanted` in all.
    ///
    /// # Errors
    /// When the tokenizer refuses a document.
    pub fn tokens(&self, subject: &Subject, wanted: usize) -> Result<Vec<Vec<u32>>> {
        let mut documents = Vec::new();
        let mut left = wanted;
        for document in &self.documents {
            let ids = first_tokens(subject, document, left)?;
            left -= ids.len();
            documents.push(ids);
            if left == 0 {
                break;
            }
        }
        Ok(documents)
    }
}

/// The text called `name`, where it is one that `--data` may hold.
fn data_set(name: &str) -> Option<&'static DataSet> {
    [&WIKITEXT2, &PG19].into_iter().find(|set| set.name == name)
}

/// Whether `name` is a text that `--data` may hold.
pub fn is_data_set(name: &str) -> bool {
    data_set(name).is_some()
}

/// Whether `name` stands for a file, and for no text that kvprof knows.
pub fn is_file_name(name: &str) -> bool {
    !is_data_set(name) && !["builtin", "filler"].contains(&name)
}

/// The local files of the text or haystack called `name`, where it has some.
pub fn local_files(name: &str, settings: &Settings) -> Vec<Files> {
    let file = Path::new(name);
    let files = match data_set(name) {
        Some(set) => set.local(settings.data.as_deref()),
        None => (is_file_name(name) && file.is_file()).then(|| Files::one(file)),
    };
    files.into_iter().collect()
}

/// Refuses the name of a text that there is not; `flag` gave it.
///
/// # Errors
/// A usage error that says what there is.
pub fn check_name(name: &str, flag: &str) -> Result<()> {
    if name == "builtin" || is_data_set(name) || Path::new(name).is_file() {
        return Ok(());
    }
    let what = if Path::new(name).exists() { "is not a file" } else { "is no text" };
    Err(Error::usage(format!(
        "{flag} {name:?} {what}: there are builtin, wikitext2 and pg19, or give the path of a file"
    )))
}

/// Refuses to score all (0 tokens) of a text without an end.
///
/// # Errors
/// A usage error that names the flag.
pub fn check_end(name: &str, tokens: usize) -> Result<()> {
    if name == "builtin" && tokens == 0 { Err(endless()) } else { Ok(()) }
}

fn endless() -> Error {
    Error::usage("the built-in text has no end: say with --ppl-tokens how much of it to score")
}

/// The text that `settings` name, or the default for `model`.
pub fn default_name<'a>(settings: &'a Settings, model: &str) -> &'a str {
    let given = settings.data.as_deref().is_some_and(Path::is_file);
    let default = if model == "builtin" && !given { "builtin" } else { "wikitext2" };
    settings.ppl_data.as_deref().unwrap_or(default)
}

/// The text called `name` as it is read: the file that `--data` gives in its place, or `name` itself.
pub fn read_as(name: &str, settings: &Settings) -> String {
    let file = settings.data.as_deref().filter(|path| is_data_set(name) && path.is_file());
    file.map_or_else(|| name.to_string(), |path| path.display().to_string())
}

/// The first `wanted` token ids of `document`, without tokenizing all of it.
fn first_tokens(subject: &Subject, document: &str, wanted: usize) -> Result<Vec<u32>> {
    // Tokens near the cut may differ from those of the whole text; this many after the last wanted one are more than a
    // tokenizer looks ahead from one word to the next.
    const MARGIN: usize = 16;
    let tokenizer = subject.tokenizer()?;
    let mut bytes = wanted.saturating_add(MARGIN).saturating_mul(6);
    loop {
        let cut =
            (bytes < document.len()).then(|| document[..document.floor_char_boundary(bytes)].rfind(' ')).flatten();
        let Some(cut) = cut else {
            let mut ids = tokenizer.encode(document, false)?;
            ids.truncate(wanted);
            return Ok(ids);
        };
        let mut ids = tokenizer.encode(&document[..cut], false)?;
        if ids.len() >= wanted + MARGIN {
            ids.truncate(wanted);
            return Ok(ids);
        }
        bytes = bytes.saturating_mul(2);
    }
}

/// The documents of one file. WikiText's rows are lines of one document, joined by blank lines as everyone joins them.
fn documents_of(path: &Path, wikitext: bool) -> Result<Vec<String>> {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_lowercase();
    if matches!(extension.as_str(), "parquet" | "jsonl" | "json") {
        let text = |row: data::Row| match row.get("text").and_then(|t| t.as_str()) {
            Some(text) => Ok(text.to_string()),
            None => Err(Error::file(path, "has a row without `text`; give a file of texts")),
        };
        let rows = data::rows(path)?.into_iter().map(text).collect::<Result<Vec<String>>>()?;
        return Ok(if wikitext { vec![rows.join("\n\n")] } else { rows });
    }
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    let content = String::from_utf8(bytes).map_err(|_| Error::file(path, "is not UTF-8 text"))?;
    let raw_wikitext = extension == "raw" && path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("wiki."));
    Ok(vec![if raw_wikitext { join_lines(&content) } else { content }])
}

/// What joining the rows of the hub's WikiText gives: a row is a line with its end, or nothing for a blank line.
fn join_lines(raw: &str) -> String {
    let rows = raw.split_inclusive('\n').map(|line| if line.trim().is_empty() { "" } else { line });
    rows.collect::<Vec<_>>().join("\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_wikitext_is_joined_as_its_rows_are() {
        assert_eq!(join_lines(" \n = Title = \n \n Text . \n"), "\n\n = Title = \n\n\n\n\n Text . \n");
    }

    #[test]
    fn an_unknown_text_is_refused_with_the_known_ones() {
        let error = Text::named("wikitext3", &Settings::default(), 10).err().unwrap();
        assert!(error.is_usage() && error.to_string().contains("wikitext2"), "{error}");
        let error = Text::named("builtin", &Settings::default(), usize::MAX).err().unwrap();
        assert!(error.is_usage() && error.to_string().contains("--ppl-tokens"), "{error}");
    }

    #[test]
    fn rows_without_text_are_refused_by_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.jsonl");
        std::fs::write(&path, "{\"content\": \"x\"}\n").unwrap();
        let error = Text::named(path.to_str().unwrap(), &Settings::default(), 10).err().unwrap();
        assert!(error.to_string().contains("rows.jsonl"), "{error}");
    }
}
