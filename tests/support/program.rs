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
