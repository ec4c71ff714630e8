//! What any score of right and wrong answers says beside its rate.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::base::stats::{PairTable, mcnemar_exact};

/// How sure a rate of successes is, and what became of each item that the unquantized cache was given too. Its fields stand
/// among those of the score.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Paired {
    /// Wilson interval of the rate at 95 %.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<(f64, f64)>,
    /// The rate less the reference's, over the same items.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delta: Option<f64>,
    /// Items at which both succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub both: Option<usize>,
    /// Items at which neither succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub neither: Option<usize>,
    /// Items at which only the reference succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<usize>,
    /// Items at which only the quantized cache succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gained: Option<usize>,
    /// McNemar's exact p of `lost` against `gained`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mcnemar_p: Option<f64>,
}

impl From<&PairTable> for Paired {
    fn from(table: &PairTable) -> Self {
        Paired {
            interval: Some(table.interval()),
            delta: Some(table.delta()),
            both: Some(table.both),
            neither: Some(table.neither),
            lost: Some(table.lost),
            gained: Some(table.gained),
            mcnemar_p: Some(mcnemar_exact(table.lost, table.gained)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Accuracy, Needle};
    use super::*;

    #[test]
    fn its_fields_stand_among_those_of_the_score() {
        let paired = Paired::from(&PairTable { both: 5, lost: 3, gained: 1, neither: 1 });
        let accuracy = Accuracy { questions: 10, paired: paired.clone(), ..Default::default() };
        let json = serde_json::to_value(&accuracy).unwrap();
        assert_eq!((&json["questions"], &json["lost"], &json["mcnemar_p"]), (&10.into(), &3.into(), &0.625.into()));
        assert!(json.get("paired").is_none());
        assert_eq!(serde_json::from_value::<Accuracy>(json).unwrap(), accuracy);
    }

    #[test]
    fn unknown_fields_beside_it_are_kept_and_its_own_are_not_among_them() {
        let text = r#"{"total_trials": 2, "successes": 1, "success_rate": 0.5, "per_context": {}, "lost": 1, "colour": "red"}"#;
        let needle: Needle = serde_json::from_str(text).unwrap();
        assert_eq!((needle.paired.lost, needle.paired.gained), (Some(1), None));
        assert_eq!(needle.extra.keys().collect::<Vec<_>>(), ["colour"]);
        let json = serde_json::to_value(&needle).unwrap();
        assert_eq!(json, serde_json::from_str::<serde_json::Value>(text).unwrap());
    }
}
