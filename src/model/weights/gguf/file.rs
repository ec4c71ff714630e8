//! A model in GGUF: its metadata, and its tensors wherever they lie.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::quantized::gguf_file::Value;
use candle_core::{Device, Tensor};

use super::part::{Part, count_in};
use super::split;
use crate::{Error, Result};

/// A model in one GGUF file, or in the parts that `llama-gguf-split` makes of one.
pub struct GgufFile {
    /// At least one; the first holds the metadata.
    parts: Vec<Part>,
    /// Tensor name → part.
    places: HashMap<String, usize>,
}

impl GgufFile {
    /// Reads the header of the file at `path`, and where that is one part of a model those of all others, which must lie beside it.
    ///
    /// # Errors
    /// [`Error::Io`] when a file cannot be opened, [`Error::File`] when one is not GGUF, is truncated, holds a tensor type that candle
    /// cannot read, or when parts are missing or do not belong together.
    pub fn open(path: &Path) -> Result<Self> {
        let parts = split::all_parts(Part::open(path)?)?;
        let mut places = HashMap::new();
        for (at, part) in parts.iter().enumerate() {
            places.extend(part.tensors().map(|name| (name.clone(), at)));
        }
        Ok(GgufFile { parts, places })
    }

    /// The model's files: one, or its parts in order.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.parts.iter().map(|part| part.path().to_path_buf()).collect()
    }

    /// Whether there is a tensor `name`.
    pub fn has(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    /// Sizes of tensor `name`, slowest first, if there is one.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.part_of(name).shape(name)
    }

    /// Tensor `name`, dequantized to f32.
    ///
    /// # Errors
    /// [`Error::File`] when there is none, or it cannot be read.
    pub(super) fn read(&self, name: &str, device: &Device) -> Result<Tensor> {
        self.part_of(name).read(name, device)
    }

    /// An error about this model.
    pub fn wrong(&self, message: impl Into<String>) -> Error {
        self.parts[0].wrong(message)
    }

    /// An error about tensor `name`, which names the file that holds it.
    pub(super) fn fault(&self, name: &str, message: &str) -> Error {
        self.part_of(name).wrong(format!("tensor `{name}` {message}"))
    }

    /// The part that holds tensor `name`; the first where none does.
    fn part_of(&self, name: &str) -> &Part {
        &self.parts[self.places.get(name).copied().unwrap_or(0)]
    }

    /// An entry of the metadata.
    pub(super) fn entry(&self, key: &str) -> Option<&Value> {
        self.parts[0].entry(key)
    }

    /// A metadata text.
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.entry(key)? {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// A metadata flag.
    pub fn flag(&self, key: &str) -> Option<bool> {
        match self.entry(key)? {
            Value::Bool(flag) => Some(*flag),
            _ => None,
        }
    }

    /// A metadata list.
    pub fn list(&self, key: &str) -> Option<&[Value]> {
        match self.entry(key)? {
            Value::Array(items) => Some(items),
            _ => None,
        }
    }

    /// A metadata count, of whichever integer type. A list of equal counts (one for each layer) is that count.
    pub fn count(&self, key: &str) -> Option<usize> {
        self.parts[0].count(key)
    }

    /// A metadata number, of whichever type.
    pub fn number(&self, key: &str) -> Option<f64> {
        match self.entry(key)? {
            Value::F32(v) => Some(f64::from(*v)),
            Value::F64(v) => Some(*v),
            other => count_in(other).map(|v| v as f64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_gguf_is_refused_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.gguf");
        for bytes in [&b""[..], b"GGUF", b"not a model at all, but long enough to have a header in it"] {
            std::fs::write(&path, bytes).unwrap();
            let Err(error) = GgufFile::open(&path) else { panic!("opened") };
            assert!(error.is_usage());
            assert!(error.to_string().contains("m.gguf"), "{error}");
        }
    }
}
