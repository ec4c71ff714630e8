//! Whether the model that is here is the one that a file tells of: by its shape and rotation, its weights' digest or commit, and, where
//! texts are scored, its tokenizer. Names do not count, since folders are moved and files renamed.

use crate::schema::ModelConfig;

/// Share by which counts of parameters may differ: other tools round them, and count tied matrices as they like.
const PARAMETERS: f64 = 0.01;

/// Benchmarks in which the model writes until it ends its text, which depends on the tokens that are taken for an end.
const GENERATING: [&str; 2] = ["needle", "math"];

/// In what the model `here` differs from the one `recorded`, as far as the profile and `benchmarks` depend on it, with both values; `None`
/// where nothing that both tell of does.
pub(super) fn difference(recorded: &ModelConfig, here: &ModelConfig, benchmarks: &[String]) -> Option<String> {
    let shape = |m: &ModelConfig| {
        [
            ("layers", m.num_layers),
            ("query heads", m.num_q_heads),
            ("KV heads", m.num_kv_heads),
            ("head dimension", m.head_dim),
            ("longest context", m.max_position_embeddings),
        ]
    };
    let sizes = shape(recorded).into_iter().zip(shape(here)).filter(|((_, old), (_, new))| old != new);
    let mut told: Vec<String> = sizes.map(|((what, old), (_, new))| format!("{what} {old}, here {new}")).collect();
    let (old, new) = (recorded.num_params_b, here.num_params_b);
    if (old - new).abs() > PARAMETERS * old.max(new) {
        told.push(format!("parameters {old} billion, here {new}"));
    }
    if let (Some(old), Some(new)) = (&recorded.revision, &here.revision)
        // A commit of the hub and a digest of files cannot be compared.
        && old.len() == new.len()
        && old != new
    {
        told.push(format!("weights {}, here {}", short(old), short(new)));
    }
    // A commit has many quantizations; the files of one that hold safetensors are not named.
    let (old, new) = (&recorded.gguf_file, &here.gguf_file);
    if recorded.revision.is_some() && recorded.revision == here.revision && old != new {
        let name = |file: &Option<String>| file.clone().unwrap_or_else(|| "safetensors".into());
        told.push(format!("weights {}, here {}", name(old), name(new)));
    }
    if let (Some(old), Some(new)) = (&recorded.rope, &here.rope)
        && old != new
    {
        told.push(format!("rotation of positions {old}, here {new}"));
    }
    if let (Some(old), Some(new)) = (&recorded.tokenizer_sha256, &here.tokenizer_sha256)
        && !benchmarks.is_empty()
        && old != new
    {
        told.push(format!("tokenizer (with its chat template) {}, here {}", short(old), short(new)));
    }
    let (old, new) = (&recorded.end_tokens, &here.end_tokens);
    if benchmarks.iter().any(|name| GENERATING.contains(&name.as_str()))
        && !(old.is_empty() || new.is_empty())
        && old != new
    {
        told.push(format!("tokens that end a text {old:?}, here {new:?}"));
    }
    (!told.is_empty()).then(|| told.join("; "))
}

/// The beginning of a digest or commit, enough to tell two apart.
fn short(digest: &str) -> &str {
    &digest[..digest.floor_char_boundary(12)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(layers: usize, billions: f64, revision: Option<&str>) -> ModelConfig {
        serde_json::from_value(serde_json::json!({
            "num_params_b": billions, "num_layers": layers, "num_q_heads": 32, "num_kv_heads": 8, "gqa_ratio": "4:1",
            "head_dim": 128, "max_position_embeddings": 32768, "revision": revision,
        }))
        .unwrap()
    }

    fn difference_of(recorded: &ModelConfig, here: &ModelConfig) -> Option<String> {
        difference(recorded, here, &[])
    }

    #[test]
    fn models_differ_in_shape_size_or_weights_and_not_by_what_only_one_file_tells() {
        let digests = ["a".repeat(64), "b".repeat(64)];
        let of = |digest: &str| model(32, 7.2417, Some(digest));
        assert_eq!(difference_of(&of(&digests[0]), &of(&digests[0])), None);
        assert_eq!(
            difference_of(&model(32, 7.24, None), &of(&digests[0])),
            None,
            "an older file rounds, and has no digest"
        );
        assert_eq!(difference_of(&of(&"c".repeat(40)), &of(&digests[0])), None, "a commit is no digest");
        let told = difference_of(&of(&digests[0]), &of(&digests[1])).unwrap();
        assert_eq!(told, "weights aaaaaaaaaaaa, here bbbbbbbbbbbb");
        // Llama-3.1-8B has the heads and layers of Mistral-7B.
        assert!(difference_of(&model(32, 7.24, None), &model(32, 8.03, None)).unwrap().contains("8.03"));
        assert!(difference_of(&model(36, 7.24, None), &model(32, 7.24, None)).unwrap().contains("layers 36, here 32"));
    }

    #[test]
    fn quantizations_of_one_commit_are_different_models() {
        let of = |file: Option<&str>| ModelConfig {
            gguf_file: file.map(Into::into),
            ..model(32, 7.24, Some(&"c".repeat(40)))
        };
        let (small, large, none) = (of(Some("m-Q4_K_M.gguf")), of(Some("m-Q8_0.gguf")), of(None));
        assert_eq!(difference_of(&small, &small), None);
        assert_eq!(difference_of(&small, &large).unwrap(), "weights m-Q4_K_M.gguf, here m-Q8_0.gguf");
        assert_eq!(difference_of(&none, &large).unwrap(), "weights safetensors, here m-Q8_0.gguf");
        let local = model(32, 7.24, Some(&"a".repeat(64)));
        assert_eq!(difference_of(&small, &local), None, "a digest names the file already");
    }

    #[test]
    fn what_a_benchmark_depends_on_is_held_against_it_and_nothing_else() {
        let base = ModelConfig {
            rope: Some(serde_json::json!({"base": 10000.0, "scaling": "none"})),
            tokenizer_sha256: Some("a".repeat(64)),
            end_tokens: vec![2],
            ..model(32, 7.24, None)
        };
        let of = |change: &dyn Fn(&mut ModelConfig), benchmark: &str| {
            let mut here = base.clone();
            change(&mut here);
            let names: Vec<String> = benchmark.split_whitespace().map(Into::into).collect();
            let told = difference(&base, &here, &names);
            assert_eq!(told.is_some(), difference(&here, &base, &names).is_some());
            told.unwrap_or_default()
        };
        let rope = |m: &mut ModelConfig| m.rope = Some(serde_json::json!({"base": 1e6, "scaling": "none"}));
        assert!(of(&rope, "").contains(r#"{"base":10000.0,"scaling":"none"}, here {"base":1000000.0"#));
        let tokenizer = |m: &mut ModelConfig| m.tokenizer_sha256 = Some("b".repeat(64));
        assert_eq!(of(&tokenizer, ""), "", "the profile reads no text");
        assert_eq!(of(&tokenizer, "ppl"), "tokenizer (with its chat template) aaaaaaaaaaaa, here bbbbbbbbbbbb");
        let ends = |m: &mut ModelConfig| m.end_tokens = vec![2, 7];
        assert_eq!(of(&ends, "ppl kld mmlu"), "", "where nothing is generated nothing ends");
        assert_eq!(of(&ends, "ppl math"), "tokens that end a text [2], here [2, 7]");
        // As an older file.
        let silent = |m: &mut ModelConfig| {
            (m.rope, m.tokenizer_sha256, m.end_tokens) = Default::default();
        };
        assert_eq!(of(&silent, "ppl needle"), "");
    }
}
