//! Between a run and its description in a result file, in both directions.

use candle_core::DType;
use serde_json::Value;

use super::estimate::Shape;
use super::plan::{ModelRequest, RunSpec};
use super::store::experiment_id;
use crate::bench::{Settings, text};
use crate::model::{DecoderConfig, Identity, Subject};
use crate::quant::{QuantSpec, Scheme};
use crate::schema::concerns::concerns;
use crate::schema::{Flags, KvQuant, ModelConfig, RunConfig, RunResult, SCHEMA_VERSION, WINDOW_LAYERS};
use crate::{Error, Result};

/// What a result says of its model.
pub struct Described<'a> {
    config: &'a DecoderConfig,
    parameters: u64,
    identity: Identity,
    dtype: DType,
}

impl<'a> Described<'a> {
    /// Of a loaded model.
    pub fn loaded(subject: &'a Subject) -> Self {
        Described {
            config: subject.config(),
            parameters: subject.decoder.parameters(),
            identity: subject.identity(),
            dtype: subject.dtype,
        }
    }

    /// Of a model that is not loaded, as far as its configuration tells.
    pub fn unloaded(shape: &'a Shape) -> Self {
        let Shape { config, dtype, .. } = shape;
        Described { config, parameters: config.parameters(), identity: Identity::default(), dtype: *dtype }
    }

    /// With what names its weights and its tokenizer.
    pub fn identified(self, identity: Identity) -> Self {
        Described { identity, ..self }
    }
}

/// A result with everything but measurements and environment.
///
/// # Errors
/// As [`flags`].
pub fn empty_result(spec: &RunSpec, settings: &Settings, model: &Described<'_>) -> Result<RunResult> {
    let now = chrono::Local::now();
    Ok(RunResult {
        schema_version: SCHEMA_VERSION.into(),
        experiment_id: experiment_id(&spec.model.model, &spec.attn_backend, &spec.kv_quant.label(), &now),
        timestamp: now.format("%Y-%m-%dT%H:%M:%S").to_string(),
        model: spec.model.model.clone(),
        model_config: model_config(&spec.model, model),
        attn_backend: spec.attn_backend.clone(),
        kv_quant: kv_quant(&spec.kv_quant),
        environment: Default::default(),
        hardware: Default::default(),
        config: RunConfig {
            seed: settings.seed,
            warmup_runs: settings.warmup_runs,
            measure_runs: settings.measure_runs,
            decode_tokens: settings.decode_tokens,
            ppl_dataset: ppl_dataset(spec, settings),
            ppl_tokens: settings.ppl_tokens,
            flags: flags(settings)?,
            extra: Default::default(),
        },
        measurements: Vec::new(),
        benchmarks: Default::default(),
        spec_hash: Some(spec.hash()),
        completed: Vec::new(),
        warnings: Vec::new(),
        combo_elapsed_s: 0.0,
        extra: Default::default(),
    })
}

/// Settings as a file records them.
///
/// # Errors
/// Where JSON cannot hold one of them: a path that [`Settings::check`] would have refused.
pub fn flags(settings: &Settings) -> Result<Flags> {
    let cannot = |why: &dyn std::fmt::Display| Error::usage(format!("the settings cannot be recorded: {why}"));
    match serde_json::to_value(settings) {
        Ok(Value::Object(map)) => Ok(map.into_iter().collect()),
        Ok(other) => Err(cannot(&other)),
        Err(error) => Err(cannot(&error)),
    }
}

/// The text that a run reads; empty where it reads none.
fn ppl_dataset(spec: &RunSpec, settings: &Settings) -> String {
    let name = concerns("ppl-data", &spec.benchmarks).then(|| text::default_name(settings, &spec.model.model));
    name.map_or_else(String::new, |name| text::read_as(name, settings))
}

/// What a file says of its model.
pub(super) fn model_config(request: &ModelRequest, model: &Described<'_>) -> ModelConfig {
    let config = model.config;
    ModelConfig {
        num_params_b: (model.parameters as f64 / 1e9 * 1e4).round() / 1e4,
        num_layers: config.layers,
        num_q_heads: config.heads,
        num_kv_heads: config.kv_heads,
        gqa_ratio: format!("{}:1", config.heads / config.kv_heads),
        head_dim: config.head_dim,
        max_position_embeddings: config.max_positions,
        family: Some(config.family.clone()),
        sliding_window: config.shared_window(),
        weights: Some(if request.dummy { "dummy" } else { "trained" }.into()),
        revision: model.identity.weights.clone(),
        gguf_file: model.identity.gguf_file.clone(),
        tokenizer_sha256: model.identity.tokenizer_sha256.clone(),
        rope: config.rope().and_then(|rope| serde_json::to_value(rope).ok()),
        end_tokens: config.eos.clone(),
        dtype: Some(model.dtype.as_str().into()),
        extra: windows(config).into_iter().chain(requested(request)).collect(),
    }
}

/// In how many layers a sliding window is in force, where it is not in all: `sliding_window` is then `null`.
fn windows(config: &DecoderConfig) -> Option<(String, Value)> {
    let layers = config.windows.iter().flatten().count();
    (layers > 0 && config.shared_window().is_none()).then(|| (WINDOW_LAYERS.into(), layers.into()))
}

/// What was asked of the model beyond what its shape shows.
fn requested(model: &ModelRequest) -> serde_json::Map<String, Value> {
    let mut extra = serde_json::Map::new();
    if let Some(revision) = &model.revision {
        extra.insert("requested_revision".into(), revision.clone().into());
    }
    extra.insert("sliding_window_switch".into(), if model.sliding_window { "on" } else { "off" }.into());
    extra
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
    quant.hadamard = spec.hadamard.name().map(Into::into);
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

/// The quantization that a file records, of this version or of 2.0.
///
/// # Errors
/// When it names none that kvprof offers.
pub fn quant_of(recorded: &KvQuant) -> Result<QuantSpec> {
    if let Some(name) = &recorded.name {
        return name.parse();
    }
    if !recorded.enabled {
        return Ok(QuantSpec::none());
    }
    // 2.0 names a quantization by its parts.
    let name = match (recorded.backend.as_deref(), recorded.nbits, recorded.axis_key, recorded.axis_value) {
        (Some("hqq"), Some(bits), Some(0), Some(0)) => format!("int{bits}-hqq"),
        (Some("hqq"), Some(bits), Some(0), Some(1)) => format!("int{bits}-hqq-kivi"),
        (Some("hqq"), Some(bits), Some(1), Some(1)) => format!("int{bits}-hqq-token"),
        (Some("quanto"), Some(bits), ..) => format!("int{bits}-quanto"),
        _ => return Err(Error::usage(format!("no quantization of kvprof is {recorded:?}"))),
    };
    let spec: QuantSpec = name.parse()?;
    Ok(match recorded.residual_length {
        Some(tokens) => spec.with_residual(tokens),
        None => spec,
    })
}

/// The run that a file records, so that its blocks can be measured again as they were.
///
/// # Errors
/// When the file records a quantization or a setting that kvprof does not know.
pub fn run_of(result: &RunResult) -> Result<RunSpec> {
    let config = &result.config;
    let mut settings = if config.flags.is_empty() {
        Settings {
            seed: config.seed,
            warmup_runs: config.warmup_runs,
            measure_runs: config.measure_runs,
            decode_tokens: config.decode_tokens,
            ppl_data: Some(config.ppl_dataset.clone()),
            ppl_tokens: config.ppl_tokens,
            ..Settings::default()
        }
    } else {
        serde_json::from_value(Value::Object(config.flags.clone().into_iter().collect()))
            .map_err(|e| Error::usage(format!("the file's settings: {e}")))?
    };
    if settings.context_lengths.is_empty() {
        settings.context_lengths = result.measurements.iter().map(|m| m.context_len).collect();
        settings.context_lengths.dedup();
    }
    let recorded = |key: &str| result.model_config.extra.get(key).and_then(Value::as_str).map(str::to_string);
    Ok(RunSpec {
        model: ModelRequest {
            model: result.model.clone(),
            // A branch moves on; what was measured is its commit.
            revision: commit(&result.model_config).or_else(|| recorded("requested_revision")),
            dummy: result.model_config.weights.as_deref() == Some("dummy"),
            dtype: result.model_config.dtype.clone().unwrap_or_else(|| "auto".into()),
            device: result.hardware.device.clone().unwrap_or_else(|| "auto".into()),
            // 2.0 ran every model over its whole context.
            sliding_window: result.schema_version != "2.0"
                && recorded("sliding_window_switch").as_deref() != Some("off"),
        },
        attn_backend: result.attn_backend.clone(),
        kv_quant: quant_of(&result.kv_quant)?,
        benchmarks: Vec::new(),
        profile: false,
        settings,
        // The file keeps the hash that it has.
        contents: Default::default(),
    })
}

/// The commit of the hub that names a file's model; `None` where a digest of local files does, or nothing.
fn commit(model: &ModelConfig) -> Option<String> {
    /// Digits of a commit: those of a SHA-1.
    const COMMIT: usize = 40;
    model.revision.clone().filter(|name| name.len() == COMMIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_of_the_hub_is_told_from_a_digest_of_files() {
        let model = |revision: &str| ModelConfig { revision: Some(revision.into()), ..Default::default() };
        assert_eq!(commit(&model(&"a".repeat(40))), Some("a".repeat(40)));
        assert_eq!(commit(&model(&"a".repeat(64))), None);
        assert_eq!(commit(&ModelConfig::default()), None);
    }

    #[test]
    fn every_quantization_survives_being_written_and_read() {
        for name in [
            "none",
            "int8-hqq",
            "int2-hqq-kivi",
            "int4-quanto",
            "fp8",
            "int4-hqq,group=32,keep-layers=0",
            "int4-quanto,hadamard=kv",
        ] {
            let spec: QuantSpec = name.parse().unwrap();
            assert_eq!(quant_of(&kv_quant(&spec)).unwrap(), spec);
        }
    }

    #[test]
    fn parts_of_the_thesis_tool_are_recognized() {
        let recorded = KvQuant {
            enabled: true,
            nbits: Some(2),
            backend: Some("hqq".into()),
            axis_key: Some(0),
            axis_value: Some(1),
            residual_length: Some(64),
            ..Default::default()
        };
        assert_eq!(quant_of(&recorded).unwrap(), "int2-hqq-kivi,residual=64".parse().unwrap());
    }
}
