//! Waiting for the hub. The client that speaks to it has no time limits: where a firewall drops packets, it would wait for ever.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use hf_hub::api::Progress;
use indicatif::ProgressBar;

use crate::base::interrupt;
use crate::{Error, Result};

/// How long the hub may take to answer until it counts as silent.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a download may stand still. One that goes on takes as long as it takes.
const STANDSTILL: Duration = Duration::from_secs(60);

/// How long a silent hub is not asked again: a model has several files that are looked for, and a sweep several models.
const REST: Duration = Duration::from_secs(60);

/// How it begins to be said that the hub is silent.
pub const NO_ANSWER: &str = "no answer within";

/// How often it is looked whether the user pressed Ctrl-C.
const LOOK: Duration = Duration::from_millis(50);

/// When the hub was found silent, and how long it had been waited for.
static SILENT: Mutex<Option<(Instant, Duration)>> = Mutex::new(None);

/// What a download tells while it goes on: that the hub is there, and on a bar how far it is.
#[derive(Clone)]
pub struct Signs {
    heard: Arc<AtomicBool>,
    bar: ProgressBar,
}

impl Signs {
    fn hear(&mut self) -> &mut ProgressBar {
        self.heard.store(true, Ordering::Relaxed);
        &mut self.bar
    }
}

impl Progress for Signs {
    fn init(&mut self, size: usize, file: &str) {
        self.hear().init(size, file);
    }

    fn update(&mut self, size: usize) {
        self.hear().update(size);
    }

    fn finish(&mut self) {
        Progress::finish(self.hear());
    }
}

/// What comes of `request`, or in words why nothing does. It runs in a thread of its own, which goes on where it is not waited for any
/// longer, since the client cannot be stopped.
///
/// # Errors
/// [`Error::Interrupted`] once the user has pressed Ctrl-C.
pub fn wait<T: Send + 'static>(
    bar: &ProgressBar,
    request: impl FnOnce(Signs) -> Result<T, String> + Send + 'static,
) -> Result<Result<T, String>> {
    let silent = || SILENT.lock().unwrap_or_else(PoisonError::into_inner);
    let no_answer = |limit: Duration| format!("{NO_ANSWER} {} s", limit.as_secs());
    if let Some((_, limit)) = silent().filter(|(since, _)| since.elapsed() < REST) {
        return Ok(Err(format!("{} a moment ago", no_answer(limit))));
    }
    let heard = Arc::new(AtomicBool::new(false));
    let signs = Signs { heard: Arc::clone(&heard), bar: bar.clone() };
    let (answer, answers) = sync_channel(1);
    thread::spawn(move || {
        // Where nobody waits any longer, nobody misses it.
        let _ = answer.send(request(signs));
    });
    let (mut last, mut limit) = (Instant::now(), PATIENCE);
    loop {
        if interrupt::requested() {
            bar.finish_and_clear();
            return Err(Error::Interrupted);
        }
        match answers.recv_timeout(LOOK) {
            Ok(answer) => return Ok(answer),
            Err(RecvTimeoutError::Disconnected) => return Ok(Err("the client failed".into())),
            Err(RecvTimeoutError::Timeout) => {}
        }
        if heard.swap(false, Ordering::Relaxed) {
            (last, limit) = (Instant::now(), STANDSTILL);
        }
        if last.elapsed() > limit {
            bar.finish_and_clear();
            *silent() = Some((Instant::now(), limit));
            return Ok(Err(no_answer(limit)));
        }
    }
}
