//! Qwen2 and Qwen2.5; DeepSeek-R1-Distill-Qwen has the same architecture.

use super::super::config::{Biases, DecoderConfig};
use super::{ConfigJson, LLAMA_NAMES, Names, llama_like, qwen_windows};
use crate::Result;

/// Llama with biases on queries, keys and values, and a window that is nearly always switched off.
pub(super) fn read(json: &ConfigJson) -> Result<(DecoderConfig, Names)> {
    let config = llama_like(json)?;
    let windows = qwen_windows(json, config.layers)?;
    let biases = Biases { qkv: true, output: false, mlp: false };
    Ok((DecoderConfig { windows, biases, ..config }, LLAMA_NAMES))
}
