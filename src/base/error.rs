//! The library's error type. The command line turns it into one line and an exit code.

use std::path::{Path, PathBuf};

/// A result whose error is kvprof's own.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong, told so that a person knows what was wrong, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request itself is wrong (an unknown name, an impossible mixture): exit code 2.
    #[error("{0}")]
    Usage(String),
    /// The operating system refused something about a file.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A file was read and its content is not what it should be.
    #[error("{}: {message}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        message: String,
    },
    /// The hub could not be reached, or did not give what it has: nothing is wrong with the request.
    #[error("{0}")]
    Hub(String),
    /// An allocation did not fit: a result row of its own, after which a sweep goes on.
    #[error("out of memory: {0}")]
    OutOfMemory(String),
    /// A number that must be finite is not; the message names layer and position.
    #[error("{0}")]
    NotFinite(String),
    /// A measurement broke one of its own rules (docs: the rule); the number is withheld.
    #[error("{0}")]
    Invalid(String),
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupted,
    /// The tensor library failed.
    #[error("{}", without_backtrace(&.0.to_string()))]
    Tensor(candle_core::Error),
}

impl Error {
    /// A request that cannot be met as written.
    pub fn usage(message: impl Into<String>) -> Self {
        Error::Usage(message.into())
    }

    /// A system error about `path`.
    pub fn io(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Error::Io { path: path.as_ref().to_path_buf(), source }
    }

    /// Wrong content in `path`.
    pub fn file(path: impl AsRef<Path>, message: impl Into<String>) -> Self {
        Error::File { path: path.as_ref().to_path_buf(), message: message.into() }
    }

    /// Whether a file could not be written because there is no room for it: whatever comes next could not be written either.
    pub fn is_out_of_space(&self) -> bool {
        use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        matches!(self, Error::Io { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded | FileTooLarge))
    }

    /// Whether the fault lies in what was asked for or given (exit code 2), not in the doing of it.
    pub fn is_usage(&self) -> bool {
        matches!(self, Error::Usage(_) | Error::Io { .. } | Error::File { .. }) && !self.is_out_of_space()
    }
}

impl From<candle_core::Error> for Error {
    /// Out-of-memory answers of the CUDA driver and allocator become [`Error::OutOfMemory`].
    fn from(error: candle_core::Error) -> Self {
        let text = error.to_string();
        if text.contains("OUT_OF_MEMORY") || text.contains("out of memory") {
            Error::OutOfMemory(without_backtrace(&text).into())
        } else {
            Error::Tensor(error)
        }
    }
}

/// What candle says of an error, without the stack that it appends where RUST_BACKTRACE is set: a message is for people.
fn without_backtrace(text: &str) -> &str {
    let stack = text.match_indices('\n').find(|(at, _)| text[at + 1..].trim_start().starts_with("0: "));
    stack.map_or(text, |(at, _)| &text[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_no_stack_whatever_the_environment_asks_for() {
        let told = candle_core::Error::Msg("no such tensor\nof this name".into()).bt();
        assert_eq!(Error::from(told).to_string(), "no such tensor\nof this name");
        let stack = "out of memory\n   0: <unknown>\n             at ./csu/libc-start.c:360:3\n";
        assert_eq!(without_backtrace(stack), "out of memory");
    }
}
