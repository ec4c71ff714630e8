//! A Hugging Face hub on the loopback interface: serves folders as repositories, in the subset of the protocol that
//! downloads use (resolve with byte ranges, ETag and commit; revision lookup). As huggingface.co does, it redirects to JSON files on the same host,
//! and sends them whole, whatever range was asked for, to who accepts gzip.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use tiny_http::{Header, Request, Response, Server};

/// The commit that all repositories are at.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// One request that reached the hub.
#[derive(Debug, Clone)]
pub struct Seen {
    pub path: String,
    pub authorization: Option<String>,
}

/// Where connections are accepted and nothing is ever answered, as behind a firewall that drops packets: HF_ENDPOINT, and the listener
/// that must live as long.
pub fn silent_hub() -> (String, std::net::TcpListener) {
    // The system accepts connections up to a backlog that no test fills.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    (format!("http://{}", listener.local_addr().expect("an address")), listener)
}

/// Gives `command` this environment, and nothing else of a hub.
pub fn in_environment<'a>(command: &'a mut Command, home: &Path, environment: &[(&str, &str)]) -> &'a mut Command {
    for name in ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH"] {
        command.env_remove(name);
    }
    for name in ["HF_ENDPOINT", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"] {
        command.env_remove(name);
    }
    for name in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        command.env_remove(name);
    }
    command.env("KVPROF_TEST_CHILD", "1").env("HF_HOME", home).envs(environment.iter().copied())
}

/// Runs the ignored test `child` of this program in such an environment.
pub fn run_child(child: &str, home: &Path, environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", child, "--ignored", "--nocapture"]);
    in_environment(&mut command, home, environment).output().unwrap()
}

pub fn assert_passed(output: &Output) {
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

/// A running hub; it stops when dropped.
pub struct LoopbackHub {
    server: Arc<Server>,
    seen: Arc<Mutex<Vec<Seen>>>,
    thread: Option<JoinHandle<()>>,
}

impl LoopbackHub {
    /// Serves `repositories`: a model's id, or `datasets/` and a data set's id, and the folder of its files.
    pub fn serving(repositories: &[(&str, PathBuf)]) -> Self {
        Self::start(repositories, None)
    }

    /// Answers all requests for files whose name ends so with 503, and serves the others.
    pub fn out_of_order_for(ending: &'static str, repositories: &[(&str, PathBuf)]) -> Self {
        Self::start(repositories, Some(ending))
    }

    fn start(repositories: &[(&str, PathBuf)], broken: Option<&'static str>) -> Self {
        let server = Arc::new(Server::http("127.0.0.1:0").expect("a free port"));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let repositories: HashMap<String, PathBuf> =
            repositories.iter().map(|(id, folder)| ((*id).to_owned(), folder.clone())).collect();
        let thread = std::thread::spawn({
            let (server, seen) = (Arc::clone(&server), Arc::clone(&seen));
            move || {
                for request in server.incoming_requests() {
                    seen.lock().unwrap().push(Seen {
                        path: request.url().to_owned(),
                        authorization: header_of(&request, "Authorization"),
                    });
                    if broken.is_some_and(|ending| request.url().ends_with(ending)) {
                        drop(request.respond(Response::from_string("Service Unavailable").with_status_code(503)));
                    } else {
                        answer(&repositories, request);
                    }
                }
            }
        });
        LoopbackHub { server, seen, thread: Some(thread) }
    }

    /// What HF_ENDPOINT must be.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.server.server_addr())
    }

    /// All requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for LoopbackHub {
    fn drop(&mut self) {
        self.server.unblock();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn header_of(request: &Request, name: &'static str) -> Option<String> {
    request.headers().iter().find(|h| h.field.equiv(name)).map(|h| h.value.to_string())
}

fn header(name: &str, value: &str) -> Header {
    Header::from_bytes(name, value).expect("a header")
}

fn answer(repositories: &HashMap<String, PathBuf>, request: Request) {
    let path = request.url().split('?').next().unwrap_or_default().trim_start_matches('/').to_owned();
    let direct = path.strip_prefix("api/resolve-cache/");
    let sent = match file_of(repositories, direct.unwrap_or(&path)) {
        Some(file) if direct.is_none() && file.extension().is_some_and(|e| e == "json") => {
            let elsewhere = header("Location", &format!("/api/resolve-cache/{path}"));
            request.respond(Response::from_string("Temporary Redirect").with_status_code(307).with_header(elsewhere))
        }
        Some(file) => {
            let content = std::fs::read(file).expect("a served file");
            let compressible =
                direct.is_some() && header_of(&request, "Accept-Encoding").is_some_and(|e| e.contains("gzip"));
            let range = header_of(&request, "Range").filter(|_| !compressible);
            request.respond(part_of(&content, range.as_deref()))
        }
        None => match revision_of(repositories, &path) {
            Some(info) => request.respond(Response::from_string(info)),
            None => request.respond(Response::from_string("Entry not found").with_status_code(404)),
        },
    };
    // A client that went away is its own affair.
    drop(sent);
}

/// `{repository}/resolve/{revision}/{file}`.
fn file_of(repositories: &HashMap<String, PathBuf>, path: &str) -> Option<PathBuf> {
    let (repository, rest) = path.split_once("/resolve/")?;
    let (_revision, file) = rest.split_once('/')?;
    let file = repositories.get(repository)?.join(file);
    file.is_file().then_some(file)
}

/// `api/models/{repository}/revision/{revision}`: the commit and the files.
fn revision_of(repositories: &HashMap<String, PathBuf>, path: &str) -> Option<String> {
    let path = path.strip_prefix("api/")?;
    let (repository, _revision) = path.strip_prefix("models/").unwrap_or(path).split_once("/revision/")?;
    let files = kvprof::model::hub::names_below(repositories.get(repository)?).ok()?;
    let siblings: Vec<_> = files.iter().map(|name| serde_json::json!({ "rfilename": name })).collect();
    Some(serde_json::json!({ "sha": COMMIT, "siblings": siblings }).to_string())
}

fn part_of(content: &[u8], range: Option<&str>) -> Response<std::io::Cursor<Vec<u8>>> {
    let total = content.len();
    let bounds = range.and_then(|r| r.strip_prefix("bytes=")?.split_once('-'));
    let (first, end) = match bounds {
        Some((first, last)) => {
            let first: usize = first.parse().unwrap_or(0);
            (first.min(total), last.parse().map_or(total, |last: usize| (last + 1).min(total)))
        }
        None => (0, total),
    };
    // Any name for the content will do that changes with it.
    let etag = content.iter().fold(total as u64, |hash, &byte| hash.wrapping_mul(31).wrapping_add(u64::from(byte)));
    let response = Response::from_data(&content[first..end])
        .with_status_code(if bounds.is_some() { 206 } else { 200 })
        .with_header(header("ETag", &format!("\"{etag:016x}\"")))
        .with_header(header("X-Repo-Commit", COMMIT))
        .with_header(header("Accept-Ranges", "bytes"));
    match bounds {
        Some(_) => {
            response.with_header(header("Content-Range", &format!("bytes {first}-{}/{total}", end.saturating_sub(1))))
        }
        None => response,
    }
}
