//! Mistral 7B and its successors of the same architecture.

use super::super::config::DecoderConfig;
use super::{ConfigJson, LLAMA_NAMES, Names, llama_like};
use crate::Result;

/// Llama with a sliding window in every layer, where the configuration sets one.
pub(super) fn read(json: &ConfigJson) -> Result<(DecoderConfig, Names)> {
    let config = llama_like(json)?;
    let window = json.size_or_none("sliding_window")?;
    let windows = json.layer_windows(config.layers, window, |_| true)?;
    Ok((DecoderConfig { windows, ..config }, LLAMA_NAMES))
}
