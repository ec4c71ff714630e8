//! GGUF files: metadata → [`DecoderConfig`], tensors dequantized as they are read.

mod alignment;
mod config;
mod file;
pub mod names;
mod part;
mod split;

use candle_core::{DType, Device, Tensor};

use super::Weights;
use crate::model::config::DecoderConfig;
use crate::{Error, Result};
pub use config::ARCHITECTURES;
pub use file::GgufFile;

/// The tensors of a GGUF file in the order of rows that Hugging Face checkpoints use.
pub struct GgufWeights<'a> {
    file: &'a GgufFile,
    heads: usize,
    kv_heads: usize,
    /// Llama's conversion interleaves the halves of each head's query and key rows.
    interleaved: bool,
}

impl<'a> GgufWeights<'a> {
    /// The tensors of `file`, whose configuration is `config`.
    pub fn new(file: &'a GgufFile, config: &DecoderConfig) -> Self {
        let interleaved = config.family == "llama";
        GgufWeights { file, heads: config.heads, kv_heads: config.kv_heads, interleaved }
    }
}

/// Undoes the conversion's `[H, 2, D/2, …] → [H, D/2, 2, …]`, which pairs channel i with i + 1 instead of i + D/2.
pub fn separate_halves(rows: &Tensor, heads: usize) -> Result<Tensor> {
    let shape = rows.dims().to_vec();
    let head_dim = shape[0] / heads;
    let inputs: usize = shape[1..].iter().product();
    let paired = rows.reshape((heads, head_dim / 2, 2, inputs))?;
    Ok(paired.transpose(1, 2)?.contiguous()?.reshape(shape)?)
}

impl Weights for GgufWeights<'_> {
    fn contains(&self, name: &str) -> bool {
        self.file.has(name)
    }

    fn load(&self, name: &str, _shape: &[usize], dtype: DType, device: &Device) -> Result<Tensor> {
        if !self.contains(name) {
            return Err(self.fault(name, "is missing; the conversion was incomplete"));
        }
        let tensor = self.file.read(name, device)?;
        let part = name.splitn(3, '.').nth(2).unwrap_or(name);
        let heads = match part.split('.').next() {
            Some("attn_q") if self.interleaved => self.heads,
            Some("attn_k") if self.interleaved => self.kv_heads,
            _ => return Ok(tensor),
        };
        let rows = tensor.dims().first().copied().unwrap_or(0);
        if rows == 0 || rows % (2 * heads) != 0 {
            return Err(self.fault(name, &format!("has {rows} rows for {heads} heads")));
        }
        // Converted before it is reordered: half the memory traffic.
        separate_halves(&tensor.to_dtype(dtype)?, heads)
    }

    fn fault(&self, name: &str, message: &str) -> Error {
        self.file.fault(name, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_of_each_head_are_separated_again() {
        // Two heads of four rows; row 10·h + i of the checkpoint, in the file's order 0 2 1 3.
        let rows = Tensor::new(&[0f32, 2., 1., 3., 10., 12., 11., 13.], &Device::Cpu).unwrap();
        let restored = separate_halves(&rows, 2).unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(restored, [0., 1., 2., 3., 10., 11., 12., 13.]);
    }
}
