//! What any number of a file must keep to by what it is, wherever it stands: shares lie within 0 and 1, what is measured in
//! milliseconds or bytes is not negative, a part is not more than the whole beside it.

use serde_json::{Map, Value};

use crate::schema::RunResult;

/// Shares and probabilities, 0…1. Shares of a bandwidth are of another measurement and may exceed it.
const SHARES: [&str; 12] = [
    "quantized_read_fraction",
    "unclassified_share",
    "share",
    "accuracy",
    "success_rate",
    "interval",
    "mcnemar_p",
    "rms_delta_p",
    "top1_agreement",
    "depth_percent",
    "repetition",
    "non_words",
];

/// Endings of names whose numbers cannot be negative: times, sizes, rates, powers, errors. (Bytes and counts cannot be read otherwise.)
const POSITIVE: [&str; 9] =
    ["_ms", "_mb", "_s", "_per_sec", "_w", "_watts", "_mj_per_token", "_slowdown", "standard_error"];

/// Whole names of such numbers.
const POSITIVE_NAMES: [&str; 3] = ["ms", "seconds", "sampled_j"];

/// Times that 2.0 estimates as differences, which may come out negative.
const ESTIMATED: [&str; 2] = ["quant_overhead_ms", "dequant_overhead_ms"];

/// Names of parts, and the names that the whole may have beside them.
const PARTS: [(&str, &[&str]); 12] = [
    ("successes", &["trials", "total_trials"]),
    ("reference_successes", &["total_trials"]),
    ("correct", &["questions"]),
    ("reference_correct", &["questions"]),
    ("unparsed", &["questions"]),
    ("reference_unparsed", &["questions"]),
    ("corrupted", &["questions"]),
    ("reference_corrupted", &["questions"]),
    ("truncated", &["questions"]),
    ("diverged", &["questions"]),
    ("questions", &["planned"]),
    ("key_reads_from_codes", &["key_reads"]),
];

/// Findings on every number of `result`, each with its place.
pub(super) fn check(result: &RunResult, findings: &mut Vec<String>) {
    // What a type of ours does not name is another tool's.
    let blocks = [
        ("measurements", serde_json::to_value(&result.measurements)),
        ("benchmarks", serde_json::to_value(&result.benchmarks)),
        ("hardware", serde_json::to_value(&result.hardware)),
        ("combo_elapsed_s", serde_json::to_value(result.combo_elapsed_s)),
    ];
    for (name, block) in blocks {
        walk(name, name, &block.unwrap_or_default(), findings);
    }
}

/// `value` is what `key` names, at `place`.
fn walk(place: &str, key: &str, value: &Value, findings: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            parts(place, map, findings);
            for (key, value) in map.iter().filter(|(key, _)| *key != "settings") {
                walk(&format!("{place}.{key}"), key, value, findings);
            }
        }
        Value::Array(values) => {
            // Of intervals beside one another, each has the name of what it is of.
            if let Some((low, high)) = interval(place, values).filter(|(low, high)| low > high) {
                findings.push(format!("{place} is {low} to {high}, no interval"));
            }
            for (at, value) in values.iter().enumerate() {
                walk(&format!("{place}[{at}]"), key, value, findings);
            }
        }
        Value::Number(number) => {
            let number = number.as_f64().unwrap_or_default();
            if SHARES.contains(&key) && !(0.0..=1.0 + 1e-9).contains(&number) {
                findings.push(format!("{place} is {number}, which is not within 0 and 1"));
            } else if is_positive(key) && number < 0.0 {
                findings.push(format!("{place} is {number}, which is negative"));
            } else if key == "log_probabilities" && number > 1e-6 {
                findings.push(format!("{place} is {number}, which is no logarithm of a probability"));
            }
        }
        _ => {}
    }
}

fn is_positive(key: &str) -> bool {
    let named = POSITIVE_NAMES.contains(&key) || POSITIVE.iter().any(|ending| key.ends_with(ending));
    named && !ESTIMATED.contains(&key)
}

/// The ends of the interval at `place`, if it is one.
fn interval(place: &str, values: &[Value]) -> Option<(f64, f64)> {
    let is_one = place.ends_with(".interval") || place.contains(".intervals.");
    let ends = [values.first()?.as_f64()?, values.get(1)?.as_f64()?];
    is_one.then_some((ends[0], ends[1]))
}

fn parts(place: &str, map: &Map<String, Value>, findings: &mut Vec<String>) {
    let count = |name: &str| map.get(name).and_then(Value::as_u64);
    for (part, wholes) in PARTS {
        for whole in wholes {
            if let Some((few, all)) = count(part).zip(count(whole)).filter(|(few, all)| few > all) {
                findings.push(format!("{place}: {part} is {few}, which is more than {whole}, {all}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_out_of_range_are_found_wherever_they_stand() {
        let findings = |block: Value| {
            let mut findings = Vec::new();
            walk("b", "b", &block, &mut findings);
            findings
        };
        let sound = json!({"quantized_read_fraction": 1.0, "interval": [0.0, 1.0], "prefill_ms": 0.0, "delta": -0.5, "quant_overhead_ms": -7.0,
            "step_bandwidth_share": 1.4, "items": [{"log_probabilities": [-1.0, 0.0], "correct": true, "questions": 1}],
            "settings": {"share": 7}, "mean": null});
        assert_eq!(findings(sound), Vec::<String>::new());
        for (block, said) in [
            (json!({"quantized_read_fraction": 1.7}), "b.quantized_read_fraction is 1.7, which is not within 0 and 1"),
            (json!({"kernels": {"ms": -1.0}}), "b.kernels.ms is -1, which is negative"),
            (json!({"traced_slowdown": -2.0}), "b.traced_slowdown is -2, which is negative"),
            (json!({"interval": [0.5, 0.25]}), "b.interval is 0.5 to 0.25, no interval"),
            (json!({"intervals": {"mean": [2.0, 1.0]}}), "b.intervals.mean is 2 to 1, no interval"),
            (json!({"interval": [-0.1, 0.5]}), "b.interval[0] is -0.1, which is not within 0 and 1"),
            (json!({"steps": {"median_ms": -1.0}}), "b.steps.median_ms is -1, which is negative"),
            (
                json!([{"log_probabilities": [0.5]}]),
                "b[0].log_probabilities[0] is 0.5, which is no logarithm of a probability",
            ),
            (json!({"unparsed": 5, "questions": 4}), "b: unparsed is 5, which is more than questions, 4"),
        ] {
            assert_eq!(findings(block), [said]);
        }
    }
}
