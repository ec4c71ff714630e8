//! Published data, and SmolLM2 where it is present: $KVPROF_TEST_SMOLLM2 is the path of its GGUF file.

use std::path::PathBuf;

use kvprof::bench::data::{MATH500, MMLU_TEST, rows};
use kvprof::bench::math::{boxed::last_boxed, compare::equivalent, corruption::examine};
use kvprof::bench::settings::Settings;
use kvprof::bench::text::Text;
use kvprof::model::Tokenizer;

use super::Bench;
use crate::support::development_data;

fn smollm2() -> Option<Bench> {
    let path = std::env::var_os("KVPROF_TEST_SMOLLM2").map(PathBuf::from).filter(|path| path.is_file());
    if path.is_none() {
        eprintln!("skipped: set KVPROF_TEST_SMOLLM2 to SmolLM2-135M-Instruct.Q4_1.gguf");
    }
    path.map(|path| Bench::of(path.to_str().unwrap()))
}

#[test]
fn raw_wikitext_reads_as_the_joined_rows_of_the_hub() {
    let Some(folder) = development_data("wikitext2") else { return };
    let settings = Settings { data: Some(folder.clone()), ..Default::default() };
    let text = Text::named("wikitext2", &settings, 10).unwrap();
    assert_eq!(text.documents()[0], std::fs::read_to_string(folder.join("wiki.test.hf-joined.txt")).unwrap());
    assert!(text.source.sha256.starts_with("173c87a5"), "{}", text.source.sha256);
}

#[test]
fn every_published_math_answer_is_parsed_from_its_solution_and_equals_itself() {
    let Some(folder) = development_data("math500") else { return };
    let problems = rows(&MATH500.find(Some(&folder)).unwrap().paths[0]).unwrap();
    assert_eq!(problems.len(), 500);
    for problem in problems {
        let (solution, answer) = (problem["solution"].as_str().unwrap(), problem["answer"].as_str().unwrap());
        let boxed = last_boxed(solution).unwrap_or_else(|| panic!("no box in {solution}"));
        assert!(equivalent(boxed, answer), "{boxed} is not {answer}");
    }
}

#[test]
fn no_published_solution_is_taken_for_broken_text() {
    let (Some(folder), Some(tokenizers)) = (development_data("math500"), development_data("tokenizers")) else {
        return;
    };
    let json = tokenizers.join("gpt2/tokenizer.json");
    let gpt2 = Tokenizer::from_json(&json, &std::fs::read(&json).unwrap()).unwrap();
    let builtin = Bench::builtin().subject.tokenizer().unwrap().clone();
    for problem in rows(&MATH500.find(Some(&folder)).unwrap().paths[0]).unwrap() {
        let solution = problem["solution"].as_str().unwrap();
        for tokenizer in [&gpt2, &builtin] {
            let health = examine(solution, &tokenizer.encode(solution, false).unwrap());
            assert!(!health.corrupted, "{health:?}: {solution}");
        }
    }
}

#[test]
fn mmlu_has_57_subjects_and_a_sample_of_57_has_one_of_each() {
    let Some(folder) = development_data("mmlu") else { return };
    assert_eq!(MMLU_TEST.find(Some(&folder)).unwrap().paths.len(), 57);
    let Some(mut bench) = smollm2() else { return };
    bench.settings.data = Some(folder);
    bench.settings.mmlu_questions = 2;
    let score = bench.run("mmlu", "int4-hqq").unwrap().mmlu.unwrap();
    assert_eq!((score.questions, score.by_subject.len()), (2, 2));
    assert!(score.quantized_read_fraction.unwrap() > 0.1, "{:?}", score.quantized_read_fraction);
    // Four letters of 49152 tokens: a model that reads the examples puts nearly all weight on them.
    for item in &score.items {
        let p: f64 = item.outcome.log_probabilities.iter().map(|p| p.exp()).sum();
        assert!(p > 0.5 && p <= 1.0 + 1e-6, "{p}: {item:?}");
    }
}

#[test]
fn math_is_asked_in_the_models_own_chat_template() {
    let Some(folder) = development_data("math500") else { return };
    let Some(mut bench) = smollm2() else { return };
    bench.settings.data = Some(folder);
    bench.settings.math_problems = 1;
    bench.settings.max_new_tokens = 160;
    let score = bench.run("math", "int4-hqq").unwrap().math.unwrap();
    assert_eq!((score.questions, score.prompt.as_deref()), (1, Some("chat")));
    assert_eq!(score.reference_corrupted, Some(0), "{:?}", score.items);
    assert!(score.quantized_read_fraction.unwrap() > 0.0);
}
