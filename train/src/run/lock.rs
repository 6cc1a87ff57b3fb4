//! One process per run folder.
//!
//! The operating system's own file lock decides, because it ends with the process in every case, kill and power loss
//! included. The process number inside the file is for messages, and tells a folder that was left in a hurry.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::path::Path;

use crate::error::{Error, Kind, Result};

/// Name of the lock file inside a run folder.
pub(super) const FILE: &str = ".lock";

/// Held while the value lives.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
    /// The process that held the lock before and did not give it back.
    pub(super) stale: Option<u32>,
}

impl Lock {
    /// Takes the lock of `folder`, which must exist.
    ///
    /// # Errors
    /// [`Kind::Locked`] if a living process holds it, [`Kind::Io`] if the file cannot be made.
    pub(super) fn acquire(folder: &Path) -> Result<Self> {
        let path = folder.join(FILE);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|error| Error::io("open the lock file", &path, &error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(held(folder, &mut file)),
            Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => {
                log::warn!("{} cannot be locked on this file system: start one run only", folder.display());
            }
            Err(TryLockError::Error(error)) => return Err(Error::io("lock", &path, &error)),
        }
        let stale = process(&mut file);
        let mut lock = Self { file, stale };
        lock.write(&std::process::id().to_string()).map_err(|error| Error::io("write", &path, &error))?;
        Ok(lock)
    }

    fn write(&mut self, text: &str) -> std::io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.file.write_all(text.as_bytes())?;
        self.file.flush()
    }
}

impl Drop for Lock {
    /// Empties the file: the next process sees that this one left in good order.
    fn drop(&mut self) {
        if self.write("").is_ok() {
            let _ = self.file.unlock();
        }
    }
}

fn held(folder: &Path, file: &mut File) -> Error {
    let owner = process(file).map_or_else(|| "another process".into(), |id| format!("process {id}"));
    Error {
        kind: Kind::Locked,
        what: "the run folder is in use".into(),
        place: folder.display().to_string(),
        why: format!("{owner} is writing to it"),
        hint: "wait for that run to end, or choose another folder with --out".into(),
    }
}

fn process(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_refused_until_the_first_lets_go() {
        let folder = tempfile::tempdir().unwrap();
        let first = Lock::acquire(folder.path()).unwrap();
        assert_eq!(first.stale, None);
        let error = Lock::acquire(folder.path()).unwrap_err();
        assert_eq!(error.kind.exit_code(), 10);
        assert!(error.to_string().contains("--out"), "{error}");
        drop(first);
        assert_eq!(Lock::acquire(folder.path()).unwrap().stale, None);
    }

    #[test]
    fn a_lock_whose_process_is_gone_is_recognised() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE), "123456\n").unwrap();
        assert_eq!(Lock::acquire(folder.path()).unwrap().stale, Some(123_456));
    }

    #[test]
    fn a_lock_file_with_other_content_does_no_harm() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE), [0xff; 100]).unwrap();
        assert_eq!(Lock::acquire(folder.path()).unwrap().stale, None);
    }
}
