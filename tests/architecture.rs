//! The house rules that a compiler does not check.

#![allow(clippy::unwrap_used, reason = "a test that panics fails, as it should")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Layer of each top-level module; an import must point to a smaller number, or stay inside its own module.
const LAYERS: [(&str, u32); 11] = [
    ("cli", 7),
    ("session", 6),
    ("report", 6),
    ("bench", 5),
    ("model", 4),
    ("cache", 3),
    ("quant", 2),
    ("measure", 2),
    ("device", 1),
    ("schema", 1),
    ("base", 0),
];

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files
}

/// Modules named after `crate::` in `text`, one level of `crate::{a, b}` included.
fn imported(text: &str) -> Vec<String> {
    let mut modules = Vec::new();
    for piece in text.split("crate::").skip(1) {
        if let Some(list) = piece.strip_prefix('{') {
            let inside = list.split('}').next().unwrap_or("");
            modules.extend(inside.split(',').map(|m| m.trim().split("::").next().unwrap_or("").to_string()));
        } else {
            modules.push(piece.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        }
    }
    modules
}

/// Source without comments: a doc comment may name what it likes.
fn code(text: &str) -> String {
    text.lines().filter(|l| !l.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

#[test]
fn imports_point_down_the_layers() {
    let layers: BTreeMap<_, _> = LAYERS.into_iter().collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    let mut seen = 0;
    for path in sources(&root) {
        let relative = path.strip_prefix(&root).unwrap();
        let module = relative.components().next().unwrap().as_os_str().to_string_lossy().replace(".rs", "");
        let Some(&own) = layers.get(module.as_str()) else { continue };
        for target in imported(&code(&std::fs::read_to_string(&path).unwrap())) {
            let Some(&layer) = layers.get(target.as_str()) else { continue };
            seen += 1;
            let report_is_a_leaf = module == "report" && !["report", "schema", "base"].contains(&target.as_str());
            if target != module && (layer >= own || report_is_a_leaf) {
                wrong.push(format!("{}: crate::{target}", relative.display()));
            }
        }
    }
    assert!(seen > 50, "only {seen} imports found: the walk is broken");
    assert!(wrong.is_empty(), "imports that point the wrong way:\n{}", wrong.join("\n"));
}

/// Files above the device layer that launch kernels: a launch is unsafe, since only its caller knows the buffers.
fn launches_kernels(path: &Path) -> bool {
    code(&std::fs::read_to_string(path).unwrap()).contains("device::kernels")
}

#[test]
fn unsafe_stays_in_the_device_layer_and_where_kernels_are_launched() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let wrong: Vec<_> = sources(&root)
        .into_iter()
        .filter(|path| code(&std::fs::read_to_string(path).unwrap()).contains("unsafe {") && !launches_kernels(path))
        .map(|path| path.strip_prefix(&root).unwrap().to_path_buf())
        .filter(|path| !path.starts_with("device"))
        .collect();
    assert!(wrong.is_empty(), "unsafe that launches no kernel, outside src/device: {wrong:?}");
}

/// Modules of the same folder that `text` imports: what follows `use super::`, in a list too.
fn siblings(text: &str) -> Vec<String> {
    let name =
        |path: &str| path.trim().split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or("").to_string();
    let of = |rest: &str| match rest.strip_prefix('{') {
        Some(list) => list.split('}').next().unwrap_or("").split(',').map(name).collect(),
        None => vec![name(rest)],
    };
    text.split("use super::").skip(1).flat_map(of).collect()
}

/// A `mod.rs` and its own modules may know each other; two files beside each other are one, or one of them is the lower.
#[test]
fn no_two_files_of_a_folder_import_each_other() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut imports = Vec::new();
    for path in sources(&root).into_iter().filter(|path| !path.ends_with("mod.rs")) {
        let text = code(&std::fs::read_to_string(&path).unwrap());
        // Tests stand in a module of their own, whose `super` is the file.
        let text = text.split("#[cfg(test)]").next().unwrap().to_string();
        let beside = siblings(&text).into_iter().map(|name| path.with_file_name(format!("{name}.rs")));
        imports.extend(beside.filter(|other| other.is_file()).map(|other| (path.clone(), other)));
    }
    assert!(imports.len() > 50, "only {} imports found: the walk is broken", imports.len());
    let mutual: Vec<_> = imports.iter().filter(|(a, b)| a < b && imports.contains(&(b.clone(), a.clone()))).collect();
    assert!(mutual.is_empty(), "files that import each other: {mutual:?}");
}

/// Files and folders below `folder`, as paths from it; folders end in a slash.
fn below(folder: &Path, at: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy();
        if path.is_dir() {
            let at = format!("{at}{name}/");
            paths.extend(below(&path, &at));
            paths.push(at);
        } else {
            paths.push(format!("{at}{name}"));
        }
    }
    paths
}

/// What `text` puts between backticks and looks like a file or folder of ours; patterns, placeholders and what runs write aside.
fn paths_named(text: &str) -> Vec<&str> {
    let quoted = text.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
    let endings = [".rs", ".cu", ".cuh", ".py", ".sh", ".md", "/"];
    let is_path = |word: &&str| {
        let plain = word.chars().all(|c| c.is_ascii_alphanumeric() || "._-/".contains(c));
        let ours = !word.starts_with('.') && !word.starts_with("results/") && !word.contains("NAME");
        plain && ours && endings.iter().any(|e| word.ends_with(e))
    };
    quoted.filter(is_path).collect()
}

#[test]
fn every_file_that_the_documents_name_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders =
        ["src", "kernels", "tests", "benches", "tools", "configs"].map(|name| (root.join(name), format!("{name}/")));
    let mut known: Vec<String> = folders.iter().flat_map(|(folder, at)| below(folder, at)).collect();
    known.extend(folders.into_iter().map(|(_, at)| at));
    known.extend(["build.rs", "README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(String::from));
    // A path may be told from within `src/`, or by its last parts.
    let exists = |named: &&str| known.iter().any(|path| path == named || path.ends_with(&format!("/{named}")));
    let mut seen = 0;
    for document in ["ARCHITECTURE.md", "CONTRIBUTING.md", "README.md"] {
        let text = std::fs::read_to_string(root.join(document)).unwrap();
        let named = paths_named(&text);
        seen += named.len();
        let absent: Vec<_> = named.into_iter().filter(|path| !exists(path)).collect();
        assert!(absent.is_empty(), "{document} names what is not there: {absent:?}");
    }
    assert!(seen > 50, "only {seen} paths found: the documents are read wrongly");
}

#[test]
fn every_import_of_a_list_is_found() {
    assert_eq!(siblings("use super::a::B;\nuse super::{c,\n    d::E};"), ["a", "c", "d"]);
    assert_eq!(imported("use crate::{base::x, schema};"), ["base", "schema"]);
    assert_eq!(imported("use crate::cache::KvCache; crate::Error::usage"), ["cache", "Error"]);
}
