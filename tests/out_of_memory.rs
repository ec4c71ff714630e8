//! A configuration that the GPU has no room for becomes a row that says so, and the next one runs with all memory back. A binary
//! of its own: other tests must not need memory meanwhile.
//!
//! Without a GPU (or in a build without the feature `cuda`) it says that it was skipped and passes; with
//! `KVPROF_REQUIRE_GPU=1` it fails instead.

#![allow(clippy::unwrap_used, reason = "a test that panics fails, as it should")]

use candle_core::{DType, Tensor};
use kvprof::base::progress::Silent;
use kvprof::bench::Settings;
use kvprof::device;
use kvprof::schema::Measurement;
use kvprof::session::estimate::{Place, Shape, memory};
use kvprof::session::plan::{ModelRequest, RunSpec};
use kvprof::session::runner::{self, Existing, Output};

const TOKENS: usize = 128;

/// What the test leaves of the device.
const LEFT_BYTES: u64 = 8 << 30;

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
        contents: Default::default(),
    }
}

/// The rows of one run, from the smallest batch to the largest.
fn measure(kv_quant: &str, batch_sizes: Vec<usize>) -> Vec<Measurement> {
    let folder = tempfile::tempdir().unwrap();
    let output =
        Output { folder: folder.path().into(), existing: Existing::Keep, progress: &Silent, show_loading: false };
    let mut outcomes = runner::run(&[run_spec(kv_quant, batch_sizes)], &output).unwrap();
    let outcome = outcomes.pop().unwrap();
    assert!(outcome.error.is_none(), "{kv_quant}: {:?}", outcome.error);
    outcome.stored.unwrap().result.measurements
}

/// Sequences whose caches take `bytes`.
fn sequences(kv_quant: &str, bytes: u64) -> usize {
    let spec = run_spec(kv_quant, vec![1]);
    let shape = Shape::of(&spec.model, Place::Here, false).unwrap();
    (bytes / (memory(&shape, &spec, &spec.settings, TOKENS, 100).cache_bytes / 100)) as usize
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
    // Most of the device is taken, so that a batch that fills what is left has a size that kernels can be launched for.
    let counted = device::memory(&gpu).unwrap().unwrap();
    let taken = counted.device_total_bytes - counted.device_used_bytes - LEFT_BYTES;
    let _ballast = Tensor::zeros(taken as usize, DType::U8, &gpu).unwrap();
    for kv_quant in ["none", "int4-hqq,residual=0"] {
        // The caches of the first fit and leave no room to compute in, which no estimate refuses; those of the second do not fit.
        let filling = sequences(kv_quant, LEFT_BYTES / 100 * 95);
        let too_many = sequences(kv_quant, LEFT_BYTES / 4 * 5);
        let rows = measure(kv_quant, vec![1, filling, too_many, 2]);
        let [one, two, failed, refused] = rows.as_slice() else { panic!("{} rows", rows.len()) };
        for (row, tried) in [(failed, true), (refused, false)] {
            assert_eq!(row.skipped, Some(true), "{kv_quant}: {row:?}");
            let reason = row.skip_reason.as_deref().unwrap_or_default().to_lowercase();
            assert!(reason.contains("memory"), "{kv_quant}: {reason}");
            assert_eq!(!reason.starts_with("not tried"), tried, "{kv_quant}: {reason}");
        }
        for row in [one, two] {
            assert!(row.prefill_ms.is_some_and(|ms| ms > 0.0), "{kv_quant}: {row:?}");
            // Had the buffers of what failed stayed, they would be most of what was left.
            let reserved = row.memory.as_ref().and_then(|m| m.pool_reserved_bytes).unwrap();
            assert!(reserved < taken + LEFT_BYTES / 4, "{kv_quant}: {reserved} bytes are held, {taken} by this test");
        }
    }
}
