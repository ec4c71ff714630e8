//! Files of the Hugging Face hub, through its cache: HF_HOME, HF_HUB_CACHE, HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE mean
//! what they mean to transformers.

use std::path::{Path, PathBuf};

use hf_hub::api::sync::{Api, ApiBuilder};
use hf_hub::{Cache, Repo, RepoType};
use indicatif::ProgressBar;

use super::answer;
use crate::{Error, Result};

/// A repository at a revision.
#[derive(Debug, Clone)]
pub struct HubRepo {
    kind: RepoType,
    id: String,
    revision: String,
}

impl HubRepo {
    /// A model, at `revision` or `main`.
    pub fn model(id: impl Into<String>, revision: Option<&str>) -> Self {
        HubRepo { kind: RepoType::Model, id: id.into(), revision: revision.unwrap_or("main").into() }
    }

    /// A data set, at `revision` or `main`.
    pub fn dataset(id: impl Into<String>, revision: Option<&str>) -> Self {
        HubRepo { kind: RepoType::Dataset, id: id.into(), revision: revision.unwrap_or("main").into() }
    }

    /// Owner and name.
    pub fn id(&self) -> &str {
        &self.id
    }

    fn repo(&self) -> Repo {
        Repo::with_revision(self.id.clone(), self.kind, self.revision.clone())
    }
}

/// The hub as the environment describes it.
pub struct Hub {
    cache: Cache,
    /// None when offline.
    api: Option<Api>,
    /// Whether downloads have bars.
    progress: bool,
}

impl Hub {
    /// Reads the environment; `progress` shows a bar for each download.
    ///
    /// # Errors
    /// When there is no place for the cache.
    pub fn from_env(progress: bool) -> Result<Self> {
        let cache = Cache::new(cache_folder()?);
        let offline = ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"].into_iter().any(is_on);
        if offline {
            return Ok(Hub { cache, api: None, progress });
        }
        let token = variable("HF_TOKEN").or_else(|| variable("HUGGING_FACE_HUB_TOKEN")).or_else(|| cache.token());
        let mut builder = ApiBuilder::from_cache(cache.clone()).with_retries(2).with_token(token);
        if let Some(endpoint) = variable("HF_ENDPOINT") {
            builder = builder.with_endpoint(endpoint.trim_end_matches('/').to_owned());
        }
        let api = builder.build().map_err(|e| Error::Hub(format!("the hub cannot be reached: {e}")))?;
        Ok(Hub { cache, api: Some(api), progress })
    }

    /// The file if the cache has it.
    pub fn cached(&self, repo: &HubRepo, file: &str) -> Option<PathBuf> {
        let cached = self.cache.repo(repo.repo());
        // A revision that is a commit has its snapshot under that name, with or without a ref.
        let by_commit = cached.pointer_path(&repo.revision).join(file);
        cached.get(file).or_else(|| by_commit.exists().then_some(by_commit))
    }

    /// Whether files may be downloaded.
    pub fn is_online(&self) -> bool {
        self.api.is_some()
    }

    /// Where the cache is.
    pub fn cache_folder(&self) -> &Path {
        self.cache.path()
    }

    /// Names of the repository's files, as the hub lists them at this revision.
    ///
    /// # Errors
    /// [`Error::Usage`] when offline, or there is no such repository, and as [`find`](Self::find).
    pub fn files(&self, repo: &HubRepo) -> Result<Vec<String>> {
        let Some(api) = &self.api else {
            return Err(Error::usage(format!("the files of {} cannot be listed: HF_HUB_OFFLINE is set", repo.id)));
        };
        let asked = api.repo(repo.repo());
        let info = answer::wait(&ProgressBar::hidden(), move |_| asked.info().map_err(|e| e.to_string()))?
            .map_err(|said| not_fetched(&repo.id, &said))?;
        Ok(info.siblings.into_iter().map(|file| file.rfilename).collect())
    }

    /// Names of the repository's files that the cache has at this revision; empty when it has none.
    ///
    /// # Errors
    /// When the cache's folder cannot be read.
    pub fn cached_files(&self, repo: &HubRepo) -> Result<Vec<String>> {
        let folder = self.cache.path().join(repo.repo().folder_name());
        let named = folder.join("refs").join(&repo.revision);
        let commit = std::fs::read_to_string(named).map_or_else(|_| repo.revision.clone(), |c| c.trim().to_owned());
        let snapshot = folder.join("snapshots").join(commit);
        if snapshot.is_dir() { names_below(&snapshot) } else { Ok(Vec::new()) }
    }

    /// The file, downloaded unless cached.
    ///
    /// # Errors
    /// [`Error::Usage`] when the repository or file is not there, and as [`find`](Self::find).
    pub fn get(&self, repo: &HubRepo, file: &str) -> Result<PathBuf> {
        self.find(repo, file)?.ok_or_else(|| {
            let HubRepo { id, revision, .. } = repo;
            Error::usage(match self.api {
                Some(_) => format!("{id} at revision {revision} is not on the hub, or has no {file}"),
                None => format!(
                    "{file} of {id} is not in the cache at {}, and HF_HUB_OFFLINE forbids a download",
                    self.cache.path().display()
                ),
            })
        })
    }

    /// The file, downloaded unless cached; `None` when the repository does not have it (or, offline, the cache).
    ///
    /// # Errors
    /// [`Error::Usage`] when access is refused, [`Error::Hub`] when the hub cannot be reached, [`Error::Interrupted`] after Ctrl-C.
    pub fn find(&self, repo: &HubRepo, file: &str) -> Result<Option<PathBuf>> {
        if let Some(path) = self.cached(repo, file) {
            return Ok(Some(path));
        }
        let Some(api) = &self.api else { return Ok(None) };
        let (asked, name) = (api.repo(repo.repo()), file.to_owned());
        let bar = if self.progress { ProgressBar::new(0) } else { ProgressBar::hidden() };
        let download = move |signs| asked.download_with_progress(&name, signs).map_err(|e| e.to_string());
        match answer::wait(&bar, download)? {
            Ok(path) => Ok(Some(path)),
            Err(said) if said.contains("status: 404") => Ok(None),
            Err(said) => Err(not_fetched(&format!("{file} of {}", repo.id), &said)),
        }
    }
}

/// Why `what` was not fetched, from what the hub or the network said: a request that the hub refuses, or one that it did not answer.
fn not_fetched(what: &str, said: &str) -> Error {
    let told = |advice: &str| format!("{what} cannot be fetched from the hub ({said}); {advice}");
    if ["401", "403", "404"].iter().any(|status| said.contains(&format!("status: {status}"))) {
        return Error::Usage(told("the repository is private, gated or misspelt: accept its terms and set HF_TOKEN"));
    }
    Error::Hub(told("check the network, HF_ENDPOINT, or set HF_HUB_OFFLINE=1 to use the cache only"))
}

/// The commit a cached file belongs to: the folder below `snapshots` in its path.
pub fn commit_of(cached: &Path) -> Option<String> {
    let mut parts = cached.iter().map(|p| p.to_string_lossy()).skip_while(|p| p != "snapshots");
    parts.next()?;
    parts.next().map(|commit| commit.into_owned())
}

/// Paths of the files below `folder`, relative to it, with `/` between names; hidden folders are left out.
///
/// # Errors
/// When a folder cannot be read.
pub fn names_below(folder: &Path) -> Result<Vec<String>> {
    /// Deep enough for any repository; ends at a loop of links.
    const DEEPEST: usize = 6;
    fn walk(folder: &Path, depth: usize, names: &mut Vec<String>, prefix: &str) -> Result<()> {
        for entry in std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
            let entry = entry.map_err(|e| Error::io(folder, e))?;
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            if !entry.path().is_dir() {
                names.push(name);
            } else if depth < DEEPEST && !entry.file_name().to_string_lossy().starts_with('.') {
                walk(&entry.path(), depth + 1, names, &format!("{name}/"))?;
            }
        }
        Ok(())
    }
    let mut names = Vec::new();
    walk(folder, 0, &mut names, "")?;
    Ok(names)
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|v| !v.trim().is_empty())
}

fn is_on(name: &str) -> bool {
    variable(name).is_some_and(|v| matches!(v.to_lowercase().as_str(), "1" | "on" | "yes" | "true"))
}

fn cache_folder() -> Result<PathBuf> {
    if let Some(cache) = variable("HF_HUB_CACHE") {
        return Ok(cache.into());
    }
    if let Some(home) = variable("HF_HOME") {
        return Ok(Path::new(&home).join("hub"));
    }
    let home = variable("HOME").or_else(|| variable("USERPROFILE"));
    let home = home.ok_or_else(|| Error::usage("there is no home folder for the hub's cache; set HF_HOME"))?;
    Ok(Path::new(&home).join(".cache/huggingface/hub"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commit_is_read_off_a_cached_path() {
        let path = Path::new("/h/hub/models--a--b/snapshots/abc123/sub/config.json");
        assert_eq!(commit_of(path).as_deref(), Some("abc123"));
        assert_eq!(commit_of(Path::new("/models/config.json")), None);
    }
}
