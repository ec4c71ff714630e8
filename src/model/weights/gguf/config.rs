//! What the metadata of a GGUF file say of the model, as llama.cpp reads them.

use candle_core::Device;
use candle_core::quantized::gguf_file::Value;

use super::GgufFile;
use crate::Result;
use crate::model::config::{Biases, DecoderConfig, Mlp, Norm, Position, Rope, RopeScaling, same_window};
use crate::model::families::{LLAMA_NAMES, MlpNames, Names, QkvNames};

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

impl GgufFile {
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
        let kv_heads = match self.entry(&key("attention.head_count_kv")) {
            Some(_) => need("attention.head_count_kv")?,
            None => heads,
        };
        let published = need("context_length")?;
        let rope = self.rope(family, published, head_dim)?;
        let Some(embedding) = self.shape("token_embd.weight") else {
            return Err(self.wrong("tensor `token_embd.weight` is missing"));
        };
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
            kv_heads,
            head_dim,
            vocab: embedding.first().copied().unwrap_or(0),
            max_positions: rope.scaling.longest_context(published),
            norm: Norm::RmsNorm { eps: self.number(&key("attention.layer_norm_rms_epsilon")).unwrap_or(1e-5) },
            position: Position::Rope(rope),
            mlp: Mlp::SwiGlu,
            biases: Biases {
                qkv: self.has("blk.0.attn_q.bias"),
                output: self.has("blk.0.attn_output.bias"),
                mlp: self.has("blk.0.ffn_down.bias"),
            },
            qk_norm: self.has("blk.0.attn_q_norm.weight"),
            windows: same_window(layers, window).map_err(|e| self.wrong(e.to_string()))?,
            tied_embeddings: !self.has("output.weight"),
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
        if self.has("rope_freqs.weight") {
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
}
