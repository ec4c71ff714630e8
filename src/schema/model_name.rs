//! The name of a model within its path: of result files, and of rows in tables.

use std::path::Path;

/// The last part of a model's id or path, without a file's ending; `None` where the path names no file or folder, as `..` does not. A file
/// that is just `config.json` has the name of its folder. Of the hub's GGUF models `owner/name:Q4_K_M` has the name `name:Q4_K_M`.
pub fn model_name(model: &str) -> Option<&str> {
    let path = Path::new(model);
    let last = path.file_name()?.to_str()?;
    if let Some(stem) = last.strip_suffix(".gguf") {
        // A file of a repository of the hub: `owner/name:file.gguf`.
        let file = stem.split_once(':').map_or(stem, |(_, file)| file);
        return Some(without_part(file));
    }
    let stem = [".config.json", ".json"].iter().find_map(|ending| last.strip_suffix(ending)).unwrap_or(last);
    // Every model's configuration is called config.json: the folder says which.
    if last == "config.json" { path.parent()?.file_name()?.to_str() } else { Some(stem) }
}

/// The name of a GGUF file, without its ending, less what numbers the parts of a model: `-00001-of-00003`.
pub fn without_part(stem: &str) -> &str {
    let is_number = |text: &str| text.len() >= 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    let name = || {
        let (rest, count) = stem.rsplit_once("-of-")?;
        let (name, number) = rest.rsplit_once('-')?;
        (is_number(number) && is_number(count) && !name.is_empty()).then_some(name)
    };
    name().unwrap_or(stem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_has_the_name_of_its_file_or_of_its_folder() {
        for (model, name) in [
            ("mistralai/Mistral-7B-v0.1", Some("Mistral-7B-v0.1")),
            ("mod/smol.Q4_1.gguf", Some("smol.Q4_1")),
            ("mod/Qwen2.5-7B-Q8_0-00002-of-00003.gguf", Some("Qwen2.5-7B-Q8_0")),
            ("mod/best-of-breed.gguf", Some("best-of-breed")),
            ("mod/-00001-of-00002.gguf", Some("-00001-of-00002")),
            ("org/M-00001-of-00002", Some("M-00001-of-00002")),
            ("org/M-GGUF:Q4_K_M", Some("M-GGUF:Q4_K_M")),
            ("org/M-GGUF:M-Q4_K_M-00001-of-00002.gguf", Some("M-Q4_K_M")),
            ("org/M-GGUF:BF16/M-BF16.gguf", Some("M-BF16")),
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
