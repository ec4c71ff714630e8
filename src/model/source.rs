//! `--model`: which files it stands for.

use std::path::{Path, PathBuf};

use super::gguf_source;
use super::hub::{Found, Hub, HubRepo, commit_of};
use super::weights::gguf::names::is_gguf;
use super::weights::safetensors::indexed_files;
use crate::{Error, Result};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// Files that many repositories do not have.
const OPTIONAL: [&str; 4] =
    ["generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"];

/// The name of the model inside the program.
pub const BUILTIN: &str = "builtin";

/// What `--model` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelSource {
    /// A repository of the hub: `owner/name`, or `name`.
    Hub(String),
    /// A GGUF model in a repository of the hub: `owner/name:Q4_K_M`, or `owner/name:file.gguf`.
    HubGguf {
        /// Owner and name.
        id: String,
        /// What stands behind the colon: a file, or a quantization in capitals.
        wanted: String,
    },
    /// A folder with config.json and the rest.
    Folder(PathBuf),
    /// A GGUF file, or the only model in a folder without safetensors.
    Gguf(PathBuf),
    /// A config.json alone; only `--weights dummy` can load it.
    Config(PathBuf),
    /// The small model inside the program.
    Builtin,
}

impl ModelSource {
    /// Files and folders that exist win over hub ids.
    ///
    /// # Errors
    /// [`Error::Usage`] when it is a path to nothing, or cannot be a hub id.
    pub fn parse(model: &str) -> Result<Self> {
        if model == BUILTIN {
            return Ok(ModelSource::Builtin);
        }
        let path = Path::new(model);
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_lowercase();
        if path.is_dir() {
            let only = gguf_source::only_one_in(path);
            return Ok(only.map_or_else(|| ModelSource::Folder(path.into()), ModelSource::Gguf));
        }
        if path.is_file() {
            return match extension.as_str() {
                "gguf" => Ok(ModelSource::Gguf(path.into())),
                "json" => Ok(ModelSource::Config(path.into())),
                _ => Err(Error::file(path, "is not a model; give a folder, a .gguf file or a config.json")),
            };
        }
        let is_word = |part: &str| {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            !part.is_empty() && part.chars().all(plain) && !part.starts_with('.')
        };
        if let Some((id, wanted)) = model.split_once(':')
            && !wanted.is_empty()
            && id.split_once('/').is_some_and(|(owner, name)| is_word(owner) && is_word(name))
        {
            let wanted = if is_gguf(wanted) { wanted.to_owned() } else { wanted.to_uppercase() };
            return Ok(ModelSource::HubGguf { id: id.to_owned(), wanted });
        }
        let parts: Vec<&str> = model.split('/').collect();
        let looks_like_a_file = matches!(extension.as_str(), "gguf" | "json" | "safetensors");
        if parts.len() <= 2 && parts.iter().all(|p| is_word(p)) && !looks_like_a_file {
            return Ok(ModelSource::Hub(model.to_owned()));
        }
        if looks_like_a_file {
            return Err(Error::usage(format!("model {model}: no such file")));
        }
        Err(Error::usage(format!(
            "model {model}: no such file or folder, and not a hub id (owner/name, or owner/name:Q4_K_M of GGUF files); `builtin` is always \
             there"
        )))
    }

    /// `model` as results name it: a quantization of the hub's in capitals, however it was written, so that one model has one name.
    pub fn name_of(model: &str) -> String {
        match Self::parse(model) {
            Ok(ModelSource::HubGguf { id, wanted }) => format!("{id}:{wanted}"),
            _ => model.to_owned(),
        }
    }
}

/// The files of one model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModelFiles {
    /// config.json.
    pub config: PathBuf,
    /// generation_config.json, whose end tokens are more than config.json's.
    pub generation_config: Option<PathBuf>,
    /// Safetensors files; empty when they were not asked for.
    pub weights: Vec<PathBuf>,
    /// tokenizer.json.
    pub tokenizer: Option<PathBuf>,
    /// tokenizer_config.json.
    pub tokenizer_config: Option<PathBuf>,
    /// chat_template.jinja, where newer repositories keep it.
    pub chat_template: Option<PathBuf>,
    /// Commit of the hub.
    pub revision: Option<String>,
}

impl ModelFiles {
    /// The files of a folder; weights only if `with_weights`.
    ///
    /// # Errors
    /// When config.json or the weights are absent, or a listed part is.
    pub fn in_folder(folder: &Path, with_weights: bool) -> Result<Self> {
        let find = |file: &str| Ok(Some(folder.join(file)).filter(|path| path.is_file()));
        let ggufs = gguf_source::models_in(folder);
        let choose = || {
            let names: Vec<&str> = ggufs.iter().map(|model| model.listed.as_str()).collect();
            let (all, one) = (names.join(", "), folder.join(names.first().unwrap_or(&"")));
            format!("of its GGUF models ({all}) give one, as {}", one.display())
        };
        if find("config.json")?.is_none() {
            let advice =
                if ggufs.is_empty() { "give a folder as a model's repository has it".into() } else { choose() };
            return Err(Error::file(folder, format!("has no config.json; {advice}")));
        }
        if with_weights && !ggufs.is_empty() && !gguf_source::has_safetensors(folder) {
            return Err(Error::file(folder, format!("has no safetensors; {}", choose())));
        }
        Self::gather(&find, &|| folder.display().to_string(), with_weights)
    }

    /// config.json of a hub repository, downloaded as needed.
    ///
    /// # Errors
    /// As [`Hub::get`].
    pub fn config_on_hub(hub: &Hub, repo: &HubRepo) -> Result<PathBuf> {
        let found = hub.get(repo, "config.json");
        found.map_err(|error| gguf_source::only_ggufs(hub, repo).unwrap_or_else(|| no_folder_either(repo, error)))
    }

    /// The files of a hub repository, downloaded as needed, all of the commit that config.json is of, wherever its branch goes meanwhile.
    ///
    /// # Errors
    /// As [`Hub::get`], and when the repository has no safetensors weights.
    pub fn on_hub(hub: &Hub, repo: &HubRepo, with_weights: bool) -> Result<Self> {
        let config = Self::config_on_hub(hub, repo)?;
        let revision = commit_of(&config);
        let repo = revision.as_ref().map_or_else(|| repo.clone(), |commit| repo.at(commit));
        let find = |file: &str| {
            // The index is looked for first, since only it can tell that a cached model is in parts.
            if file == SINGLE && hub.cached(&repo, INDEX).is_some() {
                return Ok(None);
            }
            match hub.look(&repo, file)? {
                Found::Here(path) => Ok(Some(path)),
                Found::Absent => Ok(None),
                // A model that is in the cache must load without a network. Other tools do not note in it which of these the repository
                // lacks, but weights are fetched last, here, and are the last to be there elsewhere.
                Found::NoAnswer(error)
                    if OPTIONAL.contains(&file) && (!with_weights || weights_are_cached(hub, &repo)) =>
                {
                    tracing::warn!("{error}; going on without {file}");
                    Ok(None)
                }
                Found::NoAnswer(error) => Err(error),
            }
        };
        let files = Self::gather(&find, &|| repo.id().to_owned(), with_weights);
        let files = files.map_err(|error| match error {
            Error::Usage(_) => gguf_source::only_ggufs(hub, &repo).unwrap_or(error),
            other => other,
        })?;
        Ok(ModelFiles { revision, ..files })
    }

    fn gather(
        find: &dyn Fn(&str) -> Result<Option<PathBuf>>,
        place: &dyn Fn() -> String,
        with_weights: bool,
    ) -> Result<Self> {
        let need = |file: &str, why: &str| {
            find(file)?.ok_or_else(|| Error::usage(format!("{}: {file} is missing{why}", place())))
        };
        Ok(ModelFiles {
            config: need("config.json", "")?,
            generation_config: find("generation_config.json")?,
            tokenizer: find("tokenizer.json")?,
            tokenizer_config: find("tokenizer_config.json")?,
            chat_template: find("chat_template.jinja")?,
            // Last: where they are in the hub's cache, all else has been looked for.
            weights: if with_weights { weight_files(find, &need)? } else { Vec::new() },
            revision: None,
        })
    }
}

/// Whether the cache has all weights of a repository.
fn weights_are_cached(hub: &Hub, repo: &HubRepo) -> bool {
    let cached = |file: &str| Ok(hub.cached(repo, file));
    let need = |file: &str, _: &str| hub.cached(repo, file).ok_or_else(|| Error::usage(file));
    weight_files(&cached, &need).is_ok()
}

/// Says of a model that the hub did not give that there is no folder of that name, since one may have been meant.
fn no_folder_either(repo: &HubRepo, error: Error) -> Error {
    let told = |message| format!("there is no folder {} here, and {message}", repo.id());
    match error {
        Error::Usage(message) => Error::Usage(told(message)),
        Error::Hub(message) => Error::Hub(told(message)),
        other => other,
    }
}

fn weight_files(
    find: &dyn Fn(&str) -> Result<Option<PathBuf>>,
    need: &dyn Fn(&str, &str) -> Result<PathBuf>,
) -> Result<Vec<PathBuf>> {
    if let Some(single) = find(SINGLE)? {
        return Ok(vec![single]);
    }
    let index = need(INDEX, " and so is model.safetensors; only safetensors weights can be read (or a .gguf file)")?;
    let text = std::fs::read_to_string(&index).map_err(|e| Error::io(&index, e))?;
    let parts = indexed_files(&index, &text)?;
    parts.iter().map(|part| need(part, ", though the index lists it; fetch it")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hub_ids_are_told_from_paths() {
        assert_eq!(ModelSource::parse("gpt2").unwrap(), ModelSource::Hub("gpt2".into()));
        let id = "Qwen/Qwen2.5-0.5B";
        assert_eq!(ModelSource::parse(id).unwrap(), ModelSource::Hub(id.into()));
        assert_eq!(ModelSource::parse("builtin").unwrap(), ModelSource::Builtin);
        for file in ["typo.config.json", "owner/missing.gguf"] {
            let error = ModelSource::parse(file).unwrap_err().to_string();
            assert!(error.contains("no such file") && !error.contains("hub"), "{error}");
        }
        for (model, wanted) in [
            ("org/m-GGUF:q4_k_m", "Q4_K_M"),
            ("org/m-GGUF:m-q4_k_m.gguf", "m-q4_k_m.gguf"),
            ("org/m-GGUF:BF16/m-BF16.gguf", "BF16/m-BF16.gguf"),
        ] {
            let (id, wanted) = ("org/m-GGUF".to_owned(), wanted.to_owned());
            assert_eq!(ModelSource::parse(model).unwrap(), ModelSource::HubGguf { id, wanted });
        }
        for nowhere in ["org/m-GGUF:", "gpt2:Q4_K_M", "C:/models/m.gguf", "a/b/c:Q4_K_M", ":Q4_K_M"] {
            assert!(ModelSource::parse(nowhere).is_err_and(|error| error.is_usage()), "{nowhere}");
        }
        for nowhere in ["./nowhere", "a/b/c", "missing.gguf", "owner/missing.gguf", "", "../x", "a b"] {
            let error = ModelSource::parse(nowhere).unwrap_err();
            assert!(error.is_usage(), "{nowhere}: {error}");
        }
    }

    #[test]
    fn files_and_folders_are_told_by_what_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let parse = |path: &Path| ModelSource::parse(path.to_str().unwrap());
        assert_eq!(parse(folder.path()).unwrap(), ModelSource::Folder(folder.path().into()));
        for (name, wanted) in [("m.gguf", true), ("c.json", true), ("m.bin", false)] {
            let path = folder.path().join(name);
            std::fs::write(&path, "").unwrap();
            assert_eq!(parse(&path).is_ok(), wanted, "{name}");
        }
    }

    #[test]
    fn a_folder_without_weights_says_what_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        assert!(ModelFiles::in_folder(folder.path(), true).unwrap_err().to_string().contains("config.json"));
        let ggufs =
            ["b-00001-of-00002.gguf", "b-00002-of-00002.gguf", "a-of-a.gguf"].map(|name| folder.path().join(name));
        for path in &ggufs {
            std::fs::write(path, "").unwrap();
        }
        let told =
            format!("of its GGUF models (a-of-a.gguf, b-00001-of-00002.gguf) give one, as {}", ggufs[2].display());
        let error = ModelFiles::in_folder(folder.path(), true).unwrap_err().to_string();
        assert!(error.contains("config.json") && error.ends_with(&told), "{error}");
        std::fs::write(folder.path().join("config.json"), "{}").unwrap();
        let error = ModelFiles::in_folder(folder.path(), true).unwrap_err().to_string();
        assert!(error.contains("has no safetensors") && error.ends_with(&told), "{error}");
        assert!(ModelFiles::in_folder(folder.path(), false).is_ok(), "random weights need none");
        for path in &ggufs {
            std::fs::remove_file(path).unwrap();
        }
        let error = ModelFiles::in_folder(folder.path(), true).unwrap_err().to_string();
        assert!(error.contains("safetensors"), "{error}");
        assert!(ModelFiles::in_folder(folder.path(), false).is_ok());
        std::fs::write(folder.path().join(INDEX), r#"{"weight_map": {"a": "part-1.safetensors"}}"#).unwrap();
        let error = ModelFiles::in_folder(folder.path(), true).unwrap_err().to_string();
        assert!(error.contains("part-1.safetensors") && error.contains("index"), "{error}");
    }
}
