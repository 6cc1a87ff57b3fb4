//! The folder of a run: made, locked, and never overwritten.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::lock::{self, Lock};
use super::record::{RunRecord, Status};
use crate::error::{Error, Kind, Result};

/// A run folder that this process owns until the value is dropped.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    made_here: bool,
    // Dropped last, after the folder has been tidied.
    _lock: Lock,
}

impl RunFolder {
    /// Makes and locks the folder. One that exists is taken if no run has written results there.
    ///
    /// # Errors
    /// [`Kind::Locked`] if another process owns the folder, [`Kind::Config`] if it holds the results of an earlier run,
    /// [`Kind::Io`] if it cannot be made.
    pub fn create(path: &Path) -> Result<Self> {
        let folder = Self::open(path)?;
        refuse_results(&folder.path)?;
        Ok(folder)
    }

    /// Makes and locks the folder of a run that is to go on. What the run has left there stays.
    ///
    /// # Errors
    /// [`Kind::Locked`] if another process owns the folder, [`Kind::Io`] if it cannot be made.
    pub fn open(path: &Path) -> Result<Self> {
        let path = std::path::absolute(path).map_err(|error| Error::io("resolve the path", path, &error))?;
        let made_here = !path.exists();
        fs::create_dir_all(&path).map_err(|error| Error::io("make the run folder", &path, &error))?;
        let lock = Lock::acquire(&path)?;
        if let Some(process) = lock.stale {
            log::warn!("{}: process {process} left without finishing its run", path.display());
        }
        Ok(Self { path, made_here, _lock: lock })
    }

    /// Absolute path of the folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Absolute path of something inside the folder.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// Writes `run.json`.
    ///
    /// # Errors
    /// [`Kind::Io`] if the disk refuses.
    pub fn write_record(&self, record: &RunRecord) -> Result<()> {
        let mut text = serde_json::to_string_pretty(record)
            .map_err(|error| Error::internal("cannot write run.json", error.to_string()))?;
        text.push('\n');
        self.write("run.json", text.as_bytes())
    }

    /// Writes a file as a whole: a reader sees the old content or the new, never a part.
    ///
    /// # Errors
    /// [`Kind::Io`] if the disk refuses.
    pub fn write(&self, name: &str, content: &[u8]) -> Result<()> {
        let path = self.join(name);
        let temporary = self.join(format!("{name}.part"));
        let written = fs::File::create(&temporary).and_then(|mut file| {
            file.write_all(content)?;
            file.sync_all()
        });
        written.map_err(|error| Error::io("write", &temporary, &error))?;
        fs::rename(&temporary, &path).map_err(|error| Error::io("write", &path, &error))
    }

    /// Removes a file, if it is there.
    ///
    /// # Errors
    /// [`Kind::Io`] if the disk refuses.
    pub fn remove(&self, name: &str) -> Result<()> {
        let path = self.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", &path, &error)),
            _ => Ok(()),
        }
    }
}

impl Drop for RunFolder {
    /// A folder that was made for this run and never written to disappears again.
    fn drop(&mut self) {
        let Ok(mut entries) = fs::read_dir(&self.path) else { return };
        if self.made_here && entries.all(|entry| entry.is_ok_and(|entry| entry.file_name() == lock::FILE)) {
            let _ = fs::remove_file(self.path.join(lock::FILE));
            let _ = fs::remove_dir(&self.path);
        }
    }
}

/// Errs if the folder holds what a run leaves behind.
fn refuse_results(path: &Path) -> Result<()> {
    let holds_steps = fs::metadata(path.join("metrics.jsonl")).is_ok_and(|metrics| metrics.len() > 0);
    let results = ["adapter", "checkpoints"].into_iter().find(|name| path.join(name).exists());
    let Some(found) = results.or(holds_steps.then_some("metrics.jsonl")) else { return Ok(()) };
    let state = match RunRecord::read_status(&path.join("run.json")) {
        Some(Status::Finished) => "finished",
        Some(Status::Running | Status::Failed | Status::Interrupted) => "unfinished",
        None => "earlier",
    };
    Err(Error {
        kind: Kind::Config,
        what: format!("the folder holds an {state} run").replace("an finished", "a finished"),
        place: path.display().to_string(),
        why: format!("{found} is there, and results are never overwritten"),
        hint: "continue it with --resume, choose another folder with --out, or move this one away".into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_and_empty_folders_are_taken() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/b");
        let folder = RunFolder::create(&path).unwrap();
        folder.write("loss.svg", b"<svg/>").unwrap();
        drop(folder);
        assert_eq!(fs::read(path.join("loss.svg")).unwrap(), b"<svg/>");
        assert!(!path.join("loss.svg.part").exists());
        assert!(RunFolder::create(&path).is_ok(), "a drawing alone is no result");
    }

    #[test]
    fn a_run_that_never_began_leaves_no_trace() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("run");
        drop(RunFolder::create(&path).unwrap());
        assert!(!path.exists());
        fs::create_dir(&path).unwrap();
        drop(RunFolder::create(&path).unwrap());
        assert!(path.exists(), "a folder that was there stays");
    }

    #[test]
    fn results_are_never_overwritten() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("metrics.jsonl"), "").unwrap();
        assert!(RunFolder::create(root.path()).is_ok(), "no step was recorded");
        fs::write(root.path().join("metrics.jsonl"), "{}\n").unwrap();
        for (status, expected) in [("finished", "a finished run"), ("running", "an unfinished run"), ("", "an earlier")]
        {
            fs::write(root.path().join("run.json"), format!("{{\"status\": {status:?}}}")).unwrap();
            let error = RunFolder::create(root.path()).unwrap_err();
            assert_eq!(error.kind, Kind::Config);
            let text = error.to_string();
            assert!(text.contains(expected) && text.contains("--out") && text.contains("metrics.jsonl"), "{text}");
        }
        fs::remove_file(root.path().join("metrics.jsonl")).unwrap();
        fs::create_dir(root.path().join("adapter")).unwrap();
        assert!(RunFolder::create(root.path()).unwrap_err().to_string().contains("adapter is there"));
    }

    #[test]
    fn two_runs_cannot_share_a_folder() {
        let root = tempfile::tempdir().unwrap();
        let _first = RunFolder::create(root.path()).unwrap();
        assert_eq!(RunFolder::create(root.path()).unwrap_err().kind.exit_code(), 10);
    }

    #[test]
    fn a_file_in_the_way_is_named() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("run");
        fs::write(&path, "").unwrap();
        let error = RunFolder::create(&path).unwrap_err();
        assert_eq!(error.kind, Kind::Io);
        assert!(error.place.ends_with("run"), "{error}");
    }
}
