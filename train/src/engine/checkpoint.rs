//! Checkpoints of a run: when they are saved, what they hold, and going on from one.
//!
//! A checkpoint is an adapter directory with three files more: `optimizer.safetensors`, the trained tensors and moments
//! as they are on the device; `cursor.json`, where the run stands; and `config.toml`. All random numbers of a run are
//! functions of the seed and a place (epoch, step, micro-batch), so the step is all that there is to remember of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::bundle::Bundle;
use super::{Fingerprints, Session, save};
use crate::config::{Config, Overrides, Subject, changes};
use crate::data::StepPlan;
use crate::error::{Error, Kind, Result};
use crate::run::{RunFolder, Validation};
use crate::store::{Best, Checkpoints, Disk, Manifest, Part, step_of};

/// Where the run stands.
const CURSOR: &str = "cursor.json";
/// The resolved configuration.
const CONFIG: &str = "config.toml";
/// Raised when a reader of older programs would go wrong.
const FORMAT: u32 = 1;

/// The content of `cursor.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Cursor {
    /// Of this file.
    format: u32,
    /// Version of viral-wgpu.
    version: String,
    /// Optimiser steps that have been done, and so the next step's number.
    pub(super) step: u64,
    /// Steps of the whole run.
    steps: u64,
    /// Position in the data.
    data: DataPosition,
    /// The random streams, in words and by their keys.
    random: RandomStreams,
    /// Steps without a finite gradient, one after the other, up to this one.
    pub(super) skipped_in_a_row: u64,
    /// The best checkpoint so far.
    #[serde(default)]
    pub(super) best: Option<Best>,
    /// Lines of `metrics.jsonl` that belong to the steps done.
    metrics_lines: u64,
    /// Hashes of the inputs.
    fingerprints: Fingerprints,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct DataPosition {
    /// Pass over the data, 0-based.
    epoch: u64,
    /// Step within the pass, 0-based.
    step_of_epoch: u64,
    /// Steps of a pass.
    steps_per_epoch: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct RandomStreams {
    seed: u64,
    order: String,
    dropout: String,
    initialisation: String,
}

/// Where a run begins.
#[derive(Clone, Debug, Default)]
pub(super) struct Start {
    /// The first step.
    pub(super) step: u64,
    pub(super) skipped_in_a_row: u64,
    /// The best checkpoint before.
    pub(super) best: Option<Best>,
    /// The checkpoint to go on from, if there is one.
    pub(super) checkpoint: Option<PathBuf>,
}

/// From where, and under which conditions, a run goes on.
#[derive(Clone, Debug, Default)]
pub struct Resume {
    /// A checkpoint; without it, the newest one in the run folder that is whole.
    pub checkpoint: Option<PathBuf>,
    /// Keys that may differ from those the checkpoint was made with.
    pub allow: Vec<String>,
}

/// Saves a run's checkpoints.
pub(super) struct Keeper<'r> {
    bundle: &'r Bundle,
    plan: &'r StepPlan,
    fingerprints: Fingerprints,
    checkpoints: Checkpoints,
    best: Option<Best>,
}

impl<'r> Keeper<'r> {
    pub(super) fn new(
        folder: &RunFolder,
        bundle: &'r Bundle,
        plan: &'r StepPlan,
        fingerprints: Fingerprints,
        best: Option<Best>,
        disk: Arc<dyn Disk>,
    ) -> Self {
        Self { bundle, plan, fingerprints, checkpoints: Checkpoints::new(folder.path(), disk), best }
    }

    /// Takes note of an evaluation after `done` steps, and of whether it is the best so far, which is worth a checkpoint.
    pub(super) fn judge(&mut self, done: u64, validation: &mut Validation) {
        let Validation { loss_lm, best, .. } = validation;
        *best = loss_lm.is_finite() && self.best.is_none_or(|before| *loss_lm < before.loss_lm);
        if *best {
            self.best = Some(Best { step: done, loss_lm: *loss_lm });
        }
    }

    /// The checkpoint that has done best, if it is whole and older than `done` steps.
    pub(super) fn earlier_best(&self, done: u64) -> Option<PathBuf> {
        let path = self.checkpoints.path(self.best.filter(|best| best.step < done)?.step);
        match Manifest::verify(&path) {
            Ok(_) => Some(path),
            Err(error) => {
                log::warn!("the best checkpoint cannot be used, so the last state is written: {error}");
                None
            }
        }
    }

    /// Whether the configuration wants a checkpoint after `done` steps.
    pub(super) fn is_due(&self, done: u64) -> bool {
        done.checked_rem(self.bundle.config.train.save_every as u64) == Some(0)
    }

    /// Saves the state after `done` steps, and removes checkpoints that are one too many.
    pub(super) fn save(&self, session: &Session, done: u64, skipped_in_a_row: u64) -> Result<PathBuf> {
        let config = &self.bundle.config;
        let adapter = save::trained(self.bundle, session)?;
        let mut parts = save::parts(&adapter, &self.checkpoints.path(done))?;
        parts.push(session.state_part()?);
        parts.push(Part::text(CONFIG, config.to_toml()));
        let cursor = serde_json::to_string_pretty(&self.cursor(done, skipped_in_a_row));
        let cursor = cursor.map_err(|error| Error::internal("cannot write a cursor", error.to_string()))?;
        parts.push(Part::text(CURSOR, cursor + "\n"));
        let path = self.checkpoints.save(done, parts)?;
        self.checkpoints.mark_best(self.best.as_ref())?;
        self.checkpoints.retain(config.train.keep_checkpoints)?;
        log::info!("saved {}", path.display());
        Ok(path)
    }

    fn cursor(&self, done: u64, skipped_in_a_row: u64) -> Cursor {
        let per_epoch = self.plan.steps_per_epoch().max(1);
        Cursor {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").into(),
            step: done,
            steps: self.plan.steps(),
            data: DataPosition { epoch: done / per_epoch, step_of_epoch: done % per_epoch, steps_per_epoch: per_epoch },
            random: RandomStreams {
                seed: self.bundle.config.train.seed,
                order: "mt19937 seeded with seed + epoch".into(),
                dropout: "function of seed, step and micro-batch".into(),
                initialisation: "function of seed and tensor name".into(),
            },
            skipped_in_a_row,
            best: self.best,
            metrics_lines: done,
            fingerprints: self.fingerprints.clone(),
        }
    }
}

/// Where the run begins: at its front, or where a checkpoint says. What does not fit the checkpoint is refused.
///
/// # Errors
/// [`Kind::Model`] if a named checkpoint is damaged, [`Kind::Config`] if the run is another one than the checkpoint's.
pub(super) fn start(
    folder: &RunFolder,
    config: &Config,
    fingerprints: &Fingerprints,
    resume: &Resume,
    disk: Arc<dyn Disk>,
) -> Result<Start> {
    let checkpoints = Checkpoints::new(folder.path(), disk);
    let checkpoint = match &resume.checkpoint {
        Some(path) => {
            Manifest::verify(path).map_err(|error| Error { kind: Kind::Model, ..error })?;
            Some(path.clone())
        }
        None => checkpoints.newest().map(|(_, path)| path),
    };
    let Some(path) = checkpoint else {
        log::warn!("{} has no checkpoint: the run starts from its first step", folder.path().display());
        checkpoints.go_back_to(0)?;
        checkpoints.mark_best(None)?;
        return Ok(Start::default());
    };
    let cursor = Cursor::read(&path)?;
    let before = Config::load(&path.join(CONFIG), &Overrides::default())?;
    refuse_changes(&before, config, &cursor.fingerprints, fingerprints, &path, &resume.allow)?;
    if step_of(&path).is_some() {
        checkpoints.go_back_to(cursor.step)?;
        checkpoints.mark_best(cursor.best.as_ref())?;
    }
    log::info!("resuming after step {} of {} from {}", cursor.step, cursor.steps, path.display());
    let Cursor { step, skipped_in_a_row, best, .. } = cursor;
    Ok(Start { step, skipped_in_a_row, best, checkpoint: Some(path) })
}

impl Cursor {
    fn read(checkpoint: &Path) -> Result<Self> {
        let path = checkpoint.join(CURSOR);
        let invalid = |why: String| Error {
            kind: Kind::Model,
            what: "the checkpoint cannot be used".into(),
            place: path.display().to_string(),
            why,
            hint: "resume with the version of viral-wgpu that wrote it, or from another checkpoint".into(),
        };
        let text = std::fs::read(&path).map_err(|error| invalid(error.to_string()))?;
        let cursor: Self = serde_json::from_slice(&text).map_err(|error| invalid(error.to_string()))?;
        if cursor.format != FORMAT {
            return Err(invalid(format!("it has format {}, and this version reads {FORMAT}", cursor.format)));
        }
        Ok(cursor)
    }
}

/// Errs with a table if the run differs from the checkpoint's in more than `allow` names.
fn refuse_changes(
    before: &Config,
    now: &Config,
    hashes_before: &Fingerprints,
    hashes_now: &Fingerprints,
    checkpoint: &Path,
    allow: &[String],
) -> Result<()> {
    let mut rows: Vec<[String; 3]> = vec![];
    rows.extend(changes(before, now, Subject::Resume).into_iter().map(|one| [one.key, one.before, one.now]));
    const INPUTS: [(&str, &str); 5] = [
        ("model", "model.path"),
        ("teacher", "vra.teacher"),
        ("vae", "ross.vae"),
        ("data", "data.train"),
        ("validation", "data.validation"),
    ];
    for (name, key) in INPUTS {
        let [was, is] = [hashes_before, hashes_now].map(|hashes| hashes.get(name).map(|hash| short(hash)));
        if was != is && was.is_some() && is.is_some() {
            let content = |hash: Option<String>| format!("content {}", hash.unwrap_or_default());
            rows.push([key.into(), content(was), content(is)]);
        }
    }
    rows.retain(|[key, ..]| !allow.contains(key));
    if rows.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = rows.iter().map(|[key, ..]| key.as_str()).collect();
    let allowances: Vec<String> = names.iter().map(|name| format!("--allow-change {name}")).collect();
    let width = names.iter().map(|name| name.len()).max().unwrap_or(0).max("key".len());
    let table = [["key".to_owned(), "checkpoint".into(), "now".into()]].into_iter().chain(rows.iter().cloned());
    let table: Vec<String> =
        table.map(|[key, before, now]| format!("{key:width$}  {before:<24}  {now}").trim_end().to_owned()).collect();
    Err(Error {
        kind: Kind::Config,
        what: "the run differs from the one that the checkpoint belongs to".into(),
        place: checkpoint.display().to_string(),
        why: table.join("\n"),
        hint: format!("take the changes back, or accept them: {}", allowances.join(" ")),
    })
}

fn short(hash: &str) -> String {
    hash.chars().take(16).collect()
}
