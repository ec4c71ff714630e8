//! Runs a plan: loads each model once, measures, saves after every block, and goes on where one run fails.

use std::path::Path;
use std::time::Instant;

use super::plan::RunSpec;
use super::store::{Stored, experiment_id, profile_block};
use super::{environment, interrupt};
use crate::base::progress::Progress;
use crate::bench::{self, Benchmark, Context, References, Settings};
use crate::model::{Subject, WeightsKind, attention};
use crate::quant::{QuantSpec, Scheme};
use crate::schema::{KvQuant, ModelConfig, RunConfig, RunResult, SCHEMA_VERSION};
use crate::{Error, Result};

/// How one run of a plan ended.
pub struct Outcome {
    /// The result file; `None` when nothing could be written.
    pub stored: Option<Stored>,
    /// What failed, if anything.
    pub error: Option<Error>,
}

/// Runs `specs`, all of one model, in order. A failed run does not stop the others; Ctrl-C does.
///
/// # Errors
/// Only when the model itself cannot be loaded or a name in the plan is unknown: nothing has been measured then.
pub fn run(specs: &[RunSpec], folder: &Path, progress: &dyn Progress, show_loading: bool) -> Result<Vec<Outcome>> {
    let Some(first) = specs.first() else { return Ok(Vec::new()) };
    let mut planned = Vec::new();
    for spec in specs {
        planned.push((spec, attention::new(&spec.attn_backend)?, benchmarks(&spec.benchmarks)?));
    }
    let subject = Subject::load(&first.model.options(show_loading)?)?;
    for (spec, _, benchmarks) in &planned {
        spec.kv_quant.validate(subject.config().head_dim, subject.config().layers)?;
        if let Some(quality) = benchmarks.iter().find(|b| b.is_quality()) {
            subject.require_trained(quality.name())?;
        }
    }
    let (environment, hardware) = (environment::environment(&subject.device)?, environment::hardware(&subject.device)?);
    let mut references = References::default();
    let mut outcomes = Vec::new();
    for (spec, attention, benchmarks) in planned {
        let started = Instant::now();
        let settings = spec.settings.for_model(subject.config());
        let mut result = empty_result(spec, &settings, &subject);
        result.environment = environment.clone();
        result.hardware = hardware.clone();
        let mut stored = match Stored::create(folder, result) {
            Ok(stored) => stored,
            Err(error) => {
                outcomes.push(Outcome { stored: None, error: Some(error) });
                continue;
            }
        };
        let mut context = Context {
            subject: &subject,
            spec: &spec.kv_quant,
            attention: attention.as_ref(),
            settings: &settings,
            progress,
            copy_gb_s: hardware.copy_bandwidth_gb_s,
            references: &mut references,
        };
        let mut error = measure(spec, &benchmarks, &mut context, &mut stored).err();
        stored.result.combo_elapsed_s = started.elapsed().as_secs_f64();
        if let Some(error) = &error {
            stored.result.warnings.push(error.to_string());
        }
        if let Err(failed) = stored.save() {
            error.get_or_insert(failed);
        }
        outcomes.push(Outcome { stored: Some(stored), error });
        if interrupt::requested() {
            break;
        }
    }
    Ok(outcomes)
}

/// Runs the blocks of one spec that the file does not hold yet.
fn measure(
    spec: &RunSpec,
    benchmarks: &[Box<dyn Benchmark>],
    context: &mut Context<'_>,
    stored: &mut Stored,
) -> Result<()> {
    if spec.profile {
        let completed = stored.result.completed.clone();
        let done = |length, batch| completed.contains(&profile_block(length, batch));
        bench::profile::run(context, &done, &mut |block| stored.keep(block))?;
    }
    // One benchmark that cannot be scored (a text too short, say) must not cost the others.
    let mut failed = None;
    for benchmark in benchmarks {
        if stored.result.completed.iter().any(|c| c == benchmark.name()) {
            continue;
        }
        match benchmark.run(context, &mut |block| stored.keep(block)) {
            Err(Error::Interrupted) => return Err(Error::Interrupted),
            Err(error) => {
                failed.get_or_insert(error);
            }
            Ok(()) => {}
        }
    }
    failed.map_or(Ok(()), Err)
}

/// The benchmarks of the given names, each once, in their fixed order.
fn benchmarks(names: &[String]) -> Result<Vec<Box<dyn Benchmark>>> {
    let all = bench::all();
    if let Some(unknown) = names.iter().find(|n| !all.iter().any(|b| b.name() == n.as_str())) {
        let known: Vec<_> = all.iter().map(|b| b.name()).collect();
        return Err(Error::usage(format!("unknown benchmark {unknown:?}; there are: {}", known.join(" "))));
    }
    Ok(all.into_iter().filter(|b| names.iter().any(|n| n == b.name())).collect())
}

fn empty_result(spec: &RunSpec, settings: &Settings, subject: &Subject) -> RunResult {
    let now = chrono::Local::now();
    RunResult {
        schema_version: SCHEMA_VERSION.into(),
        experiment_id: experiment_id(&subject.model, &spec.attn_backend, &spec.kv_quant.label(), &now),
        timestamp: now.format("%Y-%m-%dT%H:%M:%S").to_string(),
        model: subject.model.clone(),
        model_config: model_config(subject),
        attn_backend: spec.attn_backend.clone(),
        kv_quant: kv_quant(&spec.kv_quant),
        environment: Default::default(),
        hardware: Default::default(),
        config: RunConfig {
            seed: settings.seed,
            warmup_runs: settings.warmup_runs,
            measure_runs: settings.measure_runs,
            decode_tokens: settings.decode_tokens,
            ppl_dataset: settings.ppl_data.clone().unwrap_or_else(|| "wikitext2".into()),
            ppl_tokens: settings.ppl_tokens,
            flags: match serde_json::to_value(settings) {
                Ok(serde_json::Value::Object(map)) => map.into_iter().collect(),
                _ => Default::default(),
            },
            extra: Default::default(),
        },
        measurements: Vec::new(),
        benchmarks: Default::default(),
        spec_hash: Some(spec.hash()),
        completed: Vec::new(),
        warnings: Vec::new(),
        combo_elapsed_s: 0.0,
        extra: Default::default(),
    }
}

fn model_config(subject: &Subject) -> ModelConfig {
    let config = subject.config();
    ModelConfig {
        num_params_b: (subject.decoder.parameters() as f64 / 1e9 * 1e4).round() / 1e4,
        num_layers: config.layers,
        num_q_heads: config.heads,
        num_kv_heads: config.kv_heads,
        gqa_ratio: format!("{}:1", config.heads / config.kv_heads),
        head_dim: config.head_dim,
        max_position_embeddings: config.max_positions,
        family: Some(config.family.clone()),
        sliding_window: config.cache_window(),
        weights: Some(match subject.weights {
            WeightsKind::Trained => "trained".into(),
            WeightsKind::Dummy => "dummy".into(),
        }),
        revision: subject.revision.clone().or_else(|| subject.weights_sha256.clone()),
        dtype: Some(subject.dtype.as_str().into()),
        extra: Default::default(),
    }
}

/// How a spec is written into a result file.
pub fn kv_quant(spec: &QuantSpec) -> KvQuant {
    let mut quant =
        KvQuant { name: Some(spec.name.clone()), keep_layers: spec.keep_layers.clone(), ..Default::default() };
    if !spec.is_quantized() {
        return quant;
    }
    quant.enabled = true;
    quant.residual_length = Some(spec.residual);
    quant.policy = Some(format!("{:?}", spec.policy).to_lowercase());
    quant.backend = spec.method().map(Into::into);
    match spec.scheme {
        Scheme::Grouped { key, value, .. } => {
            quant.nbits = Some(key.bits);
            quant.nbits_value = Some(value.bits);
            quant.axis_key = Some(key.direction.axis());
            quant.axis_value = Some(value.direction.axis());
            quant.asymmetric = key.direction != value.direction;
            quant.group_key = Some(key.group);
            quant.group_value = Some(value.group);
        }
        Scheme::Fp8 => {
            quant.nbits = Some(8);
            quant.nbits_value = Some(8);
        }
        Scheme::None => {}
    }
    quant
}
