//! A config.json, read field by field with errors that name file and field.

use std::path::{Path, PathBuf};

use candle_core::DType;
use serde_json::{Map, Value};

use super::super::config::{Rope, RopeScaling};
use crate::{Error, Result};

/// The fields of a config.json; `null` counts as absent.
#[derive(Debug)]
pub struct ConfigJson {
    path: PathBuf,
    fields: Map<String, Value>,
}

impl ConfigJson {
    /// # Errors
    /// When `text` is not a JSON object.
    pub fn parse(path: &Path, text: &str) -> Result<Self> {
        match serde_json::from_str(text) {
            Ok(Value::Object(fields)) => Ok(ConfigJson { path: path.to_path_buf(), fields }),
            Ok(_) => Err(Error::file(path, "is not a JSON object; give a model's config.json")),
            Err(error) => Err(Error::file(path, format!("is not valid JSON ({error}); fetch the file again"))),
        }
    }

    /// An error about `field`.
    pub fn wrong(&self, field: &str, message: &str) -> Error {
        Error::file(&self.path, format!("`{field}` {message}"))
    }

    fn get(&self, field: &str) -> Option<&Value> {
        self.fields.get(field).filter(|v| !v.is_null())
    }

    /// A field that must be there, read by `convert`.
    fn required<T>(&self, field: &str, value: Result<Option<T>>) -> Result<T> {
        value?.ok_or_else(|| self.wrong(field, "is missing"))
    }

    fn optional<'a, T>(
        &'a self,
        field: &str,
        kind: &str,
        convert: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        match self.get(field) {
            None => Ok(None),
            Some(value) => match convert(value) {
                Some(converted) => Ok(Some(converted)),
                None => Err(self.wrong(field, &format!("is {value}, which is not {kind}"))),
            },
        }
    }

    /// A count that must be there.
    pub fn size(&self, field: &str) -> Result<usize> {
        self.required(field, self.size_or_none(field))
    }

    /// A count, if there is one.
    pub fn size_or_none(&self, field: &str) -> Result<Option<usize>> {
        self.optional(field, "a count", |v| v.as_u64().and_then(|n| usize::try_from(n).ok()))
    }

    /// A number above 0, as all of a configuration must be, or `default`.
    pub fn number_or(&self, field: &str, default: f64) -> Result<f64> {
        Ok(self.optional(field, "a number above 0", positive)?.unwrap_or(default))
    }

    /// True or false, or `default`.
    pub fn flag_or(&self, field: &str, default: bool) -> Result<bool> {
        Ok(self.optional(field, "true or false", Value::as_bool)?.unwrap_or(default))
    }

    /// A text that must be there.
    pub fn string(&self, field: &str) -> Result<&str> {
        self.required(field, self.optional(field, "a text", Value::as_str))
    }

    /// A text, or `default`.
    pub fn string_or<'a>(&'a self, field: &str, default: &'a str) -> Result<&'a str> {
        Ok(self.optional(field, "a text", Value::as_str)?.unwrap_or(default))
    }

    /// One token id or a list of them.
    pub fn token_ids(&self, field: &str) -> Result<Vec<u32>> {
        let id = |v: &Value| v.as_u64().and_then(|n| u32::try_from(n).ok());
        let ids = self.optional(field, "a token id or a list of them", |v| match v {
            Value::Array(items) => items.iter().map(id).collect(),
            one => id(one).map(|id| vec![id]),
        })?;
        Ok(ids.unwrap_or_default())
    }

    /// `torch_dtype`, or `dtype` as transformers 5 calls it.
    pub fn stored_dtype(&self) -> Result<Option<DType>> {
        for field in ["dtype", "torch_dtype"] {
            if let Some(name) = self.optional(field, "a dtype's name", Value::as_str)? {
                return match name.trim_start_matches("torch.") {
                    "float16" => Ok(Some(DType::F16)),
                    "bfloat16" => Ok(Some(DType::BF16)),
                    "float32" => Ok(Some(DType::F32)),
                    other => Err(self.wrong(field, &format!("`{other}` is not float16, bfloat16 or float32"))),
                };
            }
        }
        Ok(None)
    }

    /// A window for each layer: `layer_types` where given, else `window` for the layers `slides` picks.
    pub fn layer_windows(
        &self,
        layers: usize,
        window: Option<usize>,
        slides: impl Fn(usize) -> bool,
    ) -> Result<Vec<Option<usize>>> {
        let Some(types) = self.optional("layer_types", "a list", Value::as_array)? else {
            return Ok((0..layers).map(|layer| window.filter(|_| slides(layer))).collect());
        };
        if types.len() != layers {
            return Err(self.wrong("layer_types", &format!("has {} entries for {layers} layers", types.len())));
        }
        types
            .iter()
            .map(|kind| match kind.as_str() {
                Some("full_attention") => Ok(None),
                Some("sliding_attention") => window
                    .map(Some)
                    .ok_or_else(|| self.wrong("layer_types", "asks for a sliding window that is not set")),
                _ => Err(self.wrong("layer_types", &format!("has the unknown kind {kind}"))),
            })
            .collect()
    }

    /// RoPE's base and scaling: `rope_theta` and `rope_scaling`, or `rope_parameters` as transformers 5 writes them.
    ///
    /// # Errors
    /// An unknown kind of scaling is an error: computing without it would give wrong numbers silently.
    pub fn rope(&self, max_positions: usize) -> Result<Rope> {
        let field = if self.get("rope_parameters").is_some() { "rope_parameters" } else { "rope_scaling" };
        let top_level_base = self.number_or("rope_theta", 10_000.0)?;
        let Some(fields) = self.optional(field, "a group of fields", Value::as_object)? else {
            return Ok(Rope { base: top_level_base, scaling: RopeScaling::None });
        };
        let inner = ConfigJson { path: self.path.clone(), fields: fields.clone() };
        let number = |name: &str| inner.required(name, inner.optional(name, "a number above 0", positive));
        let base = inner.number_or("rope_theta", top_level_base)?;
        if inner.number_or("partial_rotary_factor", 1.0)? != 1.0 {
            return Err(self.wrong(field, "rotates only a part of each head, which is not supported"));
        }
        let original_positions = inner.number_or(
            "original_max_position_embeddings",
            self.number_or("original_max_position_embeddings", max_positions as f64)?,
        )?;
        let kind = inner.string_or("rope_type", inner.string_or("type", "default")?)?;
        let scaling = match kind {
            "default" => RopeScaling::None,
            "linear" => RopeScaling::Linear { factor: number("factor")? },
            "dynamic" => {
                number("factor")?;
                RopeScaling::Dynamic
            }
            "llama3" => RopeScaling::Llama3 {
                factor: number("factor")?,
                low: number("low_freq_factor")?,
                high: number("high_freq_factor")?,
                original_positions,
            },
            "yarn" => {
                for unsupported in ["mscale", "mscale_all_dim"] {
                    if inner.get(unsupported).is_some() {
                        return Err(self.wrong(field, &format!("has `{unsupported}`, which is not supported")));
                    }
                }
                let factor = number("factor")?;
                let default_attention_factor = if factor > 1.0 { 0.1 * factor.ln() + 1.0 } else { 1.0 };
                RopeScaling::Yarn {
                    factor,
                    beta_fast: inner.number_or("beta_fast", 32.0)?,
                    beta_slow: inner.number_or("beta_slow", 1.0)?,
                    original_positions,
                    attention_factor: inner.number_or("attention_factor", default_attention_factor)?,
                    truncate: inner.flag_or("truncate", true)?,
                }
            }
            other => {
                return Err(self.wrong(
                    field,
                    &format!(
                        "of type `{other}` is not supported; supported are default, dynamic, linear, llama3, yarn"
                    ),
                ));
            }
        };
        Ok(Rope { base, scaling })
    }

    /// What quantized the checkpoint's weights, if anything did.
    pub fn weight_quantization(&self) -> Option<String> {
        let method = self.get("quantization_config")?.get("quant_method")?;
        Some(method.as_str().unwrap_or("unknown").to_owned())
    }
}

fn positive(value: &Value) -> Option<f64> {
    value.as_f64().filter(|number| *number > 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_would_make_every_result_infinite_are_refused() {
        let factor = r#"{"rope_scaling": {"type": "linear", "factor": 0}}"#;
        for error in
            [parse(factor).rope(64).unwrap_err(), parse(r#"{"eps": -1e-6}"#).number_or("eps", 1.0).unwrap_err()]
        {
            assert!(error.to_string().contains("above 0"), "{error}");
        }
    }

    fn parse(text: &str) -> ConfigJson {
        ConfigJson::parse(Path::new("config.json"), text).unwrap()
    }

    #[test]
    fn unknown_rope_scaling_is_an_error_that_lists_the_known() {
        let error = parse(r#"{"rope_scaling": {"type": "longrope", "factor": 2}}"#).rope(64).unwrap_err();
        assert!(error.to_string().contains("longrope") && error.to_string().contains("yarn"), "{error}");
    }

    #[test]
    fn the_context_is_as_long_as_the_scaling_of_positions_makes_it() {
        let of = |published: usize, scaling: &str| {
            let rope = parse(&format!(r#"{{"rope_scaling": {{{scaling}}}}}"#)).rope(published).unwrap();
            rope.scaling.longest_context(published)
        };
        assert_eq!(of(4096, r#""type": "default""#), 4096);
        assert_eq!(of(4096, r#""type": "linear", "factor": 4.0"#), 16384);
        assert_eq!(of(4096, r#""type": "dynamic", "factor": 4.0"#), 4096);
        // Qwen2.5 with YaRN switched on, with and without the number it was trained with; DeepSeek, which publishes the longer one.
        let qwen = r#""type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768"#;
        assert_eq!((of(32768, qwen), of(131_072, qwen)), (131_072, 131_072));
        assert_eq!(of(32768, r#""rope_type": "yarn", "factor": 4.0"#), 131_072);
        let llama3 = r#""rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192"#;
        assert_eq!(of(131_072, llama3), 131_072);
    }

    #[test]
    fn old_and_new_spellings_of_rope_mean_the_same() {
        let old = parse(r#"{"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2.0}}"#);
        let new = parse(r#"{"rope_parameters": {"rope_theta": 5e5, "rope_type": "linear", "factor": 2.0}}"#);
        assert_eq!(old.rope(64).unwrap(), new.rope(64).unwrap());
        assert_eq!(old.rope(64).unwrap().base, 5e5);
    }

    #[test]
    fn a_field_of_the_wrong_kind_is_named_with_its_value() {
        let error = parse(r#"{"hidden_size": "wide"}"#).size("hidden_size").unwrap_err();
        assert!(error.to_string().contains("`hidden_size` is \"wide\""), "{error}");
        assert!(parse(r#"{"hidden_size": null}"#).size_or_none("hidden_size").unwrap().is_none());
    }

    #[test]
    fn layer_types_decide_which_layers_slide() {
        let json = parse(r#"{"layer_types": ["full_attention", "sliding_attention"]}"#);
        assert_eq!(json.layer_windows(2, Some(8), |_| true).unwrap(), [None, Some(8)]);
        assert!(json.layer_windows(3, Some(8), |_| true).is_err());
        assert!(json.layer_windows(2, None, |_| true).is_err());
    }
}
