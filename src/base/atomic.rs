//! Writing a file so that a reader never sees half of it.

use std::io::Write;
use std::path::{Path, PathBuf};

use super::error::{Error, Result};

/// Writes `bytes` to a temporary name beside `path`, flushes it to disk and renames it onto `path`. A link stays one: the file that it leads
/// to is replaced. What is there and no ordinary file (a device, a pipe) is written to and stays what it is.
///
/// # Errors
/// Names the folder or file that refused; `path` is then as it was before.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    if std::fs::metadata(path).is_ok_and(|there| !there.is_file() && !there.is_dir()) {
        let mut there = std::fs::OpenOptions::new().write(true).open(path).map_err(|e| Error::io(path, e))?;
        return there.write_all(bytes).map_err(|e| Error::io(path, e));
    }
    let path = through_link(path)?;
    temporary(&path, bytes)?.persist(&path).map_err(|e| Error::io(&path, e.error))?;
    Ok(())
}

/// The file that `path` leads to, where it is a link; else `path` as it is.
///
/// # Errors
/// When the link leads to nothing.
pub fn through_link(path: &Path) -> Result<PathBuf> {
    if !std::fs::symlink_metadata(path).is_ok_and(|there| there.is_symlink()) {
        return Ok(path.to_path_buf());
    }
    std::fs::canonicalize(path)
        .map_err(|e| Error::file(path, format!("is a link that leads to no file ({e}); remove it")))
}

/// The same where there must be no file of that name yet: `false`, with nothing written, where there is one.
///
/// # Errors
/// As [`write`].
pub fn write_new(path: &Path, bytes: &[u8]) -> Result<bool> {
    match temporary(path, bytes)?.persist_noclobber(path) {
        Ok(_) => Ok(true),
        Err(e) if e.error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
        Err(e) => Err(Error::io(path, e.error)),
    }
}

/// `bytes` in a file beside `path`, on disk.
fn temporary(path: &Path, bytes: &[u8]) -> Result<tempfile::NamedTempFile> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(".kvprof-");
    // A temporary file is private to its owner; a result is as readable as any other file that the user makes: the umask says how much.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.tempfile_in(folder).map_err(|e| Error::io(folder, e))?;
    file.write_all(bytes).map_err(|e| Error::io(path, e))?;
    file.as_file().sync_all().map_err(|e| Error::io(path, e))?;
    #[cfg(unix)]
    if let Ok(there) = std::fs::metadata(path) {
        file.as_file().set_permissions(there.permissions()).map_err(|e| Error::io(path, e))?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_the_whole_file_and_leaves_no_temporary_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("result.json");
        write(&path, b"first").unwrap();
        write(&path, b"second").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"second");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn a_device_is_written_to_and_not_replaced() {
        // By a link, which is all that could be lost.
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("out.csv");
        std::os::unix::fs::symlink("/dev/null", &link).unwrap();
        write(&link, b"nothing").unwrap();
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_written_through_and_stays_one() {
        let folder = tempfile::tempdir().unwrap();
        let (real, link) = (folder.path().join("real.json"), folder.path().join("link.json"));
        std::fs::write(&real, b"first").unwrap();
        std::os::unix::fs::symlink("real.json", &link).unwrap();
        write(&link, b"second").unwrap();
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(std::fs::read(&real).unwrap(), b"second");
        std::fs::remove_file(&real).unwrap();
        assert!(write(&link, b"third").unwrap_err().to_string().contains("leads to no file"));
    }

    #[cfg(unix)]
    #[test]
    fn a_replaced_file_keeps_its_permissions() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("result.json");
        write(&path, b"first").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        write(&path, b"second").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_new_file_takes_no_ones_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("result.json");
        assert!(write_new(&path, b"first").unwrap());
        assert!(!write_new(&path, b"second").unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), b"first");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_missing_folder_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = write(&folder.path().join("absent").join("a.json"), b"x").unwrap_err();
        assert!(error.to_string().contains("absent"), "{error}");
    }
}
