//! Result files made up for tests: a "3.0" sweep with every block that a report shows. The numbers follow simple formulas, so
//! that a test can say what a table or chart must hold.

use std::path::{Path, PathBuf};

use kvprof::base::stats::Summary;
use kvprof::schema::*;

/// A made-up cache.
#[derive(Debug, Clone)]
pub struct Cache {
    /// `--kv-quant` value.
    pub name: &'static str,
    /// Bits of a code; 16 for the unquantized cache.
    pub bits: u8,
    /// Tokens in full precision.
    pub residual: usize,
    /// Rise of the perplexity, as ln(quantized / reference).
    pub ln_ratio: f64,
    /// Decode time over that of the unquantized cache.
    pub slowdown: f64,
    /// Of four trials at each place, how many find the needle at the longest context.
    pub found: usize,
}

impl Cache {
    /// A cache that loses `ln_ratio` and nothing else.
    pub fn new(name: &'static str, bits: u8, ln_ratio: f64) -> Self {
        Cache { name, bits, residual: 128, ln_ratio, slowdown: 1.0, found: 4 }
    }
}

/// Five caches as a sweep has them.
pub fn sweep() -> Vec<Cache> {
    vec![
        Cache::new("none", 16, 0.0),
        Cache { slowdown: 1.02, ..Cache::new("int8-hqq", 8, 0.0002) },
        Cache { slowdown: 0.93, ..Cache::new("int4-hqq", 4, 0.004) },
        Cache { slowdown: 0.93, residual: 64, ..Cache::new("int4-hqq,residual=64", 4, 0.0061) },
        Cache { slowdown: 0.93, residual: 32, ..Cache::new("int4-hqq,residual=32", 4, 0.0094) },
        Cache { slowdown: 0.9, found: 2, ..Cache::new("int2-hqq-kivi", 2, 0.07) },
    ]
}

/// Context lengths of [`run`].
pub const CONTEXTS: [usize; 3] = [1024, 2048, 4096];
/// Perplexity of the unquantized cache in [`run`].
pub const REFERENCE: f64 = 16.0;

/// A complete result.
pub fn run(model: &str, cache: &Cache) -> RunResult {
    let quantized = cache.bits < 16;
    let slug = if quantized { cache.name.replace(['-', ',', '='], "_") } else { "fp16".into() };
    let last = model.rsplit('/').next().unwrap_or(model).to_lowercase().replace('-', "_");
    let text = || DataSource { name: "wikitext2".into(), revision: None, sha256: "00".repeat(32) };
    let reference = Perplexity {
        dataset: "wikitext2".into(),
        tokens: 4096,
        value: REFERENCE,
        nll: Some(REFERENCE.ln()),
        standard_error: Some(0.4),
        data: Some(text()),
        ..Perplexity::default()
    };
    let value = REFERENCE * cache.ln_ratio.exp();
    let read = Some(if quantized { 0.9 } else { 0.0 });
    let through = Perplexity {
        value,
        nll: Some(value.ln()),
        quantized_read_fraction: read,
        reference_value: Some(REFERENCE),
        delta: Some(value - REFERENCE),
        ln_ratio: Some(cache.ln_ratio),
        ln_ratio_standard_error: Some(cache.ln_ratio / 8.0 + 0.0001),
        ..reference.clone()
    };
    RunResult {
        schema_version: SCHEMA_VERSION.into(),
        experiment_id: format!("{last}_fused_{slug}_20261101_120000"),
        timestamp: "2026-11-01T12:00:00".into(),
        model: model.into(),
        model_config: ModelConfig {
            num_params_b: 0.135,
            num_layers: 30,
            num_q_heads: 9,
            num_kv_heads: 3,
            gqa_ratio: "3:1".into(),
            head_dim: 64,
            max_position_embeddings: 8192,
            dtype: Some("f16".into()),
            ..ModelConfig::default()
        },
        attn_backend: "fused".into(),
        kv_quant: KvQuant {
            enabled: quantized,
            nbits: quantized.then_some(cache.bits),
            backend: quantized.then(|| "hqq".into()),
            residual_length: Some(cache.residual),
            name: Some(cache.name.into()),
            asymmetric: cache.name.contains("kivi"),
            ..KvQuant::default()
        },
        environment: Environment::default(),
        hardware: Hardware {
            vram_total_mb: Some(81920.0),
            gpu_name: Some("NVIDIA H200".into()),
            device: Some("cuda:0".into()),
            ..Hardware::default()
        },
        config: RunConfig { seed: 42, warmup_runs: 2, measure_runs: 5, decode_tokens: 128, ..RunConfig::default() },
        measurements: CONTEXTS.iter().map(|context| measurement(*context, cache)).collect(),
        benchmarks: Benchmarks {
            perplexity: Some(reference),
            perplexity_quantized: quantized.then_some(through),
            needle_in_haystack: Some(needle(cache)),
            needle_in_haystack_trials: Some(trials(cache)),
            kld: quantized.then(|| kld(cache)),
            mmlu: Some(Accuracy {
                questions: 200,
                correct: 60,
                accuracy: 0.3,
                paired: Paired { lost: quantized.then_some(3), gained: quantized.then_some(2), ..Paired::default() },
                ..Accuracy::default()
            }),
            ..Benchmarks::default()
        },
        spec_hash: None,
        completed: Vec::new(),
        warnings: Vec::new(),
        combo_elapsed_s: 12.0,
        extra: Default::default(),
    }
}

/// Bytes of the unquantized cache: 30 layers × 3 heads × 64 channels, keys and values, two bytes each.
pub fn unquantized_bytes(context: usize) -> u64 {
    (30 * 3 * 64 * 2 * 2 * context) as u64
}

fn measurement(context: usize, cache: &Cache) -> Measurement {
    let full = unquantized_bytes(context);
    let residual = cache.residual.min(context) as u64;
    let window = if cache.bits < 16 { full * residual / context as u64 } else { full };
    let codes = (full - window) * u64::from(cache.bits) / 16;
    let ledger = KvBytes {
        codes_bytes: codes,
        parameters_bytes: codes / 8,
        window_bytes: window,
        scratch_bytes: 0,
        total_bytes: codes + codes / 8 + window,
        unquantized_bytes: full,
    };
    let step = (4.0 + context as f64 / 2048.0) * cache.slowdown;
    let decode = Summary::of(&[0.99, 1.0, 1.0, 1.005, 1.01].map(|f| f * step * 128.0)).unwrap();
    let prefill = Summary::of(&[0.98, 1.0, 1.01].map(|f| f * context as f64 / 50.0)).unwrap();
    let categories = [
        ("attention", 0.3),
        ("ffn", 0.4),
        ("dequantization", 0.1),
        ("elementwise", 0.1),
        ("memory", 0.05),
        ("other", 0.05),
    ];
    let phase = PhaseKernels {
        categories: categories
            .iter()
            .map(|(name, share)| {
                (name.to_string(), CategoryTime { ms: share * step * 100.0, count: 900, share: *share })
            })
            .collect(),
        ..PhaseKernels::default()
    };
    let j_per_token = 0.3 + context as f64 / 65536.0 + f64::from(cache.bits) / 200.0;
    Measurement {
        context_len: context,
        batch_size: Some(1),
        prefill_ms: Some(prefill.median),
        prefill_tokens_per_sec: Some(context as f64 / prefill.median * 1e3),
        decode_ms: Some(decode.median),
        decode_tokens: Some(128),
        decode_tokens_per_sec: Some(128e3 / decode.median),
        vram_peak_mb: Some(900.0 + ledger.total_bytes as f64 / 1_048_576.0),
        vram_reserved_mb: Some(1000.0),
        kv_cache_mb: Some(ledger.total_bytes as f64 / 1_048_576.0),
        kv_cache_type: Some(cache.name.into()),
        prefill_runs_ms: Some(prefill),
        decode_runs_ms: Some(decode),
        steps: Some(Steps {
            median_ms: step,
            p99_ms: step * 1.5,
            flush_mean_ms: Some(step * 1.2),
            flushes: 2,
            count: 640,
            ..Steps::default()
        }),
        kv_bytes: Some(ledger),
        energy: Some(Energy {
            source: Some("counter".into()),
            decode: Some(EnergyWindow {
                seconds: j_per_token * 640.0 / 150.0,
                gross_j: j_per_token * 640.0,
                net_j: Some(200.0),
                mean_w: 150.0,
                tokens: 640,
                j_per_token,
                short: false,
                ..Default::default()
            }),
            ..Energy::default()
        }),
        kernels: Some(KernelTimes { source: "cupti".into(), decode: Some(phase), ..KernelTimes::default() }),
        ..Measurement::default()
    }
}

const DEPTHS: [f64; 3] = [0.1, 0.5, 0.9];

fn trials(cache: &Cache) -> Vec<NeedleTrial> {
    let mut out = Vec::new();
    for context in CONTEXTS {
        for depth in DEPTHS {
            for trial in 0..4 {
                let success = context < 4096 || trial < cache.found;
                out.push(NeedleTrial {
                    context_length: context,
                    depth_percent: depth,
                    input_tokens: context - 10,
                    generated_text: if success { "7492." } else { "1234." }.into(),
                    success,
                    needle: Some((7492 + trial).to_string()),
                    trial: Some(trial),
                    reference_success: Some(true),
                    ..NeedleTrial::default()
                });
            }
        }
    }
    out
}

fn needle(cache: &Cache) -> Needle {
    let all = trials(cache);
    let score = |of: &[&NeedleTrial]| {
        let successes = of.iter().filter(|t| t.success).count();
        NeedleScore {
            trials: of.len(),
            successes,
            success_rate: successes as f64 / of.len() as f64,
            ..Default::default()
        }
    };
    let whole = score(&all.iter().collect::<Vec<_>>());
    let per_context =
        CONTEXTS.map(|c| (c.to_string(), score(&all.iter().filter(|t| t.context_length == c).collect::<Vec<_>>())));
    Needle {
        total_trials: whole.trials,
        successes: whole.successes,
        success_rate: whole.success_rate,
        per_context: per_context.into_iter().collect(),
        reference_successes: Some(whole.trials),
        paired: Paired { lost: Some(whole.trials - whole.successes), gained: Some(0), ..Paired::default() },
        ..Needle::default()
    }
}

fn kld(cache: &Cache) -> Kld {
    let mean = cache.ln_ratio.abs() + 0.0003;
    let bin = |i: usize| KldBin {
        from: 512 * i,
        to: 512 * (i + 1),
        tokens: 512,
        mean: mean * (1.0 + i as f64 / 4.0),
        standard_error: Some(mean / 10.0),
        top1_agreement: Some(0.95),
        ..KldBin::default()
    };
    Kld {
        tokens: 4096,
        mean,
        p99: Some(mean * 9.0),
        top1_agreement: Some(0.96),
        by_position: (0..8).map(bin).collect(),
        ..Kld::default()
    }
}

/// Writes `result` into `folder` under its usual name.
pub fn write(folder: &Path, result: &RunResult) -> PathBuf {
    let path = folder.join(format!("{}.json", result.experiment_id));
    std::fs::write(&path, serde_json::to_vec_pretty(result).unwrap()).unwrap();
    path
}

/// Writes the sweep of [`sweep`] for `model` into `folder`.
pub fn write_sweep(folder: &Path, model: &str) {
    for cache in sweep() {
        write(folder, &run(model, &cache));
    }
}
