//! Downloads of files that hf-hub cannot fetch.
//!
//! It asks for one byte of a file and reads the file's length off `Content-Range`, while ureq says that gzip would do. What is sent compressed has no
//! ranges: the hub's CDN answers with the whole file and without that header (huggingface/hf-hub#141). Such files are JSON, and small; here they
//! are asked for whole and as they are, and kept where hf-hub and huggingface_hub keep them.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use hf_hub::CacheRepo;
use hf_hub::api::Progress;
use ureq::Agent;
use ureq::http::HeaderMap;

/// Redirects that are followed until it counts as going round in circles.
const MOST_REDIRECTS: usize = 10;

/// What asks the hub for whole files.
#[derive(Clone)]
pub(super) struct Whole {
    agent: Agent,
    token: Option<String>,
}

impl Whole {
    pub(super) fn new(token: Option<String>) -> Self {
        // Redirects are followed here: headers of the hub's own answer name commit and content, those of a CDN do not.
        let config = Agent::config_builder().accept_encoding("identity").max_redirects(0).build();
        Whole { agent: config.into(), token }
    }

    /// Fetches `file`, which is at `url`, into the cache of its repository.
    ///
    /// # Errors
    /// What went wrong, in words, with the status where the hub refuses.
    pub(super) fn fetch(
        &self,
        url: &str,
        cached: &CacheRepo,
        file: &str,
        mut signs: impl Progress,
    ) -> Result<PathBuf, String> {
        let (names, mut answer) = self.follow(url)?;
        let Names { commit, etag } = names;
        let total = answer.body().content_length();
        signs.init(total.unwrap_or(0) as usize, file);
        let (blob, link) = (cached.blob_path(&etag), cached.pointer_path(&commit).join(file));
        for path in [&blob, &link] {
            let folder = path.parent().unwrap_or(Path::new(""));
            fs::create_dir_all(folder).map_err(|e| io(folder, &e))?;
        }
        // Another process may fetch the same file; the last to finish puts the same content there.
        let unfinished = blob.with_extension(format!("{}.part", std::process::id()));
        let saved = save(answer.body_mut().as_reader(), &unfinished, &mut signs).and_then(|length| match total {
            Some(total) if total != length => Err(format!("request error: {length} of {total} bytes came")),
            _ => Ok(()),
        });
        if saved.is_err() {
            let _ = fs::remove_file(&unfinished);
        }
        saved?;
        fs::rename(&unfinished, &blob).map_err(|e| io(&blob, &e))?;
        point(&link, &blob, file).map_err(|e| io(&link, &e))?;
        cached.create_ref(&commit).map_err(|e| format!("I/O error {e}"))?;
        signs.finish();
        Ok(link)
    }

    /// The answer that has the file at `url`, and the names that the hub gives it.
    fn follow(&self, url: &str) -> Result<(Names, ureq::http::Response<ureq::Body>), String> {
        let (mut at, mut names) = (url.to_owned(), None);
        for _ in 0..MOST_REDIRECTS {
            let mut request = self.agent.get(&at);
            // Nobody but the hub may see the token.
            if let Some(token) = self.token.as_ref().filter(|_| origin(&at) == origin(url)) {
                request = request.header("Authorization", format!("Bearer {token}"));
            }
            let answer = request.call().map_err(|e| format!("request error: {e}"))?;
            if origin(&at) == origin(url) {
                names = Names::of(answer.headers()).or(names);
            }
            let Some(next) = answer.headers().get("Location").filter(|_| answer.status().is_redirection()) else {
                return match names {
                    Some(names) => Ok((names, answer)),
                    None => Err("the answer does not name the file's commit and content".into()),
                };
            };
            let next = next.to_str().map_err(|_| "a redirect that is not text")?;
            at = if next.starts_with('/') { format!("{}{next}", origin(&at)) } else { next.to_owned() };
        }
        Err("too many redirects".into())
    }
}

/// Writes what `reader` gives to `path`: the number of bytes.
fn save(mut reader: impl Read, path: &Path, signs: &mut impl Progress) -> Result<u64, String> {
    let mut file = File::create(path).map_err(|e| io(path, &e))?;
    let (mut buffer, mut length) = (vec![0; 1 << 16], 0);
    loop {
        let count = reader.read(&mut buffer).map_err(|e| format!("request error: {e}"))?;
        if count == 0 {
            return Ok(length);
        }
        file.write_all(&buffer[..count]).map_err(|e| io(path, &e))?;
        length += count as u64;
        signs.update(count);
    }
}

/// What the cache names a file after.
struct Names {
    commit: String,
    etag: String,
}

impl Names {
    /// `None` where `headers` have them not, or not as names of a folder and a file.
    fn of(headers: &HeaderMap) -> Option<Names> {
        let text = |name: &str| headers.get(name)?.to_str().ok();
        let plain = |name: &str| {
            let name = name.trim_start_matches("W/").trim_matches('"');
            let is_plain = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
            is_plain.then(|| name.to_owned())
        };
        let etag = text("X-Linked-Etag").or_else(|| text("ETag"))?;
        Some(Names { commit: plain(text("X-Repo-Commit")?)?, etag: plain(etag)? })
    }
}

/// Scheme, host and port of `url`.
fn origin(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + 3);
    url[host..].find('/').map_or(url, |end| &url[..host + end])
}

/// Makes `link` the place of `blob` in a snapshot, as `file` of it.
fn point(link: &Path, blob: &Path, file: &str) -> std::io::Result<()> {
    // One of an earlier download, which may lead nowhere.
    let _ = fs::remove_file(link);
    #[cfg(unix)]
    if let Some(name) = blob.file_name() {
        let up = "../".repeat(2 + file.matches('/').count());
        return std::os::unix::fs::symlink(Path::new(&up).join("blobs").join(name), link);
    }
    let _ = file;
    fs::copy(blob, link).map(drop)
}

fn io(path: &Path, error: &std::io::Error) -> String {
    format!("{}: {error}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_goes_to_the_hub_alone() {
        assert_eq!(origin("https://huggingface.co/gpt2/resolve/main/config.json"), "https://huggingface.co");
        assert_eq!(origin("http://127.0.0.1:80/a"), "http://127.0.0.1:80");
        assert_ne!(origin("https://huggingface.co.elsewhere.net/a"), origin("https://huggingface.co/a"));
        assert_eq!(origin("https://huggingface.co"), "https://huggingface.co");
    }

    #[test]
    fn names_that_would_lead_out_of_the_cache_are_refused() {
        let names = |commit: &str, etag: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("X-Repo-Commit", commit.parse().unwrap());
            headers.insert("ETag", etag.parse().unwrap());
            Names::of(&headers).map(|names| names.etag)
        };
        assert_eq!(names("abc", "\"0f1e\"").as_deref(), Some("0f1e"));
        assert_eq!(names("abc", "W/\"0f1e\"").as_deref(), Some("0f1e"));
        assert!(names("../abc", "\"0f1e\"").is_none() && names("abc", "\"../x\"").is_none());
    }
}
