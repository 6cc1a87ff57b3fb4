//! The checkpoints of a run: folders `step-N`, N the number of optimiser steps that have been done.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::disk::Disk;
use super::folder::{Part, refused, with_suffix, write_folder};
use super::manifest::Manifest;
use crate::error::{Error, Result};

/// Which checkpoint is the best, in `checkpoints/best.json`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Optimiser steps that it has done.
    pub step: u64,
    /// Its language-model loss on the samples that the run does not learn from.
    pub loss_lm: f64,
}

/// The file that names the best checkpoint.
const BEST: &str = "best.json";

/// The checkpoints of one run folder.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    root: PathBuf,
    disk: Arc<dyn Disk>,
}

impl Checkpoints {
    /// The checkpoints below `run`, a run folder. There may be none.
    pub fn new(run: &Path, disk: Arc<dyn Disk>) -> Self {
        Self { root: run.join("checkpoints"), disk }
    }

    /// The folder of a step's checkpoint.
    pub fn path(&self, step: u64) -> PathBuf {
        self.root.join(format!("step-{step}"))
    }

    /// Saves the checkpoint of a run that has done `step` steps. It is there as a whole when this returns, and until then
    /// the ones before it are untouched.
    ///
    /// # Errors
    /// As [`write_folder`].
    pub fn save(&self, step: u64, parts: Vec<Part<'_>>) -> Result<PathBuf> {
        if !self.root.is_dir() {
            let run = self.root.parent().unwrap_or(Path::new("."));
            let made = self.disk.create_dir(&self.root).and_then(|()| self.disk.sync_dir(run));
            made.map_err(|error| Error::io("make the folder of the checkpoints", &self.root, &error))?;
        }
        let path = self.path(step);
        if path.exists() && Manifest::verify(&path).is_ok() {
            // The same step of the same run has the same content; replacing it would put it at risk.
            return Ok(path);
        }
        write_folder(&*self.disk, &path, parts, true)?;
        Ok(path)
    }

    /// Removes all but the `keep` newest checkpoints and the best one; 0 keeps all.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn retain(&self, keep: usize) -> Result<()> {
        let (steps, best) = (self.steps(), self.best().map(|best| best.step));
        let surplus = if keep == 0 { 0 } else { steps.len().saturating_sub(keep) };
        for &step in steps.iter().take(surplus).filter(|&&step| Some(step) != best) {
            // Half removed it must not look like a checkpoint.
            let (path, leaving) = (self.path(step), with_suffix(&self.path(step), ".old.part"));
            let removed = self.disk.rename(&path, &leaving).and_then(|()| self.disk.remove_dir(&leaving));
            removed.map_err(|error| Error::io("remove an old checkpoint", &path, &error))?;
        }
        Ok(())
    }

    /// Notes which checkpoint is the best; as a whole or not at all.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn mark_best(&self, best: Option<&Best>) -> Result<()> {
        let path = self.root.join(BEST);
        let Some(best) = best else {
            return match std::fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io("remove", &path, &error)),
                _ => Ok(()),
            };
        };
        if self.best().as_ref() == Some(best) {
            return Ok(());
        }
        let text = serde_json::to_string(best)
            .map_err(|error| Error::internal("cannot note the best checkpoint", error.to_string()))?;
        let (text, next) = (format!("{text}\n"), self.root.join(format!("{BEST}.new")));
        let failed = |error| refused(&*self.disk, &path, &self.root, text.len() as u64, &error);
        let mut file = self.disk.create(&next).map_err(failed)?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync()).map_err(failed)?;
        self.disk.rename(&next, &path).and_then(|()| self.disk.sync_dir(&self.root)).map_err(failed)
    }

    /// The best checkpoint, if the run is evaluated and has noted one.
    pub fn best(&self) -> Option<Best> {
        serde_json::from_slice(&std::fs::read(self.root.join(BEST)).ok()?).ok()
    }

    /// The steps that have a checkpoint, complete or not, in rising order.
    pub fn steps(&self) -> Vec<u64> {
        let entries = std::fs::read_dir(&self.root).into_iter().flatten().flatten();
        let mut steps: Vec<u64> = entries.filter_map(|entry| step_of(&entry.path())).collect();
        steps.sort_unstable();
        steps
    }

    /// The newest checkpoint that is whole, with its step. Newer ones that are not are warned of.
    pub fn newest(&self) -> Option<(u64, PathBuf)> {
        let whole = |&step: &u64| match Manifest::verify(&self.path(step)) {
            Ok(_) => true,
            Err(error) => {
                log::warn!("{error}");
                false
            }
        };
        self.steps().into_iter().rev().find(whole).map(|step| (step, self.path(step)))
    }

    /// Renames the checkpoints of later steps than `step`, and removes what an interrupted write has left: a run that
    /// goes on from `step` will take another way, or at least write its own.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn go_back_to(&self, step: u64) -> Result<()> {
        for later in self.steps().into_iter().filter(|&later| later > step) {
            let path = self.path(later);
            let name = |n: u32| self.root.join(format!("superseded-step-{later}.{n}"));
            let aside = (1..u32::MAX).map(name).find(|name| !name.exists()).unwrap_or_else(|| name(0));
            log::warn!("{} is later than where this run begins, and becomes {}", path.display(), aside.display());
            self.disk.rename(&path, &aside).map_err(|error| Error::io("rename a checkpoint", &path, &error))?;
        }
        for entry in std::fs::read_dir(&self.root).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "part") {
                let removed = self.disk.remove_dir(&path);
                removed.map_err(|error| Error::io("remove an unfinished checkpoint", &path, &error))?;
            }
        }
        Ok(())
    }
}

/// The step of a checkpoint's folder, from its name.
pub fn step_of(path: &Path) -> Option<u64> {
    let digits = path.file_name()?.to_str()?.strip_prefix("step-")?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}
