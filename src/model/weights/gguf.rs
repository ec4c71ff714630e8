//! GGUF files: metadata → [`DecoderConfig`], tensors dequantized as they are read.

use std::cell::RefCell;
use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::{Path, PathBuf};

use candle_core::quantized::gguf_file::{Content, Value};
use candle_core::{DType, Device, Tensor};

use super::Weights;
use crate::model::config::{Biases, DecoderConfig, Mlp, Norm, Position, Rope, RopeScaling, same_window};
use crate::model::families::{LLAMA_NAMES, MlpNames, Names, QkvNames};
use crate::{Error, Result};

/// `general.architecture` values that can be loaded.
pub const ARCHITECTURES: [&str; 3] = ["llama", "qwen2", "qwen3"];

/// Tensor names of GGUF files.
const NAMES: Names = Names {
    optional_prefix: "",
    embedding: "token_embd",
    layer: "blk",
    attention_norm: "attn_norm",
    qkv: QkvNames::Separate("attn_q", "attn_k", "attn_v"),
    output: "attn_output",
    mlp_norm: "ffn_norm",
    mlp: MlpNames::Gated { gate: "ffn_gate", up: "ffn_up", down: "ffn_down" },
    final_norm: "output_norm",
    head: "output",
    ..LLAMA_NAMES
};

/// Texts of tokens that end a text whatever the file's metadata say, as llama.cpp has it (`special_eog_ids` in llama-vocab.cpp): conversions
/// name one of a chat model's end tokens or two.
const END_TOKENS: [&str; 10] = [
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<end_of_turn>",
    "<end_of_utterance>",
    "<EOT>",
    "_<EOT>",
];

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

/// An open GGUF file.
pub struct GgufFile {
    path: PathBuf,
    content: Content,
    reader: RefCell<BufReader<File>>,
}

impl GgufFile {
    /// Reads the header and checks that every tensor lies inside the file.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be opened, [`Error::File`] when it is not GGUF, is truncated, is one part of several, or holds a
    /// tensor type that candle cannot read.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| Error::io(path, e))?;
        let length = file.metadata().map_err(|e| Error::io(path, e))?.len();
        refuse_zero_alignment(path, &file)?;
        let mut reader = BufReader::with_capacity(1 << 20, file);
        let content =
            Content::read(&mut reader).map_err(|e| Error::file(path, unreadable(&Error::from(e).to_string())))?;
        let file = GgufFile { path: path.to_path_buf(), content, reader: reader.into() };
        if let Some(parts) = file.count("split.count").filter(|&parts| parts > 1) {
            let part = file.count("split.no").unwrap_or(0) + 1;
            return Err(file.wrong(format!(
                "is part {part} of {parts} of a model; join them first: llama-gguf-split --merge FIRST-PART.gguf WHOLE.gguf"
            )));
        }
        let content = &file.content;
        for (name, info) in &content.tensor_infos {
            let elements = info.shape.dims().iter().try_fold(1u64, |product, &dim| product.checked_mul(dim as u64));
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
        Ok(file)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A metadata text.
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.content.metadata.get(key)? {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// A metadata flag.
    pub fn flag(&self, key: &str) -> Option<bool> {
        match self.content.metadata.get(key)? {
            Value::Bool(flag) => Some(*flag),
            _ => None,
        }
    }

    /// A metadata list.
    pub fn list(&self, key: &str) -> Option<&[Value]> {
        match self.content.metadata.get(key)? {
            Value::Array(items) => Some(items),
            _ => None,
        }
    }

    /// A metadata count, of whichever integer type. A list of equal counts (one for each layer) is that count.
    pub fn count(&self, key: &str) -> Option<usize> {
        fn one(value: &Value) -> Option<usize> {
            match value {
                Value::Array(items) => {
                    let first = one(items.first()?)?;
                    items.iter().all(|v| one(v) == Some(first)).then_some(first)
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
        one(self.content.metadata.get(key)?)
    }

    /// A metadata number.
    pub fn number(&self, key: &str) -> Option<f64> {
        match *self.content.metadata.get(key)? {
            Value::F32(v) => Some(f64::from(v)),
            Value::F64(v) => Some(v),
            _ => None,
        }
    }

    /// An error about this file.
    pub fn wrong(&self, message: impl Into<String>) -> Error {
        Error::file(&self.path, message)
    }

    fn architecture(&self) -> Result<&str> {
        let name = self.text("general.architecture").ok_or_else(|| self.wrong("does not say its architecture"))?;
        if !ARCHITECTURES.contains(&name) {
            let known = ARCHITECTURES.join(", ");
            return Err(self.wrong(format!("architecture `{name}` is not supported; supported are {known}")));
        }
        Ok(name)
    }

    /// The decoder that the metadata describes, and the names of its tensors.
    ///
    /// # Errors
    /// When the architecture is not supported, or a needed entry is missing or impossible.
    pub fn config(&self) -> Result<(DecoderConfig, Names)> {
        let family = self.architecture()?;
        let key = |name: &str| format!("{family}.{name}");
        let need = |name: &str| {
            self.count(&key(name)).ok_or_else(|| self.wrong(format!("has no usable `{}` in its metadata", key(name))))
        };
        let (heads, hidden, layers) = (need("attention.head_count")?, need("embedding_length")?, need("block_count")?);
        let head_dim = match self.count(&key("attention.key_length")) {
            Some(head_dim) => head_dim,
            None => hidden.checked_div(heads).unwrap_or(0),
        };
        if self.count(&key("attention.value_length")).is_some_and(|v| v != head_dim) {
            return Err(self.wrong("has values of another length than its keys, which is not supported"));
        }
        if self.count(&key("rope.dimension_count")).is_some_and(|d| d != head_dim) {
            return Err(self.wrong("rotates only a part of each head, which is not supported"));
        }
        if self.count(&key("expert_count")).is_some_and(|n| n > 0) {
            return Err(self.wrong("is a mixture of experts, which is not supported"));
        }
        let published = need("context_length")?;
        let rope = self.rope(family, published, head_dim)?;
        let Some(embedding) = self.content.tensor_infos.get("token_embd.weight") else {
            return Err(self.wrong("tensor `token_embd.weight` is missing"));
        };
        let has = |tensor: &str| self.content.tensor_infos.contains_key(tensor);
        let window = self.count(&key("attention.sliding_window")).filter(|&w| w > 0 && w < published);
        let token =
            |name: &str| self.count(&format!("tokenizer.ggml.{name}_token_id")).and_then(|id| u32::try_from(id).ok());
        let mut eos: Vec<u32> = ["eos", "eot", "eom"].into_iter().filter_map(token).collect();
        let texts = self.list("tokenizer.ggml.tokens").unwrap_or_default();
        let ends = |text: &Value| matches!(text, Value::String(text) if END_TOKENS.contains(&text.as_str()));
        eos.extend((0..).zip(texts).filter(|(_, text)| ends(text)).map(|(id, _)| id));
        eos.sort_unstable();
        eos.dedup();
        let config = DecoderConfig {
            family: family.to_owned(),
            layers,
            hidden,
            intermediate: need("feed_forward_length")?,
            heads,
            kv_heads: self.count(&key("attention.head_count_kv")).unwrap_or(heads),
            head_dim,
            vocab: embedding.shape.dims().first().copied().unwrap_or(0),
            max_positions: rope.scaling.longest_context(published),
            norm: Norm::RmsNorm { eps: self.number(&key("attention.layer_norm_rms_epsilon")).unwrap_or(1e-5) },
            position: Position::Rope(rope),
            mlp: Mlp::SwiGlu,
            biases: Biases {
                qkv: has("blk.0.attn_q.bias"),
                output: has("blk.0.attn_output.bias"),
                mlp: has("blk.0.ffn_down.bias"),
            },
            qk_norm: has("blk.0.attn_q_norm.weight"),
            windows: same_window(layers, window).map_err(|e| self.wrong(e.to_string()))?,
            tied_embeddings: !has("output.weight"),
            bos: token("bos"),
            eos,
            stored_dtype: None,
        };
        let qk_norms = config.qk_norm.then_some(("attn_q_norm", "attn_k_norm"));
        Ok((config.validate().map_err(|e| self.wrong(e.to_string()))?, Names { qk_norms, ..NAMES }))
    }

    /// RoPE's base and scaling. A factor without a type is linear scaling, as llama.cpp reads it; older files call it `scale_linear`.
    fn rope(&self, family: &str, published: usize, head_dim: usize) -> Result<Rope> {
        let key = |name: &str| format!("{family}.rope.{name}");
        let base = self.number(&key("freq_base")).unwrap_or(10_000.0);
        if self.content.tensor_infos.contains_key("rope_freqs.weight") {
            let divisors = self.read("rope_freqs.weight", &Device::Cpu)?.flatten_all()?.to_vec1::<f32>()?;
            if divisors.len() != head_dim / 2 {
                let (count, wanted) = (divisors.len(), head_dim / 2);
                return Err(self.wrong(format!("has {count} `rope_freqs` for {wanted} frequencies; fetch it again")));
            }
            return Ok(Rope { base, scaling: RopeScaling::Divisors(divisors) });
        }
        let given = self.number(&key("scaling.factor")).or_else(|| self.number(&key("scale_linear")));
        // 0 stands for none.
        let given = given.filter(|&factor| factor != 0.0);
        if given.is_some_and(|factor| !(factor.is_finite() && factor > 0.0)) {
            return Err(self.wrong("scales RoPE by a factor that is not a number above 0"));
        }
        let factor = || given.ok_or_else(|| self.wrong("scales RoPE without saying by which factor"));
        let unnamed = if given.is_some() { "linear" } else { "none" };
        let scaling = match self.text(&key("scaling.type")).unwrap_or(unnamed) {
            "none" => RopeScaling::None,
            "linear" if given == Some(1.0) => RopeScaling::None,
            "linear" => RopeScaling::Linear { factor: factor()? },
            "yarn" => {
                let factor = factor()?;
                let original = self.count(&key("scaling.original_context_length")).unwrap_or(published);
                RopeScaling::Yarn {
                    factor,
                    beta_fast: 32.0,
                    beta_slow: 1.0,
                    original_positions: original as f64,
                    attention_factor: 0.1 * factor.max(1.0).ln() + 1.0,
                    truncate: true,
                }
            }
            other => return Err(self.wrong(format!("scales RoPE by `{other}`, which is not supported"))),
        };
        Ok(Rope { base, scaling })
    }

    /// Tensor `name`, dequantized to f32.
    fn read(&self, name: &str, device: &Device) -> Result<Tensor> {
        let unreadable = |e: candle_core::Error| match Error::from(e) {
            e @ Error::Tensor(_) => self.wrong(format!("tensor `{name}` cannot be read ({e})")),
            other => other,
        };
        let mut reader = self.reader.borrow_mut();
        let quantized = self.content.tensor(&mut *reader, name, device).map_err(unreadable)?;
        quantized.dequantize(device).map_err(unreadable)
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
        "holds tensors of type {name}, which cannot be read; supported are F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q8_1 and Q2_K to Q8_K: \
         take another quantization of the model"
    )
}

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

/// Bytes of a file that are searched for its alignment: writers put `general.*` before everything else.
const ALIGNMENT_WITHIN: u64 = 16 << 20;

/// candle divides by the alignment that the file states, without a look at it.
fn refuse_zero_alignment(path: &Path, mut file: &File) -> Result<()> {
    const KEY: &[u8] = b"general.alignment";
    let mut start = Vec::new();
    file.take(ALIGNMENT_WITHIN).read_to_end(&mut start).map_err(|e| Error::io(path, e))?;
    file.rewind().map_err(|e| Error::io(path, e))?;
    let Some(at) = start.windows(KEY.len()).position(|bytes| bytes == KEY) else { return Ok(()) };
    let (kind, value) = match start[at + KEY.len()..].split_first_chunk::<4>() {
        Some((kind, value)) => (u32::from_le_bytes(*kind), value),
        None => return Ok(()),
    };
    // GGUF's numbers for integers of 8, 16 and 32 bits; candle reads no others here.
    let bytes = match kind {
        0 | 1 => 1,
        2 | 3 => 2,
        4 | 5 => 4,
        _ => return Ok(()),
    };
    match value.get(..bytes) {
        Some(value) if value.iter().all(|byte| *byte == 0) => {
            Err(Error::file(path, "states an alignment of 0; the file is damaged, fetch it again"))
        }
        _ => Ok(()),
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
        self.file.content.tensor_infos.contains_key(name)
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
        self.file.wrong(format!("tensor `{name}` {message}"))
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
