//! `metrics.jsonl`: one JSON object for each optimiser step.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize};

use crate::error::{Error, Kind, Result};

/// The figures of one optimiser step. Fields are written in this order; a figure that is not finite is written as null.
///
/// Times and memory aside, all is the same in two runs of one configuration on one device, and in one that was resumed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepMetrics {
    /// Counts from 0.
    pub step: u64,
    /// Language-model loss plus weighted alignment and reconstruction losses, mean over the step's micro-batches.
    #[serde(deserialize_with = "number_or_nan")]
    pub loss: f64,
    /// Language-model loss, mean over the step's micro-batches.
    #[serde(deserialize_with = "number_or_nan")]
    pub loss_lm: f64,
    /// Alignment loss before weighting, mean over the step's micro-batches; 0 where nothing is aligned.
    #[serde(deserialize_with = "number_or_nan")]
    pub loss_vra: f64,
    /// L2 norm over the gradients of all trainable tensors, before clipping.
    #[serde(deserialize_with = "number_or_nan")]
    pub grad_norm: f64,
    /// Learning rate of everything but the model's projector.
    pub lr: f64,
    /// Learning rate of the model's projector.
    pub lr_projector: f64,
    /// Tokens that the language model saw, visual tokens included and padding not.
    pub tokens: u64,
    /// Tokens that the language-model loss is taken over.
    pub supervised_tokens: u64,
    /// Wall-clock time from the end of the step before, on the device, to the end of this one; evaluations and checkpoints
    /// between them do not count.
    pub seconds: f64,
    /// `tokens` per second of wall-clock time.
    pub tokens_per_second: f64,
    /// Whether the update was left out because a figure was not finite.
    pub skipped: bool,
    /// Reconstruction loss before weighting, mean over the step's micro-batches; 0 where nothing is reconstructed.
    #[serde(default, deserialize_with = "number_or_nan")]
    pub loss_ross: f64,
    /// Alignment loss of each target layer, where something was aligned.
    #[serde(default, deserialize_with = "numbers_or_nan")]
    pub loss_vra_layers: BTreeMap<usize, f64>,
    /// L2 norm over the gradients of each group of tensors that are updated alike.
    #[serde(default, deserialize_with = "numbers_or_nan")]
    pub grad_norm_groups: BTreeMap<String, f64>,
    /// The evaluation after the step, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<Validation>,
    /// Share of the positions that held padding.
    #[serde(default)]
    pub padding_share: f64,
    /// Bytes of device memory in use.
    #[serde(default)]
    pub device_bytes: u64,
    /// Bytes of main memory in use, where the system tells.
    #[serde(default)]
    pub host_bytes: Option<u64>,
}

/// The losses on samples that a run does not learn from, after a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Validation {
    /// The total of the losses, weighted as in the step.
    #[serde(deserialize_with = "number_or_nan")]
    pub loss: f64,
    /// Language-model loss, mean over all supervised tokens.
    #[serde(deserialize_with = "number_or_nan")]
    pub loss_lm: f64,
    /// Alignment loss before weighting, mean over all aligned pictures; 0 where nothing is aligned.
    #[serde(deserialize_with = "number_or_nan")]
    pub loss_vra: f64,
    /// Reconstruction loss before weighting, mean over all samples; 0 where nothing is reconstructed.
    #[serde(default, deserialize_with = "number_or_nan")]
    pub loss_ross: f64,
    /// Samples.
    pub samples: u64,
    /// Tokens that the language-model loss is taken over.
    pub supervised_tokens: u64,
    /// Whether the language-model loss is the lowest of the run so far.
    pub best: bool,
}

/// The file while a run writes to it. Each step reaches the operating system as one whole line.
#[derive(Debug)]
pub struct MetricsFile {
    file: File,
    path: PathBuf,
}

impl MetricsFile {
    /// Makes an empty file.
    ///
    /// # Errors
    /// [`Kind::Io`] if the disk refuses.
    pub fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).map_err(|error| Error::io("make the metrics file", path, &error))?;
        Ok(Self { file, path: path.into() })
    }

    /// Opens the file of a run that goes on from `step`: lines of that step and later ones are cut off.
    ///
    /// # Errors
    /// [`Kind::Io`] if the disk refuses, [`Kind::Verification`] if a line is not what this program writes.
    pub fn resume(path: &Path, step: u64) -> Result<Self> {
        let kept =
            if path.exists() { read_metrics(path)?.iter().take_while(|line| line.step < step).count() } else { 0 };
        if kept as u64 != step {
            log::warn!("{} holds {kept} of the {step} steps before this one", path.display());
        }
        let open = || -> std::io::Result<File> {
            let file = OpenOptions::new().create(true).truncate(false).read(true).append(true).open(path)?;
            let mut reader = BufReader::new(&file);
            let (mut end, mut line) = (0, Vec::new());
            for _ in 0..kept {
                end += reader.read_until(b'\n', &mut line)? as u64;
            }
            file.set_len(end)?;
            Ok(file)
        };
        let file = open().map_err(|error| Error::io("open the metrics file", path, &error))?;
        Ok(Self { file, path: path.into() })
    }

    /// Makes what was written survive a loss of power.
    ///
    /// # Errors
    /// [`Kind::Io`] if the disk refuses.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_all().map_err(|error| Error::io("write the metrics", &self.path, &error))
    }

    /// Appends one step.
    ///
    /// # Errors
    /// [`Kind::Io`] if the disk refuses.
    pub fn append(&mut self, metrics: &StepMetrics) -> Result<()> {
        let mut line = serde_json::to_string(metrics)
            .map_err(|error| Error::internal("cannot write the metrics", error.to_string()))?;
        line.push('\n');
        self.file.write_all(line.as_bytes()).map_err(|error| Error::io("write the metrics", &self.path, &error))
    }
}

/// All steps of a metrics file. A last line without an end, as a power loss leaves it, is left out.
///
/// # Errors
/// [`Kind::Io`] if the file cannot be read, [`Kind::Verification`] if a line is not what this program writes.
pub fn read_metrics(path: &Path) -> Result<Vec<StepMetrics>> {
    let file = File::open(path).map_err(|error| Error::io("read the metrics", path, &error))?;
    let mut reader = BufReader::new(file);
    let mut steps = Vec::new();
    let mut line = String::new();
    while reader.read_line(&mut line).map_err(|error| Error::io("read the metrics", path, &error))? > 0 {
        if line.ends_with('\n') {
            steps.push(serde_json::from_str(&line).map_err(|error| Error {
                kind: Kind::Verification,
                what: "a line of the metrics cannot be read".into(),
                place: format!("{}:{}", path.display(), steps.len() + 1),
                why: error.to_string(),
                hint: "the file was changed since it was written; restore it, or remove the line".into(),
            })?);
        }
        line.clear();
    }
    Ok(steps)
}

fn number_or_nan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

fn numbers_or_nan<'de, D, K>(deserializer: D) -> Result<BTreeMap<K, f64>, D::Error>
where
    D: Deserializer<'de>,
    K: Deserialize<'de> + Ord,
{
    let numbers: BTreeMap<K, Option<f64>> = BTreeMap::deserialize(deserializer)?;
    Ok(numbers.into_iter().map(|(key, number)| (key, number.unwrap_or(f64::NAN))).collect())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::run) fn sample(step: u64) -> StepMetrics {
        StepMetrics {
            step,
            loss: 5.0,
            loss_lm: 5.1,
            loss_vra: -0.2,
            grad_norm: 1.25,
            lr: 1e-4,
            lr_projector: 1e-5,
            tokens: 100,
            supervised_tokens: 40,
            seconds: 0.5,
            tokens_per_second: 200.0,
            skipped: false,
            loss_ross: 0.0,
            loss_vra_layers: BTreeMap::from([(16, -0.2)]),
            grad_norm_groups: BTreeMap::from([("main".into(), 1.25)]),
            validation: None,
            padding_share: 0.125,
            device_bytes: 1 << 20,
            host_bytes: Some(1 << 21),
        }
    }

    #[test]
    fn a_line_begins_with_the_keys_of_the_contract_in_order() {
        let json = serde_json::to_string(&sample(0)).unwrap();
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        let keys: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(
            keys[..12],
            [
                "step",
                "loss",
                "loss_lm",
                "loss_vra",
                "grad_norm",
                "lr",
                "lr_projector",
                "tokens",
                "supervised_tokens",
                "seconds",
                "tokens_per_second",
                "skipped"
            ]
        );
    }

    #[test]
    fn numbers_survive_to_the_last_bit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut file = MetricsFile::create(&path).unwrap();
        let mut written = Vec::new();
        for step in 0..50 {
            let x = f64::from(f32::from_bits(0x3f80_0001 + (step as u32) * 0x0012_3457));
            let metrics = StepMetrics { loss: x, loss_lm: x / 3.0, lr: 2e-4 / (step as f64 + 1.0), ..sample(step) };
            file.append(&metrics).unwrap();
            written.push(metrics);
            assert_eq!(read_metrics(&path).unwrap(), written, "each line is there as soon as it is written");
        }
    }

    #[test]
    fn figures_that_are_not_finite_are_null() {
        let metrics = StepMetrics { loss: f64::NAN, grad_norm: f64::INFINITY, skipped: true, ..sample(3) };
        let json = serde_json::to_string(&metrics).unwrap();
        assert!(json.contains("\"loss\":null") && json.contains("\"grad_norm\":null"), "{json}");
        let back: StepMetrics = serde_json::from_str(&json).unwrap();
        assert!(back.loss.is_nan() && back.grad_norm.is_nan() && back.skipped);
    }

    #[test]
    fn a_resumed_file_ends_before_its_step() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut file = MetricsFile::create(&path).unwrap();
        for step in 0..5 {
            file.append(&sample(step)).unwrap();
        }
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, [&whole[..], b"{\"step\": 5, \"lo"].concat()).unwrap();
        let mut file = MetricsFile::resume(&path, 3).unwrap();
        for step in 3..5 {
            file.append(&sample(step)).unwrap();
        }
        assert_eq!(std::fs::read(&path).unwrap(), whole);
        drop(MetricsFile::resume(&path, 0).unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), b"");
    }

    #[test]
    fn torn_and_foreign_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let line = serde_json::to_string(&sample(0)).unwrap();
        std::fs::write(&path, format!("{line}\n{}", line.get(..20).unwrap())).unwrap();
        assert_eq!(read_metrics(&path).unwrap().len(), 1);
        std::fs::write(&path, format!("{line}\nnonsense\n")).unwrap();
        let error = read_metrics(&path).unwrap_err();
        assert!(error.place.ends_with("metrics.jsonl:2"), "{error}");
    }
}
