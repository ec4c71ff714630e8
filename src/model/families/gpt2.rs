//! GPT-2 (openai-community/gpt2 and its sizes).

use super::super::config::{Biases, DecoderConfig, Mlp, Norm, Position, same_window};
use super::{ConfigJson, MlpNames, Names, QkvNames};
use crate::Result;

const NAMES: Names = Names {
    // Absent in OpenAI's own publication, there in most fine-tunes.
    optional_prefix: "transformer.",
    embedding: "wte",
    positions: Some("wpe"),
    layer: "h",
    attention_norm: "ln_1",
    qkv: QkvNames::Fused("attn.c_attn"),
    qk_norms: None,
    output: "attn.c_proj",
    mlp_norm: "ln_2",
    mlp: MlpNames::Plain { up: "mlp.c_fc", down: "mlp.c_proj" },
    final_norm: "ln_f",
    head: "lm_head",
    transposed: true,
};

/// LayerNorm, learned positions, GELU, biases everywhere, tied embeddings.
pub(super) fn read(json: &ConfigJson) -> Result<(DecoderConfig, Names)> {
    for (field, normal) in [("scale_attn_weights", true), ("scale_attn_by_inverse_layer_idx", false)] {
        if json.flag_or(field, normal)? != normal {
            return Err(json.wrong(field, &format!("is not supported unless it is {normal}")));
        }
    }
    let mlp = match json.string_or("activation_function", "gelu_new")? {
        "gelu_new" | "gelu_pytorch_tanh" => Mlp::GeluTanh,
        "gelu" => Mlp::GeluErf,
        other => {
            return Err(
                json.wrong("activation_function", &format!("`{other}` is not supported, only gelu_new and gelu"))
            );
        }
    };
    let hidden = json.size("n_embd")?;
    let heads = json.size("n_head")?;
    let layers = json.size("n_layer")?;
    if heads == 0 || hidden % heads != 0 {
        return Err(json.wrong("n_embd", "is not a multiple of n_head"));
    }
    let config = DecoderConfig {
        family: "gpt2".into(),
        layers,
        hidden,
        intermediate: json.size_or_none("n_inner")?.unwrap_or(4 * hidden),
        heads,
        kv_heads: heads,
        head_dim: hidden / heads,
        vocab: json.size("vocab_size")?,
        max_positions: json.size("n_positions")?,
        norm: Norm::LayerNorm { eps: json.number_or("layer_norm_epsilon", 1e-5)? },
        position: Position::Learned,
        mlp,
        biases: Biases { qkv: true, output: true, mlp: true },
        qk_norm: false,
        windows: same_window(layers, None)?,
        tied_embeddings: json.flag_or("tie_word_embeddings", true)?,
        bos: json.token_ids("bos_token_id")?.first().copied(),
        eos: json.token_ids("eos_token_id")?,
        stored_dtype: json.stored_dtype()?,
    };
    Ok((config, NAMES))
}
