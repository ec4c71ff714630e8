//! Qwen3, the dense models.

use super::super::config::{Biases, DecoderConfig};
use super::{ConfigJson, LLAMA_NAMES, Names, llama_like, qwen_windows};
use crate::Result;

/// Llama with a norm on each head's query and key, no biases, and a head dim of its own.
pub(super) fn read(json: &ConfigJson) -> Result<(DecoderConfig, Names)> {
    let config = llama_like(json)?;
    let windows = qwen_windows(json, config.layers)?;
    let attention_bias = json.flag_or("attention_bias", false)?;
    let config = DecoderConfig {
        windows,
        biases: Biases { qkv: attention_bias, output: attention_bias, mlp: false },
        qk_norm: true,
        head_dim: json.size_or_none("head_dim")?.unwrap_or(128),
        ..config
    };
    let names = Names { qk_norms: Some(("self_attn.q_norm", "self_attn.k_norm")), ..LLAMA_NAMES };
    Ok((config, names))
}
