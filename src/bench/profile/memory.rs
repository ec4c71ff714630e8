//! Bytes: the cache's ledger, and memory at its peak.

use crate::cache::{self, CacheBytes, KvCache};
use crate::measure::process;
use crate::model::Subject;
use crate::quant::QuantSpec;
use crate::schema::{KvBytes, Memory};
use crate::{Error, Result, device};

/// The cache's byte ledger; a difference between what the spec predicts and what was allocated is an error.
pub(super) fn ledger(cache: &dyn KvCache) -> Result<KvBytes> {
    let (predicted, allocated) = (cache.predicted(), cache.allocated());
    if predicted != allocated {
        return Err(Error::Invalid(format!(
            "the cache ledger does not balance for {}: predicted {predicted:?}, allocated {allocated:?}; this is a defect of kvprof",
            cache.spec().name
        )));
    }
    let CacheBytes { codes, parameters, window, scratch } = allocated;
    Ok(KvBytes {
        codes_bytes: codes,
        parameters_bytes: parameters,
        window_bytes: window,
        scratch_bytes: scratch,
        total_bytes: allocated.total(),
        unquantized_bytes: cache::predict(&QuantSpec::none(), cache.shape()).total(),
    })
}

/// Memory at the peak of the runs just made.
pub(super) fn memory(subject: &Subject, cache_bytes: u64) -> Result<Memory> {
    let weights_bytes = subject.weight_bytes();
    let gpu = device::memory(&subject.device)?;
    Ok(Memory {
        weights_bytes: Some(weights_bytes),
        cache_bytes: Some(cache_bytes),
        pool_peak_bytes: gpu.map(|m| m.used_peak_bytes),
        activations_bytes: gpu.map(|m| m.used_peak_bytes.saturating_sub(weights_bytes + cache_bytes)),
        framework_bytes: gpu.map(|m| m.device_used_bytes.saturating_sub(m.reserved_bytes)),
        pool_reserved_bytes: gpu.map(|m| m.reserved_peak_bytes),
        device_used_bytes: gpu.map(|m| m.device_used_bytes),
        process_peak_bytes: process::peak_resident_bytes(),
        ..Default::default()
    })
}
