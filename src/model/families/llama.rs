//! Llama 2 and 3, and those that publish under its name: Yi, SmolLM2, TinyLlama, DeepSeek-R1-Distill-Llama.

use super::super::config::{Biases, DecoderConfig};
use super::{ConfigJson, LLAMA_NAMES, Names, llama_like};
use crate::Result;

/// RMSNorm, RoPE, SwiGLU; `attention_bias` is of all four attention maps here.
pub(super) fn read(json: &ConfigJson) -> Result<(DecoderConfig, Names)> {
    let attention_bias = json.flag_or("attention_bias", false)?;
    let biases = Biases { qkv: attention_bias, output: attention_bias, mlp: json.flag_or("mlp_bias", false)? };
    Ok((DecoderConfig { biases, ..llama_like(json)? }, LLAMA_NAMES))
}
