//! A follow-up prompt.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::base::stats::Summary;

/// A prompt that was read at once after the row's own, which stood in the cache: a chat's next turn. Apart from all other times.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FollowUp {
    /// Its tokens, of each sequence.
    pub tokens: usize,
    /// Median time from it to the logits of its last token, ms.
    pub ms: f64,
    /// Its tokens of all sequences over that time.
    pub tokens_per_sec: f64,
    /// The times, ms.
    pub runs_ms: Summary,
    /// The attention that ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attention_kernel: Option<String>,
}
