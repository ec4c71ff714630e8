//! One GGUF file on the disk: a model, or a part of one.

use std::cell::RefCell;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use candle_core::quantized::gguf_file::{Content, Value};
use candle_core::{Device, Tensor};

use super::alignment::Checked;
use crate::{Error, Result};

/// Types of tensors that ggml has and candle cannot read, with their numbers in a file.
const UNREADABLE: [(u32, &str); 20] = [
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (31, "Q4_0_4_4"),
    (32, "Q4_0_4_8"),
    (33, "Q4_0_8_8"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (39, "MXFP4"),
];

/// One open file.
pub(super) struct Part {
    path: PathBuf,
    content: Content,
    reader: RefCell<BufReader<File>>,
}

impl Part {
    /// Reads the header and checks that every tensor lies inside the file.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be opened, [`Error::File`] when it is not GGUF, is truncated, or holds a tensor type that candle
    /// cannot read.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| Error::io(path, e))?;
        let length = file.metadata().map_err(|e| Error::io(path, e))?.len();
        let mut reader = BufReader::with_capacity(1 << 20, file);
        let content = Content::read(&mut Checked::new(&mut reader))
            .map_err(|e| Error::file(path, unreadable(&Error::from(e).to_string())))?;
        for (name, info) in &content.tensor_infos {
            let elements = info.shape.dims().iter().try_fold(1u64, |product, &dim| product.checked_mul(dim as u64));
            // candle makes a slice of an empty tensor where there is no memory to point at.
            if elements == Some(0) {
                return Err(Error::file(path, format!("holds no values for tensor `{name}`; fetch it again")));
            }
            let end = elements
                .and_then(|n| {
                    n.div_ceil(info.ggml_dtype.block_size() as u64).checked_mul(info.ggml_dtype.type_size() as u64)
                })
                .and_then(|bytes| bytes.checked_add(info.offset)?.checked_add(content.tensor_data_offset));
            if end.is_none_or(|end| end > length) {
                return Err(Error::file(
                    path,
                    format!("is truncated: tensor `{name}` lies past its end; fetch it again"),
                ));
            }
        }
        Ok(Part { path: path.to_path_buf(), content, reader: reader.into() })
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// An entry of the metadata.
    pub(super) fn entry(&self, key: &str) -> Option<&Value> {
        self.content.metadata.get(key)
    }

    /// A count in the metadata: see [`count_in`].
    pub(super) fn count(&self, key: &str) -> Option<usize> {
        count_in(self.entry(key)?)
    }

    /// Names of the tensors in this file.
    pub(super) fn tensors(&self) -> impl Iterator<Item = &String> {
        self.content.tensor_infos.keys()
    }

    /// Sizes of tensor `name`, slowest first; `None` where it is not in this file.
    pub(super) fn shape(&self, name: &str) -> Option<&[usize]> {
        Some(self.content.tensor_infos.get(name)?.shape.dims())
    }

    /// Tensor `name`, dequantized to f32.
    pub(super) fn read(&self, name: &str, device: &Device) -> Result<Tensor> {
        let unreadable = |e: candle_core::Error| match Error::from(e) {
            e @ Error::Tensor(_) => self.wrong(format!("tensor `{name}` cannot be read ({e})")),
            other => other,
        };
        let mut reader = self.reader.borrow_mut();
        let quantized = self.content.tensor(&mut *reader, name, device).map_err(unreadable)?;
        quantized.dequantize(device).map_err(unreadable)
    }

    /// An error about this file.
    pub(super) fn wrong(&self, message: impl Into<String>) -> Error {
        Error::file(&self.path, message)
    }
}

/// The count that `value` is, of whichever integer type; of a list of equal counts that count.
pub(super) fn count_in(value: &Value) -> Option<usize> {
    match value {
        Value::Array(items) => {
            let first = count_in(items.first()?)?;
            items.iter().all(|v| count_in(v) == Some(first)).then_some(first)
        }
        Value::I8(_) | Value::I16(_) | Value::I32(_) | Value::I64(_) => {
            let signed = match *value {
                Value::I8(v) => i64::from(v),
                Value::I16(v) => i64::from(v),
                Value::I32(v) => i64::from(v),
                Value::I64(v) => v,
                _ => return None,
            };
            usize::try_from(signed).ok()
        }
        other => other.to_u64().ok().and_then(|v| usize::try_from(v).ok()),
    }
}

/// Why candle could not read a file, from what it `said`.
fn unreadable(said: &str) -> String {
    let number = said.split("unknown dtype for tensor ").nth(1).map(|rest| {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        &rest[..digits]
    });
    let Some(number) = number else {
        return format!("is not a GGUF file that can be read ({said}); fetch it again");
    };
    let name = UNREADABLE.iter().find(|(known, _)| known.to_string() == number).map_or(number, |&(_, name)| name);
    format!(
        "holds tensors of type {name}, which cannot be read; supported are F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 and Q2_K to Q6_K: \
         take another quantization of the model"
    )
}
