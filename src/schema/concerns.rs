//! Which settings say anything about which block.

use super::SCORES;

/// Settings that a file records only where they were asked for: one that has none of them was measured without.
pub const RECORDED_IF_ASKED_FOR: [&str; 2] = ["follow-up-tokens", "trace"];

/// The blocks that the setting called `flag` has an effect on, a row of the profile as `profile`; `None` for a setting of another
/// version. Which rows there are is nothing that one of them was measured with.
pub fn blocks_of(flag: &str) -> Option<&'static [&'static str]> {
    Some(match flag {
        "decode-tokens" | "follow-up-tokens" | "warmup-runs" | "measure-runs" | "prefill-chunk" | "memory-timeline"
        | "step-mode" | "trace" | "energy-seconds" => &["profile"],
        "batch-sizes" => &[],
        "context-lengths" | "needle-depths" | "needle-trials" | "needle-kind" | "needle-haystack" => &["needle"],
        "ppl-data" | "ppl-window" | "ppl-burn-in" | "ppl-tokens" | "ppl-protocol" | "ppl-batch" => &["ppl", "kld"],
        "mmlu-questions" | "mmlu-shots" => &["mmlu"],
        "math-problems" | "max-new-tokens" | "batch-size" => &["math"],
        "data" => &SCORES,
        "seed" => &["profile", "ppl", "kld", "needle", "mmlu", "math"],
        _ => return None,
    })
}

/// Whether the setting called `flag` has an effect on one of the blocks `names`. One of another version may.
pub fn concerns<S: AsRef<str>>(flag: &str, names: &[S]) -> bool {
    blocks_of(flag).is_none_or(|blocks| names.iter().any(|name| blocks.contains(&name.as_ref())))
}
