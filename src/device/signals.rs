//! What signals do to the program.

/// Those that ask a process to end.
#[cfg(unix)]
const ENDING: [libc::c_int; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];

/// Ends the process as a closed pipe ends others (`kvprof … | head`), quietly. Rust has that signal ignored from the start, and it must
/// stay so while something is measured: messages go through pipes too (`2>&1 | tee`).
pub fn end_by_closed_pipe() -> ! {
    #[cfg(unix)]
    // SAFETY: the default action of one signal is set, which is to end the process, and the signal is raised.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        libc::raise(libc::SIGPIPE);
    }
    super::exit_at_once(1)
}

/// Lets a write past the limit on file sizes (`ulimit -f`) fail as one on a full disk does, instead of ending the process.
pub fn fail_where_a_file_grows_too_large() {
    #[cfg(unix)]
    // SAFETY: one signal is ignored, before any thread is started.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}

/// Calls `listen`, which sets handlers for the signals that ask a process to end, and has those ignored again that were ignored before:
/// `nohup` asks for that, and shells do for what they start in the background.
pub fn keep_ignored(listen: impl FnOnce()) {
    #[cfg(unix)]
    let ignored = ENDING.map(is_ignored);
    listen();
    #[cfg(unix)]
    for signal in ENDING.into_iter().zip(ignored).filter_map(|(signal, ignored)| ignored.then_some(signal)) {
        // SAFETY: a signal is ignored, as it was.
        unsafe {
            libc::signal(signal, libc::SIG_IGN);
        }
    }
}

#[cfg(unix)]
fn is_ignored(signal: libc::c_int) -> bool {
    // SAFETY: all zeros are a valid `sigaction`, and the call writes no more than one; without a new action it changes nothing.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &mut action) == 0 && action.sa_sigaction == libc::SIG_IGN
    }
}
