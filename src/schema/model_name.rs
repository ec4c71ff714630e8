//! The name of a model within its path: of result files, and of rows in tables.

use std::path::Path;

/// The last part of a model's id or path, without a file's ending; `None` where the path names no file or folder, as `..` does not. A file
/// that is just `config.json` has the name of its folder.
pub fn model_name(model: &str) -> Option<&str> {
    let path = Path::new(model);
    let last = path.file_name()?.to_str()?;
    let stem = [".gguf", ".config.json", ".json"].iter().find_map(|ending| last.strip_suffix(ending)).unwrap_or(last);
    // Every model's configuration is called config.json: the folder says which.
    if last == "config.json" { path.parent()?.file_name()?.to_str() } else { Some(stem) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_has_the_name_of_its_file_or_of_its_folder() {
        for (model, name) in [
            ("mistralai/Mistral-7B-v0.1", Some("Mistral-7B-v0.1")),
            ("mod/smol.Q4_1.gguf", Some("smol.Q4_1")),
            ("shapes/Mistral-7B.config.json", Some("Mistral-7B")),
            ("./mod/config.json", Some("mod")),
            ("./mod/.", Some("mod")),
            ("./mod//", Some("mod")),
            ("config.json", None),
            (".", None),
            ("mod/..", None),
        ] {
            assert_eq!(model_name(model), name, "{model}");
        }
    }
}
