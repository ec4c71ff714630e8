//! Checkpoints in the safetensors format, in one file or several. Tensors are read one by one; a file is never whole in memory.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Cursor, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use serde::Deserialize;

use super::Weights;
use crate::{Error, Result};

/// Longest header that is believed, in bytes (the format's own limit).
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// What both a file and bytes in memory can do.
trait Source: Read + Seek {}
impl<T: Read + Seek> Source for T {}

/// One tensor, as the header describes it.
#[derive(Debug, Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    /// First byte and end, counted from the end of the header.
    data_offsets: (u64, u64),
}

/// One file of a checkpoint.
struct Part {
    path: PathBuf,
    source: std::cell::RefCell<Box<dyn Source>>,
    data_start: u64,
    entries: HashMap<String, Entry>,
}

/// A checkpoint of one or more files.
pub struct SafetensorsWeights {
    parts: Vec<Part>,
    /// Tensor name → part.
    places: HashMap<String, usize>,
    /// Named in messages about tensors that are nowhere.
    path: PathBuf,
}

impl SafetensorsWeights {
    /// Opens `files`, all parts of one checkpoint. Headers are checked against the files' lengths.
    ///
    /// # Errors
    /// [`Error::Io`] when a file cannot be opened, [`Error::File`] when it is truncated, longer than its header says, or not safetensors.
    pub fn open(files: &[PathBuf]) -> Result<Self> {
        let mut parts = Vec::with_capacity(files.len());
        for path in files {
            let file = File::open(path).map_err(|e| Error::io(path, e))?;
            parts.push(Part::open(path, Box::new(file))?);
        }
        Ok(Self::from_parts(parts))
    }

    /// Reads a checkpoint that is in memory; `name` stands for it in messages.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_bytes(name: &str, bytes: impl AsRef<[u8]> + 'static) -> Result<Self> {
        Ok(Self::from_parts(vec![Part::open(Path::new(name), Box::new(Cursor::new(bytes)))?]))
    }

    fn from_parts(parts: Vec<Part>) -> Self {
        let mut places = HashMap::new();
        for (index, part) in parts.iter().enumerate() {
            places.extend(part.entries.keys().map(|name| (name.clone(), index)));
        }
        let path = match parts.as_slice() {
            [one] => one.path.clone(),
            several => several.first().and_then(|p| p.path.parent()).unwrap_or(Path::new("")).to_path_buf(),
        };
        SafetensorsWeights { parts, places, path }
    }

    fn part(&self, name: &str) -> Option<&Part> {
        self.places.get(name).map(|&index| &self.parts[index])
    }
}

impl Part {
    fn open(path: &Path, mut source: Box<dyn Source>) -> Result<Self> {
        let io = |e: std::io::Error| Error::io(path, e);
        let damaged =
            |what: String| Error::file(path, format!("is not a complete safetensors file ({what}); fetch it again"));
        let length = source.seek(SeekFrom::End(0)).map_err(io)?;
        source.seek(SeekFrom::Start(0)).map_err(io)?;
        if length < 8 {
            return Err(damaged(format!("it has {length} bytes")));
        }
        let mut header_bytes = [0; 8];
        source.read_exact(&mut header_bytes).map_err(io)?;
        let header_bytes = u64::from_le_bytes(header_bytes);
        if header_bytes > MAX_HEADER_BYTES || header_bytes > length - 8 {
            return Err(damaged(format!("its header claims {header_bytes} of {length} bytes")));
        }
        let mut header = vec![0; header_bytes as usize];
        source.read_exact(&mut header).map_err(io)?;
        let mut header: HashMap<String, serde_json::Value> =
            serde_json::from_slice(&header).map_err(|e| damaged(format!("its header is not JSON: {e}")))?;
        header.remove("__metadata__");
        let data_start = 8 + header_bytes;
        let data_bytes = length - data_start;
        let (mut entries, mut last) = (HashMap::with_capacity(header.len()), 0);
        for (name, value) in header {
            let entry: Entry =
                serde_json::from_value(value).map_err(|e| damaged(format!("the header of tensor `{name}`: {e}")))?;
            let (start, end) = entry.data_offsets;
            if start > end || end > data_bytes {
                return Err(damaged(format!("tensor `{name}` ends at byte {end} of {data_bytes}")));
            }
            last = last.max(end);
            entries.insert(name, entry);
        }
        // What a download was resumed at a wrong place with follows the data, or has moved them.
        if last != data_bytes {
            return Err(damaged(format!("its tensors end at byte {last} of {data_bytes}")));
        }
        Ok(Part { path: path.to_path_buf(), source: source.into(), data_start, entries })
    }
}

impl Weights for SafetensorsWeights {
    fn contains(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    fn load(&self, name: &str, _shape: &[usize], _dtype: DType, device: &Device) -> Result<Tensor> {
        let Some(part) = self.part(name) else {
            return Err(self.fault(name, "is missing; the files do not belong to this config.json, or some are absent"));
        };
        let entry = &part.entries[name];
        let dtype = match entry.dtype.as_str() {
            "F16" => DType::F16,
            "BF16" => DType::BF16,
            "F32" => DType::F32,
            "F64" => DType::F64,
            other => {
                let message = format!("is stored as {other}; only F16, BF16, F32 and F64 are supported");
                return Err(self.fault(name, &message));
            }
        };
        let (start, end) = entry.data_offsets;
        let expected = entry.shape.iter().try_fold(dtype.size_in_bytes() as u64, |n, &d| n.checked_mul(d as u64));
        if expected != Some(end - start) {
            let message = format!("of shape {:?} cannot fill {} bytes; fetch the file again", entry.shape, end - start);
            return Err(self.fault(name, &message));
        }
        let mut source = part.source.borrow_mut();
        let mut bytes = vec![0; (end - start) as usize];
        source
            .seek(SeekFrom::Start(part.data_start + start))
            .and_then(|_| source.read_exact(&mut bytes))
            .map_err(|e| Error::io(&part.path, e))?;
        Ok(Tensor::from_raw_buffer(&bytes, dtype, &entry.shape, device)?)
    }

    fn fault(&self, name: &str, message: &str) -> Error {
        let path = self.part(name).map_or(&self.path, |part| &part.path);
        Error::file(path, format!("tensor `{name}` {message}"))
    }
}

/// The safetensors files an index file lists, sorted, relative to it.
///
/// # Errors
/// When the text is not an index, or names a file outside its folder.
pub fn indexed_files(path: &Path, text: &str) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: HashMap<String, String>,
    }
    let index: Index = serde_json::from_str(text)
        .map_err(|e| Error::file(path, format!("is not a safetensors index ({e}); fetch it again")))?;
    let mut files: Vec<String> = index.weight_map.into_values().collect();
    files.sort();
    files.dedup();
    if let Some(odd) = files.iter().find(|f| f.is_empty() || f.contains(['/', '\\']) || f.starts_with("..")) {
        return Err(Error::file(path, format!("names the file `{odd}`, which is not beside it")));
    }
    if files.is_empty() {
        return Err(Error::file(path, "lists no files"));
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_of(header: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(data);
        bytes
    }

    fn refusal(bytes: Vec<u8>) -> String {
        match SafetensorsWeights::from_bytes("w.safetensors", bytes) {
            Ok(_) => panic!("a damaged file was opened"),
            Err(error) => {
                assert!(error.is_usage());
                error.to_string()
            }
        }
    }

    const HEADER: &str = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"__metadata__":{"format":"pt"}}"#;

    #[test]
    fn a_tensor_comes_back_as_written() {
        let data: Vec<u8> = [1.5f32, -2.0].iter().flat_map(|x| x.to_le_bytes()).collect();
        let weights = SafetensorsWeights::from_bytes("w", file_of(HEADER, &data)).unwrap();
        let a = weights.load("a", &[2], DType::F32, &Device::Cpu).unwrap();
        assert_eq!(a.to_vec1::<f32>().unwrap(), [1.5, -2.0]);
        let error = weights.load("b", &[2], DType::F32, &Device::Cpu).unwrap_err();
        assert!(error.to_string().contains("tensor `b` is missing"), "{error}");
    }

    #[test]
    fn truncated_lengthened_and_foreign_files_are_refused_with_their_name() {
        for bytes in [
            vec![],
            file_of(HEADER, &[0; 7]),
            file_of(HEADER, &[0; 9]),
            b"version https://git-lfs.github.com/spec".to_vec(),
        ] {
            let message = refusal(bytes);
            assert!(message.contains("w.safetensors") && message.contains("fetch it again"), "{message}");
        }
        assert!(refusal(file_of("{not json", &[])).contains("not JSON"));
    }

    #[test]
    fn a_shape_that_does_not_fill_its_bytes_is_refused() {
        let header = r#"{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}"#;
        let weights = SafetensorsWeights::from_bytes("w", file_of(header, &[0; 8])).unwrap();
        let error = weights.load("a", &[3], DType::F32, &Device::Cpu).unwrap_err();
        assert!(error.to_string().contains("cannot fill 8 bytes"), "{error}");
    }

    #[test]
    fn an_index_cannot_point_outside_its_folder() {
        let path = Path::new("model.safetensors.index.json");
        assert_eq!(indexed_files(path, r#"{"weight_map": {"a": "1", "b": "2", "c": "1"}}"#).unwrap(), ["1", "2"]);
        assert!(indexed_files(path, r#"{"weight_map": {"a": "../1"}}"#).is_err());
        assert!(indexed_files(path, r#"{"weight_map": {}}"#).is_err());
    }
}
