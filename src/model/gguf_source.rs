//! Where GGUF models are: in a folder, or in a repository of the hub.

use std::path::{Path, PathBuf};

use super::hub::{Hub, HubRepo, commit_of};
use super::weights::gguf::names::{self, Listed};
use crate::{Error, Result};

/// A GGUF model in files that are here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GgufFiles {
    /// Its file; of one in parts any of them, beside which the others are.
    pub(super) path: PathBuf,
    /// Commit of the hub.
    pub(super) revision: Option<String>,
    /// Its file in the repository, of one in parts the first, where it is of the hub: a commit has many.
    pub(super) name: Option<String>,
}

impl GgufFiles {
    /// A file that was named.
    pub(super) fn at(path: PathBuf) -> Self {
        GgufFiles { path, revision: None, name: None }
    }

    /// The model of a hub repository that `wanted` names (see [`names::named`]), downloaded as needed, all of its parts of one commit.
    ///
    /// # Errors
    /// [`Error::Usage`] when there is none, with those that there are, or several, and as [`Hub::get`].
    pub(super) fn on_hub(hub: &Hub, repo: &HubRepo, wanted: &str) -> Result<Self> {
        let model = listed_on_hub(hub, repo, wanted)?;
        let path = hub.get(repo, &model.first)?;
        let revision = commit_of(&path);
        let repo = revision.as_ref().map_or_else(|| repo.clone(), |commit| repo.at(commit));
        model.files().iter().try_for_each(|file| hub.get(&repo, file).map(drop))?;
        Ok(GgufFiles { path, revision, name: Some(model.first) })
    }
}

/// The model that `wanted` names among those that the hub lists; among those of the cache where the hub is not to be asked or does not answer,
/// since a model that is in the cache must load without a network.
fn listed_on_hub(hub: &Hub, repo: &HubRepo, wanted: &str) -> Result<Listed> {
    let in_cache = || {
        let place = format!("{} in the cache at {}", repo.id(), hub.cache_folder().display());
        the_one(&names::models(&hub.cached_files(repo)?), wanted, repo, &place)
    };
    if !hub.is_online() {
        let told = |message| Error::Usage(format!("{message}. HF_HUB_OFFLINE forbids a download"));
        return in_cache().map_err(|error| match error {
            Error::Usage(message) => told(message),
            other => other,
        });
    }
    match hub.files(repo) {
        Ok(files) => match names::models(&files) {
            none if none.is_empty() => {
                let id = repo.id();
                Err(Error::usage(format!("{id} has no GGUF models; give {id} to load safetensors")))
            }
            models => the_one(&models, wanted, repo, repo.id()),
        },
        Err(Error::Interrupted) => Err(Error::Interrupted),
        Err(error) => {
            let Ok(model) = in_cache() else { return Err(error) };
            tracing::warn!("{error}; going on with {} of the cache", model.first);
            Ok(model)
        }
    }
}

/// The one of `models`, those of `repo` at a `place`, that `wanted` names.
fn the_one(models: &[Listed], wanted: &str, repo: &HubRepo, place: &str) -> Result<Listed> {
    let mut named = names::named(models, wanted);
    match named.as_slice() {
        [_] => Ok(named.remove(0)),
        [] if models.is_empty() => Err(Error::usage(format!("{place} has no GGUF models"))),
        [] => Err(Error::usage(format!("{place} has no GGUF model {wanted}; {}", there_are(models, repo)))),
        several => {
            let files: Vec<&str> = several.iter().map(|model| model.first.as_str()).collect();
            Err(Error::usage(format!(
                "{place} has several GGUF models {wanted}: {}; give one, as {}:{}",
                files.join(", "),
                repo.id(),
                files[0]
            )))
        }
    }
}

/// Which `models` there are, and how one of them is named.
fn there_are(models: &[Listed], repo: &HubRepo) -> String {
    let choices = names::choices(models);
    format!("there are {}: give one, as {}:{}", choices.join(", "), repo.id(), choices[0])
}

/// Says of a repository that has GGUF models and no safetensors which there are; `None` of any other, and where that cannot be told.
pub(super) fn only_ggufs(hub: &Hub, repo: &HubRepo) -> Option<Error> {
    let files = if hub.is_online() { hub.files(repo) } else { hub.cached_files(repo) }.ok()?;
    let models = names::models(&files);
    let others = files.iter().any(|file| is_safetensors(file));
    let told = || format!("{} has no safetensors but GGUF models; {}", repo.id(), there_are(&models, repo));
    (!models.is_empty() && !others).then(|| Error::Usage(told()))
}

/// The GGUF models in `folder`.
pub(super) fn models_in(folder: &Path) -> Vec<Listed> {
    names::models(&names_in(folder))
}

/// The file of the only GGUF model in a folder that has no safetensors.
pub(super) fn only_one_in(folder: &Path) -> Option<PathBuf> {
    match models_in(folder).as_slice() {
        [one] if !has_safetensors(folder) => Some(folder.join(&one.listed)),
        _ => None,
    }
}

/// Whether `folder` has safetensors, or a list of them.
pub(super) fn has_safetensors(folder: &Path) -> bool {
    names_in(folder).iter().any(|name| is_safetensors(name))
}

fn is_safetensors(name: &str) -> bool {
    name.ends_with(".safetensors") || name.ends_with(".safetensors.index.json")
}

/// Names of the files in `folder`; none where it cannot be read, of which whoever reads a file of it is told.
fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let files = entries.filter(|entry| entry.path().is_file());
    files.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}
