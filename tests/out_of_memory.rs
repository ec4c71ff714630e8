//! A configuration that the GPU has no room for becomes a row that says so, and the next one runs with all memory back. A binary
//! of its own: other tests must not need memory meanwhile.
//!
//! Without a GPU (or in a build without the feature `cuda`) it says that it was skipped and passes; with
//! `KVPROF_REQUIRE_GPU=1` it fails instead.

#![allow(clippy::unwrap_used, reason = "a test that panics fails, as it should")]

use kvprof::base::progress::Silent;
use kvprof::bench::Settings;
use kvprof::cache;
use kvprof::device;
use kvprof::model::Subject;
use kvprof::schema::Measurement;
use kvprof::session::plan::{ModelRequest, RunSpec};
use kvprof::session::runner::{self, Existing, Output};

const TOKENS: usize = 128;

fn run_spec(kv_quant: &str, batch_sizes: Vec<usize>) -> RunSpec {
    let model = ModelRequest {
        model: "builtin".into(),
        revision: None,
        dummy: true,
        dtype: "f16".into(),
        device: "cuda".into(),
        sliding_window: true,
    };
    let settings = Settings {
        context_lengths: vec![TOKENS],
        batch_sizes,
        decode_tokens: 4,
        warmup_runs: 1,
        measure_runs: 1,
        energy_seconds: 0.01,
        ..Settings::default()
    };
    RunSpec {
        model,
        attn_backend: "fused".into(),
        kv_quant: kv_quant.parse().unwrap(),
        benchmarks: Vec::new(),
        profile: true,
        settings,
    }
}

/// The rows of one run, in the order of its batch sizes.
fn measure(kv_quant: &str, batch_sizes: Vec<usize>) -> Vec<Measurement> {
    let folder = tempfile::tempdir().unwrap();
    let output =
        Output { folder: folder.path().into(), existing: Existing::Keep, progress: &Silent, show_loading: false };
    let mut outcomes = runner::run(&[run_spec(kv_quant, batch_sizes)], &output).unwrap();
    let outcome = outcomes.pop().unwrap();
    assert!(outcome.error.is_none(), "{kv_quant}: {:?}", outcome.error);
    outcome.stored.unwrap().result.measurements
}

#[test]
fn what_does_not_fit_is_a_row_and_the_next_configuration_has_the_memory_back() {
    let gpu = match device::open(Some(0)) {
        Ok(gpu) => gpu,
        Err(error) if std::env::var_os("KVPROF_REQUIRE_GPU").is_some_and(|v| v == "1") => {
            panic!("a GPU is needed: {error}")
        }
        Err(error) => {
            println!("skipped, for it needs an NVIDIA GPU: {error}");
            return;
        }
    };
    let total = device::memory(&gpu).unwrap().unwrap().device_total_bytes;
    for kv_quant in ["none", "int4-hqq,residual=0"] {
        let spec = run_spec(kv_quant, vec![1]);
        let config = Subject::shape(&spec.model.options(false).unwrap()).unwrap();
        let one = config.cache_shape(1, TOKENS, TOKENS, candle_core::DType::F16, &candle_core::Device::Cpu);
        let sequence = cache::predict(&spec.kv_quant, &one).total();
        let too_many = (total + total / 4) / sequence;
        let rows = measure(kv_quant, vec![1, too_many as usize, 2]);
        let [before, refused, after] = rows.as_slice() else { panic!("{} rows", rows.len()) };
        assert_eq!(refused.skipped, Some(true), "{kv_quant}: {too_many} sequences: {refused:?}");
        let reason = refused.skip_reason.as_deref().unwrap_or_default().to_lowercase();
        assert!(reason.contains("memory"), "{kv_quant}: {reason}");
        for row in [before, after] {
            assert!(row.prefill_ms.is_some_and(|ms| ms > 0.0), "{kv_quant}: {row:?}");
            // Had the refused buffers stayed, they would be most of the device.
            let reserved = row.memory.as_ref().and_then(|m| m.pool_reserved_bytes).unwrap();
            assert!(
                reserved < total / 8,
                "{kv_quant}: {reserved} of {total} bytes are held for batch {:?}",
                row.batch_size
            );
        }
    }
}
