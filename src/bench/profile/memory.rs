//! Bytes: the cache's ledger, and memory at its peak.

use super::MIB;
use crate::cache::{self, CacheBytes, KvCache};
use crate::measure::memory::MemoryUse;
use crate::model::Subject;
use crate::quant::QuantSpec;
use crate::schema::{KvBytes, Measurement, Memory, MemoryTimeline};
use crate::{Error, Result};

/// Share of the device's count that may be held without need before it is said.
const MOST_FRAGMENTATION: f64 = 0.02;

/// The cache's byte ledger; a difference between what the spec predicts and what was allocated is an error.
pub(super) fn ledger(cache: &dyn KvCache) -> Result<KvBytes> {
    let unquantized = cache::predict(&QuantSpec::none(), cache.shape()).total();
    balance(&cache.spec().name, cache.predicted(), cache.allocated(), unquantized)
}

fn balance(name: &str, predicted: CacheBytes, allocated: CacheBytes, unquantized_bytes: u64) -> Result<KvBytes> {
    if predicted != allocated {
        return Err(Error::Invalid(format!(
            "the cache ledger does not balance for {name}: predicted {predicted:?}, allocated {allocated:?}; this is a defect of \
             kvprof"
        )));
    }
    let CacheBytes { codes, parameters, window, scratch } = allocated;
    Ok(KvBytes {
        codes_bytes: codes,
        parameters_bytes: parameters,
        window_bytes: window,
        scratch_bytes: scratch,
        total_bytes: allocated.total(),
        unquantized_bytes,
    })
}

/// What the model and the cache hold, bytes.
pub(super) struct Held {
    /// Weights, by their shapes.
    pub weights: u64,
    /// Cache, by the ledger.
    pub cache: u64,
    /// Logits of the last token of each sequence, f32.
    pub logits: u64,
    /// High-water mark of the pool while the model was loaded.
    pub load_peak: Option<u64>,
}

impl Held {
    /// Of `subject` with a cache of `cache_bytes` for `batch` sequences.
    pub(super) fn new(subject: &Subject, cache_bytes: u64, batch: usize) -> Self {
        Held {
            weights: subject.weight_bytes(),
            cache: cache_bytes,
            logits: (batch * subject.config().vocab * size_of::<f32>()) as u64,
            load_peak: subject.load_peak_bytes,
        }
    }

    /// Divides what was seen at the peak among those who hold it.
    fn account(&self, seen: &MemoryUse) -> Memory {
        let memory = Memory {
            weights_bytes: Some(self.weights),
            cache_bytes: Some(self.cache),
            logits_bytes: Some(self.logits),
            load_peak_bytes: self.load_peak,
            prefill_peak_bytes: seen.process_prefill_bytes,
            decode_peak_bytes: seen.process_decode_bytes,
            process_peak_bytes: seen.process_prefill_bytes.max(seen.process_decode_bytes),
            ..Default::default()
        };
        let Some(pool) = &seen.pool else { return memory };
        Memory {
            activations_bytes: Some(pool.peak_bytes().saturating_sub(self.weights + self.cache + self.logits)),
            framework_bytes: Some(pool.framework_bytes),
            pool_peak_bytes: Some(pool.peak_bytes()),
            prefill_peak_bytes: Some(pool.prefill_peak_bytes),
            decode_peak_bytes: Some(pool.decode_peak_bytes),
            pool_reserved_bytes: Some(pool.reserved_peak_bytes),
            fragmentation_bytes: Some(pool.fragmentation_bytes()),
            device_used_bytes: Some(pool.device_peak_bytes),
            leaked_bytes: pool.leaked_bytes(),
            ..memory
        }
    }
}

/// Enters what was `seen` at the peak, divided among those who hold it, and over `timeline`, where that was recorded; with what a reader
/// should know of it.
pub(super) fn fill_memory(m: &mut Measurement, held: Held, seen: &MemoryUse, timeline: Option<MemoryTimeline>) {
    let spilled = seen.pool.as_ref().is_some_and(|pool| pool.spilled);
    let memory = Memory { timeline, ..held.account(seen) };
    m.vram_overflow = Some(spilled);
    m.warnings.extend(warnings(&memory, spilled));
    // On the CPU the process itself stands in for the device's memory.
    let peak = memory.pool_peak_bytes.or(memory.process_peak_bytes);
    m.vram_peak_mb = peak.map(|b| b as f64 / MIB);
    m.vram_reserved_mb = memory.pool_reserved_bytes.map(|b| b as f64 / MIB);
    m.memory = Some(memory);
}

/// What a reader should know about the memory of a measurement.
fn warnings(memory: &Memory, spilled: bool) -> Vec<String> {
    let mib = |bytes: u64| bytes as f64 / MIB;
    let mut warnings = Vec::new();
    if spilled {
        warnings.push("the driver moved device memory to the host: times say nothing about the device".into());
    }
    if let Some(leaked) = memory.leaked_bytes.filter(|bytes| *bytes > 0) {
        warnings.push(format!("the runs after the first left {:.1} MiB behind: a leak", mib(leaked)));
    }
    if let (Some(unused), Some(device)) = (memory.fragmentation_bytes, memory.device_used_bytes)
        && unused as f64 > MOST_FRAGMENTATION * device as f64
    {
        let share = 100.0 * unused as f64 / device as f64;
        warnings.push(format!(
            "the pool held {:.0} MiB ({share:.1} % of the device's count) that no tensor needed",
            mib(unused)
        ));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::memory::MemoryMeter;
    use crate::measure::memory::fake::FakePool;
    use crate::measure::phase::{Instrument, Phase};
    use crate::model::{LoadOptions, LogitsOf};
    use crate::quant::QuantSpec;
    use crate::schema::validate::memory_adds_up;

    const HELD: Held = Held { weights: 15_000, cache: 800, logits: 60, load_peak: Some(16_000) };

    /// A model in a fake pool: what it holds, and `scratch` bytes of activations in prefill.
    fn accounted(pool: &FakePool, scratch: u64) -> Memory {
        pool.allocate(HELD.weights);
        pool.allocate(HELD.cache);
        pool.allocate(HELD.logits);
        let mut meter = MemoryMeter::new(pool);
        for phase in [Phase::Prefill, Phase::Decode] {
            meter.begin(phase).unwrap();
            pool.allocate(scratch);
            pool.free(scratch);
            meter.end(phase).unwrap();
        }
        HELD.account(&meter.finish())
    }

    #[test]
    fn rule_6_the_parts_are_the_device_count_at_its_peak_within_two_percent() {
        let pool = FakePool { page_bytes: 32, ..FakePool::new(80_000, 700) };
        let memory = accounted(&pool, 390);
        let parts = [memory.weights_bytes, memory.cache_bytes, memory.activations_bytes, memory.logits_bytes];
        let sum = parts.into_iter().chain([memory.framework_bytes]).flatten().sum::<u64>() as f64;
        let device = memory.device_used_bytes.unwrap() as f64;
        assert!((sum / device - 1.0).abs() < 0.02, "{memory:?}");
        assert_eq!((memory.activations_bytes, memory.framework_bytes), (Some(390), Some(700)));
        // The pool's own count, what it reserved, and the device's, side by side.
        assert_eq!(memory.pool_peak_bytes, Some(16_250));
        assert_eq!((memory.pool_reserved_bytes, memory.device_used_bytes), (Some(16_256), Some(16_956)));
        assert_eq!(memory_adds_up(&memory), Ok(()));
        assert!(warnings(&memory, false).is_empty());
    }

    #[test]
    fn rule_6_memory_that_no_part_explains_is_said() {
        let pool = FakePool { page_bytes: 10_000, ..FakePool::new(80_000, 700) };
        let memory = accounted(&pool, 390);
        let said = warnings(&memory, true);
        assert!(said[0].contains("moved device memory") && said[1].contains("no tensor needed"), "{said:?}");
        let lost = Memory { activations_bytes: Some(0), weights_bytes: Some(9_000), ..memory };
        assert!(memory_adds_up(&lost).is_err());
    }

    #[test]
    fn rule_6_prefill_computes_logits_of_the_last_token_only() {
        let subject = Subject::load(&LoadOptions::new("builtin")).unwrap();
        let shape = subject.config().cache_shape(2, 8, 8, subject.dtype, &subject.device);
        let mut cache = cache::new(QuantSpec::none(), shape).unwrap();
        let attention = crate::model::attention::new("sdpa").unwrap();
        let prompt = candle_core::Tensor::zeros((2, 8), candle_core::DType::U32, &subject.device).unwrap();
        let logits = subject.decoder.forward(&prompt, cache.as_mut(), attention.as_ref(), LogitsOf::Last).unwrap();
        assert_eq!(logits.dims(), [2, subject.config().vocab]);
        let held = Held::new(&subject, 0, 2);
        assert_eq!(held.logits, (logits.elem_count() * logits.dtype().size_in_bytes()) as u64);
    }

    #[test]
    fn rule_5_a_ledger_that_does_not_balance_is_an_error() {
        let shape = cache::CacheShape {
            windows: vec![None; 2],
            batch: 1,
            kv_heads: 2,
            head_dim: 64,
            capacity: 512,
            max_chunk: 64,
            dtype: candle_core::DType::F32,
            device: candle_core::Device::Cpu,
        };
        for name in ["none", "int4-hqq", "int2-hqq-kivi", "fp8"] {
            let cache = cache::new(name.parse().unwrap(), shape.clone()).unwrap();
            let bytes = ledger(cache.as_ref()).unwrap();
            let parts = bytes.codes_bytes + bytes.parameters_bytes + bytes.window_bytes + bytes.scratch_bytes;
            assert_eq!(parts, bytes.total_bytes, "{name}");
            let more = CacheBytes { window: cache.allocated().window + 1, ..cache.allocated() };
            let error = balance(name, cache.predicted(), more, 0).unwrap_err().to_string();
            assert!(error.contains("does not balance") && error.contains(name), "{error}");
        }
    }
}
