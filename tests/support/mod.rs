//! What several test programs need: fixtures, development data where it is present, GGUF files, a hub on this machine.

#![allow(dead_code, reason = "each test program uses a part of it")]

pub mod gguf;
pub mod hub;

use std::path::{Path, PathBuf};

/// A file or folder below `tests/fixtures`.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// A file or folder of the development data: below $KVPROF_TEST_DATA, or `../shared/data` beside the repository. Where it is
/// absent, says so and returns `None`: the test then ends, passed, having tested nothing.
pub fn development_data(name: &str) -> Option<PathBuf> {
    let folder = match std::env::var_os("KVPROF_TEST_DATA") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data"),
    };
    let path = folder.join(name);
    if path.exists() {
        return Some(path);
    }
    eprintln!("skipped: {} is absent (set KVPROF_TEST_DATA to the folder that has it)", path.display());
    None
}
