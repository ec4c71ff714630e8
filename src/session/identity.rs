//! Whether the model that is here is the one that a file tells of: by its shape, and by its weights' digest or commit. Names do not
//! count, since folders are moved and files renamed.

use crate::schema::ModelConfig;

/// Share by which counts of parameters may differ: other tools round them, and count tied matrices as they like.
const PARAMETERS: f64 = 0.01;

/// In what the model `here` differs from the one `recorded`, with both values; `None` where nothing that both tell of does.
pub(super) fn difference(recorded: &ModelConfig, here: &ModelConfig) -> Option<String> {
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

    #[test]
    fn models_differ_in_shape_size_or_weights_and_not_by_what_only_one_file_tells() {
        let digests = ["a".repeat(64), "b".repeat(64)];
        let of = |digest: &str| model(32, 7.2417, Some(digest));
        assert_eq!(difference(&of(&digests[0]), &of(&digests[0])), None);
        assert_eq!(
            difference(&model(32, 7.24, None), &of(&digests[0])),
            None,
            "an older file rounds, and has no digest"
        );
        assert_eq!(difference(&of(&"c".repeat(40)), &of(&digests[0])), None, "a commit is no digest");
        let told = difference(&of(&digests[0]), &of(&digests[1])).unwrap();
        assert_eq!(told, "weights aaaaaaaaaaaa, here bbbbbbbbbbbb");
        // Llama-3.1-8B has the heads and layers of Mistral-7B.
        assert!(difference(&model(32, 7.24, None), &model(32, 8.03, None)).unwrap().contains("8.03"));
        assert!(difference(&model(36, 7.24, None), &model(32, 7.24, None)).unwrap().contains("layers 36, here 32"));
    }
}
