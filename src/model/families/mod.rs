//! Model families: config.json and tensor names in, [`DecoderConfig`] and [`Names`] out. No forward code.
//!
//! A family is one file with one function; add it to [`FAMILIES`].

mod gpt2;
mod json;
mod llama;
mod mistral;
mod qwen2;
mod qwen3;

use std::path::Path;

use super::config::DecoderConfig;
use crate::{Error, Result};
pub use json::ConfigJson;

/// Reads one family's config.json.
type Reader = fn(&ConfigJson) -> Result<(DecoderConfig, Names)>;

/// A family of models that can be loaded.
#[derive(Debug, Clone, Copy)]
pub struct Family {
    /// `model_type` of its config.json.
    pub name: &'static str,
    /// What people call it.
    pub title: &'static str,
    /// Hub ids of some of its models.
    pub examples: &'static str,
    read: Reader,
}

/// All families that can be loaded.
pub const FAMILIES: [Family; 5] = [
    Family { name: "gpt2", title: "GPT-2", examples: "gpt2, gpt2-xl", read: gpt2::read },
    Family {
        name: "llama",
        title: "Llama 1 to 3, Yi, SmolLM",
        examples: "meta-llama/Llama-3.1-8B, 01-ai/Yi-1.5-9B-32K, HuggingFaceTB/SmolLM2-135M-Instruct",
        read: llama::read,
    },
    Family { name: "mistral", title: "Mistral", examples: "mistralai/Mistral-7B-v0.1", read: mistral::read },
    Family {
        name: "qwen2",
        title: "Qwen2, Qwen2.5, DeepSeek-R1-Distill-Qwen",
        examples: "Qwen/Qwen2.5-7B-Instruct, deepseek-ai/DeepSeek-R1-Distill-Qwen-7B",
        read: qwen2::read,
    },
    Family { name: "qwen3", title: "Qwen3", examples: "Qwen/Qwen3-0.6B, Qwen/Qwen3-8B", read: qwen3::read },
];

/// The `model_type` values that can be loaded.
pub fn supported() -> String {
    FAMILIES.map(|family| family.name).join(", ")
}

/// Where a checkpoint keeps queries, keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QkvNames {
    /// One tensor: queries, then keys, then values.
    Fused(&'static str),
    /// Three tensors.
    Separate(&'static str, &'static str, &'static str),
}

/// Where a checkpoint keeps the MLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MlpNames {
    /// Two maps.
    Plain {
        /// hidden → intermediate.
        up: &'static str,
        /// intermediate → hidden.
        down: &'static str,
    },
    /// Three maps.
    Gated {
        /// hidden → intermediate, through the activation.
        gate: &'static str,
        /// hidden → intermediate.
        up: &'static str,
        /// intermediate → hidden.
        down: &'static str,
    },
}

/// Tensor names of a checkpoint, without `.weight` and `.bias`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Names {
    /// What most or some publications put before every name but the head's (embedding models leave out Llama's `model.`).
    pub optional_prefix: &'static str,
    /// Token embedding `[V, hidden]`.
    pub embedding: &'static str,
    /// Learned positions `[positions, hidden]`.
    pub positions: Option<&'static str>,
    /// What comes before a layer's number.
    pub layer: &'static str,
    /// Norm before attention.
    pub attention_norm: &'static str,
    /// Queries, keys and values.
    pub qkv: QkvNames,
    /// Norms of each head's query and key.
    pub qk_norms: Option<(&'static str, &'static str)>,
    /// Attention output.
    pub output: &'static str,
    /// Norm before the MLP.
    pub mlp_norm: &'static str,
    /// Feed-forward maps.
    pub mlp: MlpNames,
    /// Norm after the last layer.
    pub final_norm: &'static str,
    /// Output layer `[V, hidden]`, when not tied.
    pub head: &'static str,
    /// Whether the layers' matrices are stored `[in, out]` (GPT-2's Conv1D) instead of `[out, in]`.
    pub transposed: bool,
}

/// The names that Llama gave and most families after it kept.
pub const LLAMA_NAMES: Names = Names {
    optional_prefix: "model.",
    embedding: "embed_tokens",
    positions: None,
    layer: "layers",
    attention_norm: "input_layernorm",
    qkv: QkvNames::Separate("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    qk_norms: None,
    output: "self_attn.o_proj",
    mlp_norm: "post_attention_layernorm",
    mlp: MlpNames::Gated { gate: "mlp.gate_proj", up: "mlp.up_proj", down: "mlp.down_proj" },
    final_norm: "norm",
    head: "lm_head",
    transposed: false,
};

/// What a config.json says, whichever family it is of.
///
/// # Errors
/// When the text is not JSON, the family is not supported (the message lists those that are), or a field is missing
/// or wrong; always naming `path`.
pub fn read_config(path: &Path, text: &str) -> Result<(DecoderConfig, Names)> {
    let json = ConfigJson::parse(path, text)?;
    let family = json.string("model_type")?;
    let Some(found) = FAMILIES.iter().find(|known| known.name == family) else {
        return Err(Error::file(
            path,
            format!("model type `{family}` is not supported; supported are {}", supported()),
        ));
    };
    let (config, names) = (found.read)(&json)?;
    let config = config.validate().map_err(|e| Error::file(path, e.to_string()))?;
    Ok((config, names))
}

/// The numbers Llama and its descendants share; each family changes what differs.
fn llama_like(json: &ConfigJson) -> Result<DecoderConfig> {
    use super::config::{Biases, Mlp, Norm, Position, same_window};

    let activation = json.string_or("hidden_act", "silu")?;
    if activation != "silu" {
        return Err(json.wrong("hidden_act", &format!("`{activation}` is not supported in this family, only `silu`")));
    }
    let heads = json.size("num_attention_heads")?;
    let hidden = json.size("hidden_size")?;
    let layers = json.size("num_hidden_layers")?;
    let published = json.size("max_position_embeddings")?;
    let rope = json.rope(published)?;
    let head_dim = match json.size_or_none("head_dim")? {
        Some(head_dim) => head_dim,
        None if heads > 0 && hidden % heads == 0 => hidden / heads,
        None => {
            return Err(json.wrong("hidden_size", "is not a multiple of num_attention_heads, and there is no head_dim"));
        }
    };
    Ok(DecoderConfig {
        family: json.string("model_type")?.to_owned(),
        layers,
        hidden,
        intermediate: json.size("intermediate_size")?,
        heads,
        kv_heads: json.size_or_none("num_key_value_heads")?.unwrap_or(heads),
        head_dim,
        vocab: json.size("vocab_size")?,
        max_positions: rope.scaling.longest_context(published),
        norm: Norm::RmsNorm { eps: json.number_or("rms_norm_eps", 1e-6)? },
        position: Position::Rope(rope),
        mlp: Mlp::SwiGlu,
        biases: Biases::default(),
        qk_norm: false,
        windows: same_window(layers, None)?,
        tied_embeddings: json.flag_or("tie_word_embeddings", false)?,
        bos: json.token_ids("bos_token_id")?.first().copied(),
        eos: json.token_ids("eos_token_id")?,
        stored_dtype: json.stored_dtype()?,
    })
}

/// The windows of Qwen2 and Qwen3: `layer_types` where given, else the layers from `max_window_layers` up, and none at
/// all unless `use_sliding_window` says so.
fn qwen_windows(json: &ConfigJson, layers: usize) -> Result<Vec<Option<usize>>> {
    let window = match json.flag_or("use_sliding_window", false)? {
        true => json.size_or_none("sliding_window")?,
        false => None,
    };
    let first = json.size_or_none("max_window_layers")?.unwrap_or(28);
    json.layer_windows(layers, window, |layer| layer >= first)
}

#[cfg(test)]
mod tests {
    use super::super::config::RopeScaling;
    use super::*;

    #[test]
    fn an_unknown_family_is_answered_with_the_known_ones() {
        let error = read_config(Path::new("x/config.json"), r#"{"model_type": "mixtral"}"#).unwrap_err();
        assert!(error.is_usage());
        let text = error.to_string();
        assert!(text.contains("x/config.json") && text.contains("mixtral"), "{text}");
        assert!(text.contains("gpt2, llama, mistral, qwen2, qwen3"), "{text}");
    }

    #[test]
    fn a_missing_field_is_named() {
        let error = read_config(Path::new("c.json"), r#"{"model_type": "llama", "hidden_size": 8}"#).unwrap_err();
        assert!(error.to_string().contains("num_attention_heads"), "{error}");
    }

    /// Of a model of 30 layers, 2 heads and 64 channels, with `more` fields.
    fn config(family: &str, more: &str) -> DecoderConfig {
        let text = format!(
            r#"{{"model_type": "{family}", "hidden_size": 64, "num_attention_heads": 2, "num_hidden_layers": 30,
                "intermediate_size": 8, "vocab_size": 9, "max_position_embeddings": 4096{more}}}"#
        );
        read_config(Path::new("c.json"), &text).unwrap().0
    }

    #[test]
    fn what_a_configuration_leaves_out_is_what_transformers_takes() {
        assert_eq!((config("qwen3", "").head_dim, config("qwen2", "").head_dim), (128, 32));
        // Of Qwen's layers the first 28 see everything.
        let sliding = r#", "use_sliding_window": true, "sliding_window": 64"#;
        let windows = config("qwen2", sliding).windows;
        assert_eq!((windows[27], windows[28], windows[29]), (None, Some(64), Some(64)));
        let windows = config("qwen3", &format!("{sliding}, \"max_window_layers\": 1")).windows;
        assert_eq!((windows[0], windows[1]), (None, Some(64)));
    }

    #[test]
    fn the_context_of_the_first_training_is_found_within_rope_beside_it_or_is_the_longest() {
        let original = |more: &str, within: &str| {
            let rope = format!(r#"{more}, "rope_scaling": {{"rope_type": "yarn", "factor": 4.0{within}}}"#);
            match config("llama", &rope).rope().unwrap().scaling {
                RopeScaling::Yarn { original_positions, .. } => original_positions,
                ref other => panic!("{other:?}"),
            }
        };
        let said = |positions: u32| format!(r#", "original_max_position_embeddings": {positions}"#);
        assert_eq!(original("", ""), 4096.0);
        assert_eq!(original(&said(2048), ""), 2048.0);
        assert_eq!(original(&said(2048), &said(1024)), 1024.0);
    }

    #[test]
    fn heads_that_do_not_divide_are_refused() {
        let text = r#"{"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 3,
            "num_hidden_layers": 1, "intermediate_size": 8, "vocab_size": 9, "max_position_embeddings": 16}"#;
        let error = read_config(Path::new("c.json"), text).unwrap_err();
        assert!(error.to_string().contains("do not divide"), "{error}");
    }
}
