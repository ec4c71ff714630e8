//! The text that `ppl` reads.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::Settings;
use crate::model::Subject;
use crate::schema::DataSource;
use crate::{Error, Result};

/// A text and where it came from.
pub struct Text {
    /// Name, revision and hash.
    pub source: DataSource,
    content: String,
}

impl Text {
    /// Loads the text that `--ppl-data` and `--data` ask for.
    ///
    /// # Errors
    /// When the file cannot be read or is not UTF-8, naming it and the flag that supplies it.
    pub fn load(settings: &Settings, _subject: &Subject) -> Result<Self> {
        if let Some(path) = settings.data.as_deref().filter(|p| p.is_file()) {
            return Text::from_file(path);
        }
        let name = settings.ppl_data.as_deref().unwrap_or("wikitext2");
        let path = PathBuf::from(name);
        if path.is_file() {
            return Text::from_file(&path);
        }
        Err(Error::usage(format!("ppl: no text {name:?} here; give a file with --data FILE or --ppl-data FILE")))
    }

    fn from_file(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
        let content = String::from_utf8(bytes).map_err(|_| Error::file(path, "is not UTF-8 text"))?;
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        Ok(Text::new(name, None, content))
    }

    fn new(name: String, revision: Option<String>, content: String) -> Self {
        let sha256 = Sha256::digest(content.as_bytes()).iter().map(|b| format!("{b:02x}")).collect();
        Text { source: DataSource { name, revision, sha256 }, content }
    }

    /// Its token ids, without any special token.
    pub fn tokens(&self, subject: &Subject) -> Result<Vec<u32>> {
        subject.tokenizer()?.encode(&self.content, false)
    }
}
