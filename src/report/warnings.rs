//! What a reader should know before trusting a number: warnings of runs, for pages and for the terminal.

use super::number;
use crate::schema::RunResult;

/// A run's warnings, and those of its measurements with their context.
pub fn of(result: &RunResult) -> Vec<String> {
    let mut all = result.warnings.clone();
    for m in &result.measurements {
        let place = number::tokens(m.context_len);
        all.extend(m.warnings.iter().map(|w| format!("{place} tokens: {w}")));
        if m.skipped == Some(true) {
            all.push(format!("{place} tokens skipped: {}", m.skip_reason.as_deref().unwrap_or("no reason given")));
        }
    }
    all
}

/// Warnings of measurements, one line for each text with the places where it arose.
pub fn lines(results: &[&RunResult]) -> Vec<String> {
    let mut said: Vec<(String, Vec<String>)> = Vec::new();
    for result in results {
        let cache = result.kv_quant.name.as_deref().unwrap_or("none");
        for m in &result.measurements {
            let batch = m.batch_size.filter(|b| *b > 1).map_or_else(String::new, |b| format!(" × {b}"));
            let place = format!("{cache} at {}{batch}", m.context_len);
            let skipped = (m.skipped == Some(true))
                .then(|| format!("skipped: {}", m.skip_reason.as_deref().unwrap_or("no reason given")));
            for warning in m.warnings.iter().cloned().chain(skipped) {
                match said.iter_mut().find(|(text, _)| *text == warning) {
                    Some((_, places)) => places.push(place.clone()),
                    None => said.push((warning, vec![place.clone()])),
                }
            }
        }
    }
    said.into_iter().map(|(text, places)| format!("{}: {text}", places.join(", "))).collect()
}

/// Prints [`lines`] on standard error.
pub fn tell(results: &[&RunResult]) {
    for line in lines(results) {
        eprintln!("warning: {line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{KvQuant, Measurement};

    fn result(cache: &str, warnings: &[&str]) -> RunResult {
        let json = serde_json::json!({
            "schema_version": "3.0", "experiment_id": "x", "timestamp": "", "model": "m", "attn_backend": "fused",
            "model_config": {"num_params_b": 1.0, "num_layers": 1, "num_q_heads": 1, "num_kv_heads": 1, "gqa_ratio": "1:1",
                "head_dim": 64, "max_position_embeddings": 64},
            "kv_quant": {"enabled": false, "nbits": null, "backend": null, "axis_key": null, "axis_value": null,
                "asymmetric": false},
            "environment": {}, "hardware": {}, "benchmarks": {}, "combo_elapsed_s": 1.0, "measurements": [],
            "config": {"seed": 1, "warmup_runs": 0, "measure_runs": 1, "decode_tokens": 4, "ppl_dataset": "", "ppl_tokens": 0},
        });
        let warnings = warnings.iter().map(|w| w.to_string()).collect();
        let m = Measurement { context_len: 4096, batch_size: Some(2), warnings, ..Default::default() };
        let kv_quant = KvQuant { name: Some(cache.into()), ..Default::default() };
        RunResult { measurements: vec![m], kv_quant, ..serde_json::from_value(json).unwrap() }
    }

    #[test]
    fn a_warning_of_several_places_is_one_line() {
        let (none, int4) = (result("none", &["throttled"]), result("int4-hqq", &["throttled", "drifted"]));
        assert_eq!(
            lines(&[&none, &int4]),
            ["none at 4096 × 2, int4-hqq at 4096 × 2: throttled", "int4-hqq at 4096 × 2: drifted"]
        );
        assert!(lines(&[&result("none", &[])]).is_empty());
    }
}
