//! Running the program as a person would, and reading what it wrote.

#![allow(dead_code, reason = "shared by tests of which not all use everything")]

use std::path::{Path, PathBuf};

use assert_cmd::Command;
use serde_json::Value;

/// The program under test.
pub fn kvprof() -> Command {
    Command::new(env!("CARGO_BIN_EXE_kvprof"))
}

/// The result files of `folder`, sorted.
pub fn json_files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "json"))
        .collect();
    files.sort();
    files
}

/// A result file as JSON.
pub fn read(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The built-in model as a folder `name` in `folder`; with `trained_on`, one byte of its weights is another.
pub fn builtin_in(folder: &Path, name: &str, trained_on: bool) -> PathBuf {
    let (builtin, model) = (Path::new(env!("CARGO_MANIFEST_DIR")).join("src/model/builtin"), folder.join(name));
    std::fs::create_dir_all(&model).unwrap();
    for file in ["config.json", "tokenizer.json"] {
        std::fs::copy(builtin.join(file), model.join(file)).unwrap();
    }
    let mut weights = std::fs::read(builtin.join("model.safetensors")).unwrap();
    *weights.last_mut().unwrap() ^= u8::from(trained_on);
    std::fs::write(model.join("model.safetensors"), weights).unwrap();
    model
}
