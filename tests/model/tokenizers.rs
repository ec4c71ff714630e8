//! Golden files: texts of every kind of oddity, and the ids that reference tokenizers give them.

use std::path::Path;

use kvprof::model::Tokenizer;
use kvprof::model::weights::gguf::GgufFile;

use crate::support::development_data;

const SEPARATOR: &str = "\n__ggml_vocab_test__\n";

fn assert_golden(tokenizer: &Tokenizer, golden: &Path, name: &str) {
    let read = |kind: &str| std::fs::read_to_string(golden.join(format!("ggml-vocab-{name}.gguf.{kind}"))).unwrap();
    let (inputs, outputs) = (read("inp"), read("out"));
    // The separator ends the last text too.
    let inputs = inputs.strip_suffix(SEPARATOR).unwrap();
    let inputs: Vec<&str> = inputs.split(SEPARATOR).collect();
    let outputs: Vec<&str> = outputs.lines().collect();
    assert_eq!(inputs.len(), outputs.len());
    assert!(inputs.len() > 40);
    for (input, output) in inputs.iter().zip(outputs) {
        let wanted: Vec<u32> = output.split_whitespace().map(|id| id.parse().unwrap()).collect();
        assert_eq!(tokenizer.encode(input, false).unwrap(), wanted, "{name}: {input:?}");
    }
}

fn from_json(path: &Path) -> Tokenizer {
    Tokenizer::from_json(path, &std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn the_golden_files_of_gpt2_pass_from_json_and_from_gguf() {
    let Some(folder) = development_data("tokenizers") else { return };
    let golden = folder.join("golden");
    assert_golden(&from_json(&folder.join("gpt2/tokenizer.json")), &golden, "gpt-2");
    let file = GgufFile::open(&golden.join("ggml-vocab-gpt-2.gguf")).unwrap();
    assert_golden(&Tokenizer::from_gguf(&file).unwrap(), &golden, "gpt-2");
}

#[test]
fn the_golden_files_of_qwen2_pass() {
    let Some(folder) = development_data("tokenizers") else { return };
    let tokenizer = from_json(&folder.join("qwen3/tokenizer.json"));
    assert_golden(&tokenizer, &folder.join("golden"), "qwen2");
}

#[test]
fn the_golden_files_of_llama_pass_and_bos_comes_first_when_asked_for() {
    let Some(folder) = development_data("tokenizers") else { return };
    let file = GgufFile::open(&folder.join("golden/ggml-vocab-llama-spm.gguf")).unwrap();
    let tokenizer = Tokenizer::from_gguf(&file).unwrap();
    assert_golden(&tokenizer, &folder.join("golden"), "llama-spm");
    let ids = tokenizer.encode("Hello  world", true).unwrap();
    assert_eq!(ids[0], 1);
    assert_eq!(tokenizer.decode(&ids).unwrap(), "Hello  world");
}
