//! What a run will need, before it runs.

use std::collections::HashMap;

use super::plan::RunSpec;
use crate::Result;
use crate::cache;
use crate::device;
use crate::measure::process;
use crate::model::{DecoderConfig, Subject};

/// Bytes that a run will hold at its largest context and batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    /// Weights.
    pub weights_bytes: u64,
    /// Cache, by the ledger.
    pub cache_bytes: u64,
}

impl Estimate {
    /// Both.
    pub fn total_bytes(&self) -> u64 {
        self.weights_bytes + self.cache_bytes
    }
}

/// Memory that is free for a run, bytes: of the first GPU, or of the host where there is none.
pub fn available_bytes() -> Option<u64> {
    match device::gpu_count() {
        Ok(count) if count > 0 => {
            let device = device::open(Some(0)).ok()?;
            device::memory(&device).ok()?.map(|m| m.device_total_bytes - m.device_used_bytes)
        }
        _ => process::available_bytes(),
    }
}

/// Reads the shapes of models, each once, without their weights.
#[derive(Default)]
pub struct Estimator {
    shapes: HashMap<String, Option<DecoderConfig>>,
}

impl Estimator {
    /// The need of `spec`; `None` when the model's configuration cannot be had here (say, offline and not downloaded yet).
    ///
    /// # Errors
    /// When the quantization does not fit the model.
    pub fn estimate(&mut self, spec: &RunSpec) -> Result<Option<Estimate>> {
        let key = spec.model.model.clone();
        let shape = self.shapes.entry(key).or_insert_with(|| Subject::shape(&spec.model.options(false).ok()?).ok());
        let Some(config) = shape.clone() else { return Ok(None) };
        spec.kv_quant.validate(config.head_dim, config.layers)?;
        let device = candle_core::Device::Cpu;
        let options = spec.model.options(false)?;
        let dtype = options.dtype.resolve(config.stored_dtype, &options.device.open().unwrap_or(device.clone()));
        let settings = spec.settings.for_model(&config);
        let longest = settings.context_lengths.iter().max().copied().unwrap_or(0) + settings.decode_tokens;
        let batch = settings.batch_sizes.iter().max().copied().unwrap_or(1);
        let shape = config.cache_shape(batch, longest, settings.prefill_chunk.min(longest), dtype, &device);
        Ok(Some(Estimate {
            weights_bytes: config.parameters() * dtype.size_in_bytes() as u64,
            cache_bytes: cache::predict(&spec.kv_quant, &shape).total(),
        }))
    }
}
