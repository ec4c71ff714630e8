//! Memory of a run, and the memory there is.

use candle_core::Device;

use super::super::plan::{ModelRequest, RunSpec};
use super::Shape;
use crate::bench::Settings;
use crate::cache;
use crate::device;
use crate::measure::process;
use crate::model::attention::MOST_SCORES;

const GIB: f64 = (1u64 << 30) as f64;

/// Bytes that a run holds at one context length and batch size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Weights: every parameter in the run's float type.
    pub weights_bytes: u64,
    /// Cache, by the ledger.
    pub cache_bytes: u64,
    /// A guess at what a forward pass holds besides: the widest moments of one layer for one prefill chunk, the logits, the dense copy
    /// of one layer's cache where attention makes one, and the rotary tables.
    pub workspace_bytes: u64,
}

impl Memory {
    /// What is certain to be held: weights and cache.
    pub fn certain_bytes(&self) -> u64 {
        self.weights_bytes.saturating_add(self.cache_bytes)
    }

    /// All of it.
    pub fn total_bytes(&self) -> u64 {
        self.certain_bytes().saturating_add(self.workspace_bytes)
    }

    /// Why this cannot fit into `free` bytes, of which the weights need no more if they are `loaded`; `None` when it may fit.
    pub fn refusal(&self, free: u64, loaded: bool) -> Option<String> {
        let need = if loaded { self.cache_bytes } else { self.certain_bytes() };
        let gib = |bytes: u64| format!("{:.1} GiB", bytes as f64 / GIB);
        let parts = match loaded {
            true => "for the cache alone".to_string(),
            false => format!("(weights {}, cache {})", gib(self.weights_bytes), gib(self.cache_bytes)),
        };
        (need > free)
            .then(|| format!("not tried for lack of memory: it needs {} {parts} and {} are free", gib(need), gib(free)))
    }
}

/// Memory of `spec` at one context length and batch size.
pub fn memory(shape: &Shape, spec: &RunSpec, settings: &Settings, length: usize, batch: usize) -> Memory {
    let Shape { config, dtype, .. } = shape;
    let capacity = length.saturating_add(settings.decode_tokens);
    let chunk = settings.prefill_chunk(length, batch, config.layers).max(1);
    let bytes = dtype.size_in_bytes() as f64;
    let one_layer = 2.0 * (batch * config.kv_heads) as f64 * (capacity * config.head_dim) as f64 * bytes;
    // Sizes that no machine has would overflow the ledger's integers; what they come to does not matter.
    let cache_bytes = if one_layer * config.layers as f64 > 1e17 {
        (one_layer * config.layers as f64) as u64
    } else {
        let shape = config.cache_shape(batch, capacity, chunk, *dtype, &Device::Cpu);
        cache::predict(&spec.kv_quant, &shape).total()
    };
    let heads = (config.heads + 2 * config.kv_heads) as f64 * config.head_dim as f64;
    // The residual stream twice, queries, keys, values and their rotation, both halves of the MLP and their product.
    let per_token = 3.0 * config.hidden as f64 + 2.0 * heads + 3.0 * config.intermediate as f64;
    let logits = batch as f64 * config.vocab as f64 * 4.0;
    let dense_copy = if spec.kv_quant.is_quantized() || spec.attn_backend != "fused" {
        // Of the layer that sees the most tokens; a chunk sees its own beside its first one's window.
        let seen =
            |window: &Option<usize>| window.map_or(capacity, |window| capacity.min(window.saturating_add(chunk)));
        let most = config.windows.iter().map(seen).max().unwrap_or(capacity);
        one_layer * most as f64 / capacity.max(1) as f64
    } else {
        0.0
    };
    let scores = match spec.attn_backend.as_str() {
        "eager" => {
            let of_a_token = (batch * config.heads * capacity) as f64;
            // Scores, and what their softmax makes of them; in f32 on a CPU, half as many bytes on a GPU.
            2.0 * of_a_token.max((of_a_token * chunk as f64).min(MOST_SCORES as f64)) * 4.0
        }
        _ => 0.0,
    };
    Memory {
        weights_bytes: shape.weights_bytes(),
        cache_bytes,
        workspace_bytes: ((batch * chunk) as f64 * per_token * bytes + logits + dense_copy + scores) as u64
            + config.rotary_bytes(capacity),
    }
}

/// Memory that is free for a run of `model`, bytes: of its GPU, or of the host for a run on the CPU. `None` when it cannot be
/// told, as for a GPU that is not there.
pub fn available_bytes(model: &ModelRequest) -> Option<u64> {
    free_bytes(&model.options(false).ok()?.device.open().ok()?)
}

/// Memory of `device` that is free, or held by the tensor pool without need; `None` when it cannot be told.
pub fn free_bytes(device: &Device) -> Option<u64> {
    match device::memory(device).ok()? {
        Some(gpu) => Some(
            gpu.device_total_bytes.saturating_sub(gpu.device_used_bytes)
                + gpu.reserved_bytes.saturating_sub(gpu.used_bytes),
        ),
        None => process::available_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use candle_core::DType;

    use super::super::super::sweep::Sweep;
    use super::*;
    use crate::model::{LoadOptions, Subject};

    #[test]
    fn a_workspace_holds_a_layer_read_back_and_scores_of_eager_twice() {
        let workspace = |quant: &str, backend: &str| {
            let text = format!("[[matrix]]\nkv-quants = ['{quant}']\nattn-backends = ['{backend}']");
            let spec = Sweep::parse(Path::new("sweep.toml"), &text).unwrap().plan().unwrap().runs.remove(0);
            let shape = Shape {
                config: Subject::shape(&LoadOptions::new("builtin")).unwrap(),
                dtype: DType::F16,
                unserved: None,
            };
            memory(&shape, &spec, &Settings::default(), 1024, 1).workspace_bytes
        };
        let least = workspace("none", "fused");
        // K and V of 2 heads of 64 channels in f16, of a prompt of 1024 and 128 tokens of output.
        let layer = 2 * 2 * (1024 + 128) * 64 * 2;
        assert_eq!(workspace("int4-hqq", "fused") - least, layer);
        assert_eq!(workspace("none", "sdpa") - least, layer);
        // Of 4 heads and a chunk of 256 tokens, before and after the softmax, in f32.
        assert_eq!(workspace("none", "eager") - least, layer + 2 * 4 * 1152 * 256 * 4);
    }

    #[test]
    fn what_cannot_fit_is_told_with_its_sizes() {
        let memory = Memory { weights_bytes: 3 << 30, cache_bytes: 2 << 30, workspace_bytes: 1 << 30 };
        assert_eq!(memory.total_bytes(), 6 << 30);
        assert_eq!(memory.refusal(5 << 30, false), None, "the workspace is a guess and refuses nothing");
        let refusal = memory.refusal(4 << 30, false).unwrap();
        assert_eq!(
            refusal,
            "not tried for lack of memory: it needs 5.0 GiB (weights 3.0 GiB, cache 2.0 GiB) and 4.0 GiB are free"
        );
        assert_eq!(memory.refusal(2 << 30, true), None, "loaded weights ask for no more");
        assert!(memory.refusal(1 << 30, true).unwrap().contains("for the cache alone"));
    }
}
