//! Writing files so that a reader sees the old one or the new one, never a part: to a temporary file in the same
//! folder, which then takes the name.

use crate::error::{Error, Result};
use std::io::Write as _;
use std::path::Path;
use tempfile::NamedTempFile;

/// Replaces `path` with `contents`. If anything fails, an existing file stays as it was.
///
/// # Errors
/// [`Error::Write`] with the operating system's reason.
pub fn replace(path: &Path, contents: &[u8]) -> Result<()> {
    let mut file = temporary_beside(path)?;
    file.write_all(contents).and_then(|()| file.as_file().sync_all()).map_err(Error::write(path))?;
    file.persist(path).map_err(|e| Error::write(path)(e.error))?;
    Ok(())
}

/// Checks that `path` could be written later, so that a long training is not lost to a mistyped folder.
///
/// # Errors
/// [`Error::Write`] if `path` is a folder or its own folder takes no new file.
pub fn check_writable(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Err(Error::write(path)(std::io::Error::from(std::io::ErrorKind::IsADirectory)));
    }
    temporary_beside(path).map(drop)
}

fn temporary_beside(path: &Path) -> Result<NamedTempFile> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(".thumbnet-");
    // A temporary file is private by default; an output file should be as readable as any other (less the umask).
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder).map_err(|e| {
        // It names the temporary file, which tells nobody anything.
        let text = e.to_string();
        let reason = text.split_once(" at path ").map_or(&text[..], |(reason, _)| reason);
        Error::write(path)(std::io::Error::new(e.kind(), reason))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_and_nothing_is_left_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.tnet");
        check_writable(&path).unwrap();
        assert!(!path.exists());
        replace(&path, b"first").unwrap();
        replace(&path, b"second").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"second");
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
    }

    #[test]
    fn a_missing_folder_and_a_folder_as_file_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("nowhere").join("model.tnet");
        assert!(check_writable(&missing).unwrap_err().to_string().contains("nowhere"));
        assert!(replace(&missing, b"").is_err());
        assert!(check_writable(folder.path()).is_err());
    }
}
