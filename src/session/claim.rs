//! One process for each run: an advisory lock in the output folder, so that processes that share a folder do not do the
//! same work, or overwrite each other.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// A claim on a run; given up when dropped, or when the process ends in whatever way.
pub struct Claim {
    file: File,
    path: PathBuf,
}

impl Claim {
    /// Claims the run of the given hash in `folder`; `None` while another process has it.
    ///
    /// # Errors
    /// When the folder cannot be written to.
    pub fn take(folder: &Path, hash: &str) -> Result<Option<Self>> {
        let path = folder.join(format!(".kvprof-{hash}.lock"));
        loop {
            let file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path)
                .map_err(|e| Error::io(&path, e))?;
            match file.try_lock() {
                Ok(()) if names(&path, &file) => return Ok(Some(Claim { file, path })),
                // Its holder removed it between our opening and our locking it: what we hold is no longer in the folder.
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(e)) => return Err(Error::io(&path, e)),
            }
        }
    }
}

/// Whether `path` still is the file that was opened.
#[cfg(unix)]
fn names(path: &Path, file: &File) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (std::fs::metadata(path), file.metadata()) {
        (Ok(named), Ok(held)) => named.ino() == held.ino() && named.dev() == held.dev(),
        _ => false,
    }
}

#[cfg(not(unix))]
fn names(_path: &Path, _file: &File) -> bool {
    true
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Removed while still locked; a failure leaves an empty file that the next claim takes over.
        let _ = std::fs::remove_file(&self.path);
        let _ = self.file.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_claimed_once_and_free_again_afterwards() {
        let folder = tempfile::tempdir().unwrap();
        let claim = Claim::take(folder.path(), "abc").unwrap();
        assert!(claim.is_some());
        assert!(Claim::take(folder.path(), "abc").unwrap().is_none());
        assert!(Claim::take(folder.path(), "def").unwrap().is_some());
        drop(claim);
        assert!(Claim::take(folder.path(), "abc").unwrap().is_some());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
