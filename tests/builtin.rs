//! End to end with the model inside the binary: a trained model on its own text, no download.

#![allow(clippy::unwrap_used, reason = "a test that panics fails, as it should")]

use assert_cmd::Command;
use serde_json::Value;

/// Runs `kvprof run --json` on the built-in model and returns the result files as they were written.
fn run(arguments: &[&str]) -> Vec<Value> {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::cargo_bin("kvprof")
        .unwrap()
        .args(["run", "--json", "--device", "cpu", "--no-profile", "--output-dir"])
        .arg(folder.path())
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    match serde_json::from_slice(&output.stdout).unwrap() {
        Value::Array(results) => results,
        other => panic!("not an array: {other}"),
    }
}

fn number(value: &Value, path: &str) -> f64 {
    value.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("no number at {path} in {value:#}"))
}

#[test]
fn quantization_costs_perplexity_in_the_order_of_bits() {
    let quantizations = ["--kv-quant", "none", "int8-hqq", "int2-hqq-token"];
    let results = run(&[&quantizations[..], &["--benchmarks", "ppl", "--ppl-tokens", "7168"]].concat());
    let [none, int8, int2] = results.as_slice() else { panic!("{} results", results.len()) };

    let reference = number(none, "/benchmarks/perplexity/value");
    assert!((1.9..2.3).contains(&reference), "the model card says 2.08, here it is {reference}");
    let cost = |result| number(result, "/benchmarks/perplexity_quantized/ln_ratio");
    let error = |result| number(result, "/benchmarks/perplexity_quantized/ln_ratio_standard_error");
    assert!(cost(int8).abs() < 0.001, "int8 changes perplexity by {}", cost(int8));
    assert!(cost(int2) > 4.0 * error(int2) && cost(int2) > 0.01, "int2: {} ± {}", cost(int2), error(int2));
    for quantized in [int8, int2] {
        let fraction = number(quantized, "/benchmarks/perplexity_quantized/quantized_read_fraction");
        assert!(fraction > 0.5, "only {fraction} of the keys were read from codes");
    }
}

#[test]
fn a_needle_is_found_at_every_depth() {
    let results = run(&["--kv-quant", "none", "--benchmarks", "needle", "--context-lengths", "256", "1024"]);
    assert_eq!(number(&results[0], "/benchmarks/needle_in_haystack/success_rate"), 1.0, "{:#}", results[0]);
    assert_eq!(number(&results[0], "/benchmarks/needle_in_haystack/total_trials"), 10.0);
}

#[test]
fn the_model_uses_its_context() {
    let perplexity = |window: &str, burn_in: &str| {
        let data = ["--kv-quant", "none", "--benchmarks", "ppl", "--ppl-tokens", "3584"];
        let results = run(&[&data[..], &["--ppl-window", window, "--ppl-burn-in", burn_in]].concat());
        number(&results[0], "/benchmarks/perplexity/value")
    };
    let (long, short) = (perplexity("2048", "256"), perplexity("64", "32"));
    assert!(long < 0.9 * short, "{long} with 2048 tokens of context, {short} with 33 to 64");
}

#[test]
fn a_file_that_stands_in_for_a_text_is_named_in_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let book = folder.path().join("book.txt");
    let sentence = |i: usize| format!("Chapter {i} tells how the old miller walked to the river and came back late. ");
    std::fs::write(&book, (0..100).map(sentence).collect::<String>()).unwrap();
    let book = book.to_str().unwrap();
    let quick = "--kv-quant none --ppl-window 128 --ppl-burn-in 64 --ppl-tokens 64 --context-lengths 256 --needle-depths 0.5 \
                 --needle-haystack wikitext2 --data";
    let run = |benchmarks: &[&str]| {
        let words: Vec<&str> = quick.split_whitespace().chain([book, "--benchmarks"]).collect();
        run(&[&words, benchmarks].concat()).remove(0)
    };
    let read = run(&["ppl", "needle"]);
    assert_eq!(read["benchmarks"]["perplexity"]["dataset"], "book.txt");
    assert_eq!(read["config"]["ppl_dataset"], book);
    assert_eq!(read["benchmarks"]["needle_in_haystack"]["haystack"], book);
    assert_eq!(run(&["needle"])["config"]["ppl_dataset"], "", "a text that was not read");
}
