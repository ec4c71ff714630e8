//! Files of the Hugging Face hub, through its cache: HF_HOME, HF_HUB_CACHE, XDG_CACHE_HOME, HF_ENDPOINT, HF_TOKEN, HF_TOKEN_PATH and HF_HUB_OFFLINE
//! mean what they mean to transformers.

use std::path::{Path, PathBuf};

use hf_hub::api::sync::{Api, ApiBuilder, ApiError};
use hf_hub::{Cache, Repo, RepoType};
use indicatif::ProgressBar;

use super::answer::{self, Signs};
use super::download::Whole;
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

    /// The same repository at `commit`.
    pub fn at(&self, commit: impl Into<String>) -> Self {
        HubRepo { revision: commit.into(), ..self.clone() }
    }

    fn repo(&self) -> Repo {
        Repo::with_revision(self.id.clone(), self.kind, self.revision.clone())
    }
}

/// What came of looking for a file.
#[derive(Debug)]
pub enum Found {
    /// It is in the cache.
    Here(PathBuf),
    /// The repository does not have it, or, offline, the cache.
    Absent,
    /// It is not in the cache, and the hub does not answer, in words for the user.
    NoAnswer(Error),
}

/// The hub as the environment describes it.
pub struct Hub {
    cache: Cache,
    /// None when offline.
    api: Option<Api>,
    /// For files that `api` cannot fetch.
    whole: Whole,
    /// Whether downloads have bars.
    progress: bool,
}

impl Hub {
    /// Reads the environment; `progress` shows a bar for each download.
    ///
    /// # Errors
    /// When there is no place for the cache.
    pub fn from_env(progress: bool) -> Result<Self> {
        let cache = Cache::new(cache_folder(variable)?);
        let token = token(variable);
        let whole = Whole::new(token.clone());
        let offline = ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"].into_iter().any(is_on);
        if offline {
            return Ok(Hub { cache, api: None, whole, progress });
        }
        let mut builder = ApiBuilder::from_cache(cache.clone()).with_retries(2).with_token(token);
        if let Some(endpoint) = variable("HF_ENDPOINT") {
            builder = builder.with_endpoint(endpoint.trim_end_matches('/').to_owned());
        }
        let api = builder.build().map_err(|e| Error::Hub(format!("the hub cannot be reached: {e}")))?;
        Ok(Hub { cache, api: Some(api), whole, progress })
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
        match self.look(repo, file)? {
            Found::Here(path) => Ok(Some(path)),
            Found::Absent => Ok(None),
            Found::NoAnswer(error) => Err(error),
        }
    }

    /// Looks for the file as [`find`](Self::find) does; that the hub does not answer is no error. That a commit does not have a file is kept in the
    /// cache as huggingface_hub keeps it, and not asked again.
    ///
    /// # Errors
    /// As [`find`](Self::find), where the hub answers.
    pub fn look(&self, repo: &HubRepo, file: &str) -> Result<Found> {
        if let Some(path) = self.cached(repo, file) {
            return Ok(Found::Here(path));
        }
        let absence = self.absence(repo, file);
        let known_absent = absence.as_ref().is_some_and(|path| path.is_file());
        let Some(api) = self.api.as_ref().filter(|_| !known_absent) else { return Ok(Found::Absent) };
        let (asked, name) = (api.repo(repo.repo()), file.to_owned());
        let (whole, cached) = (self.whole.clone(), self.cache.repo(repo.repo()));
        let bar = if self.progress { ProgressBar::new(0) } else { ProgressBar::hidden() };
        let download = move |signs: Signs| match asked.download_with_progress(&name, signs.clone()) {
            Err(ApiError::MissingHeader("Content-Range")) => whole.fetch(&asked.url(&name), &cached, &name, signs),
            done => done.map_err(|e| e.to_string()),
        };
        let said = match answer::wait(&bar, download)? {
            Ok(path) => return Ok(Found::Here(path)),
            Err(said) => said,
        };
        let error = not_fetched(&format!("{file} of {}", repo.id), &said);
        match status(&said) {
            Some(404) => {
                if let Some(path) = absence {
                    // Where it cannot be kept, it is asked again.
                    let folder = path.parent().unwrap_or(Path::new(""));
                    let _ = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&path, ""));
                }
                Ok(Found::Absent)
            }
            None if said.contains(answer::NO_ANSWER) || said.contains("request error") => Ok(Found::NoAnswer(error)),
            _ => Err(error),
        }
    }

    /// What says in the cache that a commit does not have `file`; `None` where `repo` is at a branch, or at a commit of which there is nothing.
    fn absence(&self, repo: &HubRepo, file: &str) -> Option<PathBuf> {
        let known = self.cache.repo(repo.repo()).pointer_path(&repo.revision).is_dir();
        let folder = self.cache.path().join(repo.repo().folder_name());
        known.then(|| folder.join(".no_exist").join(&repo.revision).join(file))
    }
}

/// Why `what` was not fetched, from what the hub or the network said: a request that the hub refuses, or one that it did not answer.
fn not_fetched(what: &str, said: &str) -> Error {
    let told = |advice: &str| format!("{what} cannot be fetched from the hub ({said}); {advice}");
    if matches!(status(said), Some(401 | 403 | 404)) {
        return Error::Usage(told(
            "the repository is private, gated or misspelt: accept its terms and set HF_TOKEN, or set HF_HUB_OFFLINE=1 to use the cache only",
        ));
    }
    Error::Hub(told("check the network, HF_ENDPOINT, or set HF_HUB_OFFLINE=1 to use the cache only"))
}

/// The status with which the hub refused, if that is what was `said`.
fn status(said: &str) -> Option<u16> {
    said.split("status: ").nth(1)?.get(..3)?.parse().ok()
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

/// Where the hub's clients keep what they know, as `variable` says (`constants.py` of huggingface_hub).
fn home_folder(variable: impl Fn(&str) -> Option<String>) -> Result<PathBuf> {
    if let Some(home) = variable("HF_HOME") {
        return Ok(home.into());
    }
    if let Some(caches) = variable("XDG_CACHE_HOME") {
        return Ok(Path::new(&caches).join("huggingface"));
    }
    let home = variable("HOME").or_else(|| variable("USERPROFILE"));
    let home = home.ok_or_else(|| Error::usage("there is no home folder for the hub's cache; set HF_HOME"))?;
    Ok(Path::new(&home).join(".cache/huggingface"))
}

fn cache_folder(variable: impl Fn(&str) -> Option<String>) -> Result<PathBuf> {
    match variable("HF_HUB_CACHE").or_else(|| variable("HUGGINGFACE_HUB_CACHE")) {
        Some(cache) => Ok(cache.into()),
        None => Ok(home_folder(variable)?.join("hub")),
    }
}

/// The user's token: one that is set, else the one that `hf auth login` wrote.
fn token(variable: impl Fn(&str) -> Option<String>) -> Option<String> {
    if let Some(token) = variable("HF_TOKEN").or_else(|| variable("HUGGING_FACE_HUB_TOKEN")) {
        return Some(token);
    }
    let path =
        variable("HF_TOKEN_PATH").map(PathBuf::from).or_else(|| Some(home_folder(&variable).ok()?.join("token")));
    let token = std::fs::read_to_string(path?).ok()?.trim().to_owned();
    (!token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_and_token_are_where_huggingface_hub_has_them() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        for (place, token) in
            [("home", "of-home"), ("xdg/huggingface", "of-xdg"), ("user/.cache/huggingface", "of-user")]
        {
            std::fs::create_dir_all(at(place)).unwrap();
            std::fs::write(Path::new(&at(place)).join("token"), format!("{token}\n")).unwrap();
        }
        std::fs::write(at("token-file"), "of-path").unwrap();
        let of = |set: &[(&str, String)]| {
            let variable = |name: &str| set.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone());
            (cache_folder(variable).unwrap().to_str().unwrap().to_owned(), token(variable).unwrap_or_default())
        };
        let mut set = vec![("HOME", at("user"))];
        let mut add = |name: &'static str, value: String| {
            set.push((name, value));
            of(&set)
        };
        assert_eq!(add("OTHER", String::new()), (at("user/.cache/huggingface/hub"), "of-user".into()));
        assert_eq!(add("XDG_CACHE_HOME", at("xdg")), (at("xdg/huggingface/hub"), "of-xdg".into()));
        assert_eq!(add("HF_HOME", at("home")), (at("home/hub"), "of-home".into()));
        // A cache elsewhere leaves the token where it is.
        assert_eq!(add("HUGGINGFACE_HUB_CACHE", at("old")), (at("old"), "of-home".into()));
        assert_eq!(add("HF_HUB_CACHE", at("cache")), (at("cache"), "of-home".into()));
        assert_eq!(add("HF_TOKEN_PATH", at("token-file")).1, "of-path");
        assert_eq!(add("HF_TOKEN", "set".into()).1, "set");
    }

    #[test]
    fn the_commit_is_read_off_a_cached_path() {
        let path = Path::new("/h/hub/models--a--b/snapshots/abc123/sub/config.json");
        assert_eq!(commit_of(path).as_deref(), Some("abc123"));
        assert_eq!(commit_of(Path::new("/models/config.json")), None);
    }
}
