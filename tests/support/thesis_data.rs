//! Where the thesis tool's published files are.

use std::path::PathBuf;

/// The folder of thesis files: below `KVPROF_TEST_DATA`, or beside the checkout. `None`, with a message, where it is absent.
pub fn folder() -> Option<PathBuf> {
    let data = std::env::var_os("KVPROF_TEST_DATA").map_or_else(|| PathBuf::from("../shared/data"), PathBuf::from);
    let folder = data.join("thesis_results");
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("skipped: no {} (set KVPROF_TEST_DATA to the folder that holds it)", folder.display());
    None
}

/// The ten result files.
pub fn files() -> Option<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder()?).unwrap().map(|e| e.unwrap().path());
    let mut files: Vec<PathBuf> = entries.filter(|p| p.to_string_lossy().contains("_sdpa_")).collect();
    files.sort();
    assert_eq!(files.len(), 10, "the thesis folder holds ten results");
    Some(files)
}
