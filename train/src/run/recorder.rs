//! Takes what each optimiser step yields to the files and the eyes of the user.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::time::Instant;

use serde::Serialize;

use super::events::{self, EventFile};
use super::folder::RunFolder;
use super::host;
use super::metrics::{MetricsFile, StepMetrics, Validation, read_metrics};
use super::plot::loss_svg;
use super::progress::Progress;
use super::record::{RunRecord, Status};
use crate::error::{Error, Result};

/// What a training step reports.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Counts from 0.
    pub step: u64,
    /// Language-model loss plus weighted alignment and reconstruction losses, mean over the step's micro-batches.
    pub loss: f64,
    /// Language-model loss, mean over the step's micro-batches.
    pub loss_lm: f64,
    /// Alignment loss before weighting, mean over the step's micro-batches; 0 where nothing is aligned.
    pub loss_vra: f64,
    /// Reconstruction loss before weighting, mean over the step's micro-batches; 0 where nothing is reconstructed.
    pub loss_ross: f64,
    /// L2 norm over the gradients of all trainable tensors, before clipping.
    pub grad_norm: f64,
    /// Learning rate of everything but the model's projector.
    pub lr: f64,
    /// Learning rate of the model's projector.
    pub lr_projector: f64,
    /// Tokens that the language model saw, visual tokens included and padding not.
    pub tokens: u64,
    /// Tokens that the language-model loss is taken over.
    pub supervised_tokens: u64,
    /// Whether the update was left out because a figure was not finite.
    pub skipped: bool,
    /// Alignment loss of each target layer, where something was aligned.
    pub loss_vra_layers: BTreeMap<usize, f64>,
    /// L2 norm over the gradients of each group of tensors that are updated alike.
    pub grad_norm_groups: BTreeMap<String, f64>,
    /// Share of the positions that held padding.
    pub padding_share: f64,
    /// Bytes of device memory in use.
    pub device_bytes: u64,
    /// When the device had done the step.
    pub done: Instant,
    /// The evaluation after the step, where there was one.
    pub validation: Option<Validation>,
}

/// Something in a run that a user should know of; a line of `incidents.jsonl`.
#[derive(Clone, Debug, Serialize)]
pub struct Incident<'a, C> {
    /// The optimiser step.
    pub step: u64,
    /// What kind of thing.
    pub kind: &'static str,
    /// What it came from.
    #[serde(flatten)]
    pub culprit: &'a C,
}

/// How a run went.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// The first step.
    pub first: StepMetrics,
    /// The last step.
    pub last: StepMetrics,
    /// Alignment loss of the first and the last step that aligned something; a step of text-only samples does not.
    pub alignment: Option<(f64, f64)>,
    /// Reconstruction loss, in the same way.
    pub reconstruction: Option<(f64, f64)>,
    /// Wall-clock time of all steps together.
    pub seconds: f64,
}

/// Writes `metrics.jsonl`, shows progress, and in the end draws `loss.svg` and closes `run.json`.
#[derive(Debug)]
pub struct Recorder<'run> {
    folder: &'run RunFolder,
    record: RunRecord,
    metrics: MetricsFile,
    events: EventFile,
    progress: Progress,
    first: Option<StepMetrics>,
    last: Option<StepMetrics>,
    alignment: Option<(f64, f64)>,
    reconstruction: Option<(f64, f64)>,
    start: Instant,
    previous: Instant,
}

impl<'run> Recorder<'run> {
    /// Writes `run.json` and begins to measure the first step.
    ///
    /// # Errors
    /// [`Kind::Io`](crate::error::Kind::Io) if the disk refuses.
    pub fn start(folder: &'run RunFolder, record: RunRecord) -> Result<Self> {
        folder.write_record(&record)?;
        let metrics = MetricsFile::create(&folder.join("metrics.jsonl"))?;
        Self::new(folder, record, metrics)
    }

    /// Goes on recording a run from the step `record.resumed_from`. What was recorded of later steps is cut off.
    ///
    /// # Errors
    /// As [`Recorder::start`]; also a metrics file that cannot be read.
    pub fn resume(folder: &'run RunFolder, record: RunRecord) -> Result<Self> {
        let file = folder.join("metrics.jsonl");
        let metrics = MetricsFile::resume(&file, record.resumed_from.unwrap_or(0))?;
        events::cut(folder.path(), record.resumed_from.unwrap_or(0))?;
        folder.write_record(&record)?;
        let mut recorder = Self::new(folder, record, metrics)?;
        read_metrics(&file)?.into_iter().for_each(|metrics| recorder.remember(metrics));
        Ok(recorder)
    }

    fn new(folder: &'run RunFolder, record: RunRecord, metrics: MetricsFile) -> Result<Self> {
        let events = EventFile::create(folder.path())?;
        let progress = Progress::new(record.steps);
        let now = Instant::now();
        Ok(Self {
            folder,
            record,
            metrics,
            events,
            progress,
            first: None,
            last: None,
            alignment: None,
            reconstruction: None,
            start: now,
            previous: now,
        })
    }

    /// Records a step that took the time from the end of the one before to its own.
    ///
    /// # Errors
    /// [`Kind::Io`](crate::error::Kind::Io) if the disk refuses.
    pub fn step(&mut self, outcome: &Outcome) -> Result<()> {
        let seconds = outcome.done.saturating_duration_since(self.previous).as_secs_f64();
        self.previous = self.previous.max(outcome.done);
        let metrics = with_time(outcome, seconds);
        self.metrics.append(&metrics)?;
        self.events.step(metrics.step, &scalars(&metrics))?;
        self.progress.step(&metrics);
        self.remember(metrics);
        Ok(())
    }

    /// Leaves the time since the last step out of the next one's: it went into something else.
    pub fn restart_clock(&mut self) {
        self.previous = Instant::now();
    }

    fn remember(&mut self, metrics: StepMetrics) {
        let losses = [(&mut self.alignment, metrics.loss_vra), (&mut self.reconstruction, metrics.loss_ross)];
        for (known, loss) in losses.into_iter().filter(|(_, loss)| *loss != 0.0) {
            known.get_or_insert((loss, loss)).1 = loss;
        }
        self.first.get_or_insert_with(|| metrics.clone());
        self.last = Some(metrics);
    }

    /// Appends to `incidents.jsonl`.
    ///
    /// # Errors
    /// [`Kind::Io`](crate::error::Kind::Io) if the disk refuses.
    pub fn incident<C: Serialize>(&mut self, incident: &Incident<'_, C>) -> Result<()> {
        let path = self.folder.join("incidents.jsonl");
        let line = serde_json::to_string(incident);
        let line = line.map_err(|error| Error::internal("cannot write an incident", error.to_string()))?;
        let written =
            OpenOptions::new().create(true).append(true).open(&path).and_then(|mut file| writeln!(file, "{line}"));
        written.map_err(|error| Error::io("write", &path, &error))
    }

    /// Makes what was recorded so far survive a loss of power.
    ///
    /// # Errors
    /// [`Kind::Io`](crate::error::Kind::Io) if the disk refuses.
    pub fn sync(&self) -> Result<()> {
        self.metrics.sync()
    }

    /// Draws the curves and marks the run as interrupted.
    ///
    /// # Errors
    /// [`Kind::Io`](crate::error::Kind::Io) if the disk refuses.
    pub fn interrupt(mut self) -> Result<()> {
        self.close(Status::Interrupted)
    }

    /// Draws the curves and marks the run as finished. Nothing comes back if there was no step.
    ///
    /// # Errors
    /// [`Kind::Io`](crate::error::Kind::Io) if the disk refuses.
    pub fn finish(mut self) -> Result<Option<Summary>> {
        self.close(Status::Finished)?;
        let seconds = self.previous.duration_since(self.start).as_secs_f64();
        let (alignment, reconstruction) = (self.alignment, self.reconstruction);
        let summary = |(first, last)| Summary { first, last, alignment, reconstruction, seconds };
        Ok(self.first.take().zip(self.last.take()).map(summary))
    }

    fn close(&mut self, status: Status) -> Result<()> {
        self.record.status = status;
        let steps = read_metrics(&self.folder.join("metrics.jsonl"))?;
        let name = self.folder.path().file_name().unwrap_or(self.folder.path().as_os_str());
        self.folder.write("loss.svg", loss_svg(&steps, &name.to_string_lossy()).as_bytes())?;
        self.folder.write_record(&self.record)
    }
}

impl Drop for Recorder<'_> {
    /// A run that ends with an error still gets its curves, and is marked as failed.
    fn drop(&mut self) {
        if self.record.status == Status::Running
            && let Err(error) = self.close(Status::Failed)
        {
            log::warn!("{error}");
        }
    }
}

fn with_time(outcome: &Outcome, seconds: f64) -> StepMetrics {
    StepMetrics {
        step: outcome.step,
        loss: outcome.loss,
        loss_lm: outcome.loss_lm,
        loss_vra: outcome.loss_vra,
        grad_norm: outcome.grad_norm,
        lr: outcome.lr,
        lr_projector: outcome.lr_projector,
        tokens: outcome.tokens,
        supervised_tokens: outcome.supervised_tokens,
        seconds,
        tokens_per_second: if seconds > 0.0 { outcome.tokens as f64 / seconds } else { 0.0 },
        skipped: outcome.skipped,
        loss_ross: outcome.loss_ross,
        loss_vra_layers: outcome.loss_vra_layers.clone(),
        grad_norm_groups: outcome.grad_norm_groups.clone(),
        validation: outcome.validation.clone(),
        padding_share: outcome.padding_share,
        device_bytes: outcome.device_bytes,
        host_bytes: host::resident_bytes(),
    }
}

/// The curves of a step as TensorBoard shows them. A loss that nothing was there for has no point.
fn scalars(metrics: &StepMetrics) -> Vec<(String, f64)> {
    const MIB: f64 = 1024.0 * 1024.0;
    // Neither loss is ever exactly 0 where there is one.
    let where_any = |loss: f64| if loss == 0.0 { f64::NAN } else { loss };
    let mut scalars = vec![
        ("loss/total".to_owned(), metrics.loss),
        ("loss/lm".to_owned(), metrics.loss_lm),
        ("loss/vra".to_owned(), where_any(metrics.loss_vra)),
        ("loss/ross".to_owned(), where_any(metrics.loss_ross)),
        ("grad_norm/total".to_owned(), metrics.grad_norm),
        ("lr/main".to_owned(), metrics.lr),
        ("lr/projector".to_owned(), metrics.lr_projector),
        ("speed/tokens_per_second".to_owned(), metrics.tokens_per_second),
        ("speed/seconds".to_owned(), metrics.seconds),
        ("data/tokens".to_owned(), metrics.tokens as f64),
        ("data/supervised_tokens".to_owned(), metrics.supervised_tokens as f64),
        ("data/padding_share".to_owned(), metrics.padding_share),
        ("memory/device_mib".to_owned(), metrics.device_bytes as f64 / MIB),
        ("guard/skipped".to_owned(), f64::from(u8::from(metrics.skipped))),
    ];
    if let Some(Validation { loss, loss_lm, loss_vra, loss_ross, .. }) = metrics.validation {
        let losses = [
            ("validation/total", loss),
            ("validation/lm", loss_lm),
            ("validation/vra", where_any(loss_vra)),
            ("validation/ross", where_any(loss_ross)),
        ];
        scalars.extend(losses.map(|(name, loss)| (name.to_owned(), loss)));
    }
    scalars.extend(metrics.host_bytes.map(|bytes| ("memory/host_mib".to_owned(), bytes as f64 / MIB)));
    scalars.extend(metrics.loss_vra_layers.iter().map(|(layer, loss)| (format!("loss_vra/layer_{layer}"), *loss)));
    scalars.extend(metrics.grad_norm_groups.iter().map(|(group, norm)| (format!("grad_norm/{group}"), *norm)));
    scalars
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::Config;
    use crate::run::DeviceRecord;

    fn outcome(step: u64) -> Outcome {
        Outcome {
            step,
            loss: 5.0 - step as f64,
            loss_lm: 5.0,
            loss_vra: -0.1 * step as f64,
            loss_ross: 0.0,
            grad_norm: 1.0,
            lr: 1e-4,
            lr_projector: 1e-5,
            tokens: 10,
            supervised_tokens: 5,
            skipped: false,
            loss_vra_layers: BTreeMap::from([(2, -0.1 * step as f64)]),
            grad_norm_groups: BTreeMap::from([("main".into(), 1.0)]),
            padding_share: 0.25,
            device_bytes: 1 << 20,
            done: Instant::now(),
            validation: None,
        }
    }

    fn record(steps: u64) -> RunRecord {
        RunRecord::new(&Config::default(), DeviceRecord::default(), steps, BTreeMap::new())
    }

    #[test]
    fn a_run_leaves_its_files() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("run");
        let folder = RunFolder::create(&path).unwrap();
        let mut recorder = Recorder::start(&folder, record(3)).unwrap();
        for step in 0..3 {
            recorder.step(&outcome(step)).unwrap();
        }
        let summary = recorder.finish().unwrap().unwrap();
        assert_eq!((summary.first.step, summary.last.step), (0, 2));
        assert!(summary.seconds >= 0.0);
        drop(folder);
        let lines = fs::read_to_string(path.join("metrics.jsonl")).unwrap();
        assert_eq!(lines.lines().count(), 3);
        assert!(fs::read_to_string(path.join("run.json")).unwrap().contains("\"status\": \"finished\""));
        assert!(fs::read_to_string(path.join("loss.svg")).unwrap().starts_with("<svg"));
        assert!(RunFolder::create(&path).unwrap_err().to_string().contains("a finished run"));
    }

    #[test]
    fn a_run_that_fails_says_so() {
        let root = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(root.path()).unwrap();
        let mut recorder = Recorder::start(&folder, record(3)).unwrap();
        recorder.step(&outcome(0)).unwrap();
        drop(recorder);
        assert!(root.path().join("loss.svg").exists());
        drop(folder);
        assert!(RunFolder::create(root.path()).unwrap_err().to_string().contains("an unfinished run"));
    }

    #[test]
    fn times_are_the_only_difference_between_two_runs() {
        let mut runs = Vec::new();
        for _ in 0..2 {
            let root = tempfile::tempdir().unwrap();
            let folder = RunFolder::create(root.path()).unwrap();
            let mut recorder = Recorder::start(&folder, record(3)).unwrap();
            for step in 0..3 {
                recorder.step(&outcome(step)).unwrap();
            }
            let _ = recorder.finish().unwrap();
            let steps = read_metrics(&root.path().join("metrics.jsonl")).unwrap();
            runs.push(steps.into_iter().map(|m| StepMetrics {
                seconds: 0.0,
                tokens_per_second: 0.0,
                host_bytes: None,
                ..m
            }));
        }
        let (first, second) = (runs.remove(0), runs.remove(0));
        assert!(first.eq(second));
    }
}
