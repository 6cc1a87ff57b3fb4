//! Training runs in folders of their own.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde_json::Value as Json;
use tempfile::TempDir;
use viral_model::adapter::Parameter;
use viral_runtime::Device;
use viral_train::Config;
use viral_train::config::Precision;
use viral_train::engine::{Finished, Resume, Training, open_device};
use viral_train::run::{Interrupt, StepMetrics, read_metrics};

use super::cases::read_tensors;
use super::device;

/// The device that runs of this configuration share. Each of them could open its own: it would compile the same kernels again.
pub(crate) fn device_of(config: &Config) -> Device {
    static WITH_MATRICES: OnceLock<Device> = OnceLock::new();
    match config.train.precision {
        Precision::F32 => device().clone(),
        Precision::Bf16 | Precision::F16 => WITH_MATRICES.get_or_init(|| new_device(config)).clone(),
    }
}

/// The device of a run that shares it with nobody.
pub(crate) fn new_device(config: &Config) -> Device {
    open_device(config, None).unwrap_or_else(|error| panic!("{error}"))
}

/// A finished run, whose folder lives as long as the value.
pub(crate) struct Run {
    pub(crate) finished: Finished,
    folder: TempDir,
}

impl Run {
    /// Trains as `config` says, in a new folder.
    ///
    /// # Panics
    /// If the run fails.
    pub(crate) fn new(config: &Config) -> Self {
        Self::on(device_of(config), config)
    }

    /// As [`Run::new`], on this device.
    pub(crate) fn on(device: Device, config: &Config) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config.clone();
        config.output.dir = folder.path().join("run");
        let finished = Training::new(&config).on(device).run().unwrap_or_else(|error| panic!("{error}"));
        Self { finished, folder }
    }

    /// Trains as `config` says, in a new folder, but ends after every step and goes on from its checkpoint. Returns the run
    /// and how often it was stopped.
    ///
    /// # Panics
    /// If the run fails otherwise than by being stopped.
    pub(crate) fn in_single_steps(config: &Config) -> (Self, usize) {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config.clone();
        config.output.dir = folder.path().join("run");
        let interrupt = Interrupt::default();
        interrupt.stop();
        for stops in 0.. {
            let training = Training::new(&config).on(device_of(&config)).interruptible(interrupt.clone());
            let training = if stops == 0 { training } else { training.resume(Resume::default()) };
            match training.run() {
                Ok(finished) => return (Self { finished, folder }, stops),
                Err(error) => assert_eq!(error.kind.exit_code(), 130, "{error}"),
            }
        }
        unreachable!("a run has an end")
    }

    /// The run folder.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    /// The adapter directory.
    pub(crate) fn adapter(&self) -> PathBuf {
        self.path().join("adapter")
    }

    /// The figures of every step.
    pub(crate) fn metrics(&self) -> Vec<StepMetrics> {
        read_metrics(&self.path().join("metrics.jsonl")).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Every tensor of the adapter directory by its key.
    pub(crate) fn tensors(&self) -> BTreeMap<String, Parameter> {
        read_adapter(&self.adapter())
    }

    /// All that a run of the same numbers has in common with this one.
    pub(crate) fn bits(&self) -> Bits {
        Bits::of(&self.path())
    }
}

/// What does not depend on the clock: the figures of every step as text, and the bytes of every adapter file.
#[derive(PartialEq, Eq)]
pub(crate) struct Bits {
    pub(crate) metrics: Vec<String>,
    pub(crate) adapter: BTreeMap<String, Vec<u8>>,
}

impl Bits {
    /// Of a run folder.
    pub(crate) fn of(run: &Path) -> Self {
        let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
        let figures = text.lines().map(|line| {
            let mut figures: Json = serde_json::from_str(line).unwrap();
            for time in ["seconds", "tokens_per_second", "device_bytes", "host_bytes"] {
                figures.as_object_mut().unwrap().remove(time).unwrap();
            }
            figures.to_string()
        });
        let adapter = run.join("adapter");
        let files = file_names(&adapter).into_iter();
        Self {
            metrics: figures.collect(),
            adapter: files.map(|name| (name.clone(), fs::read(adapter.join(name)).unwrap())).collect(),
        }
    }

    /// Fails with the first difference. Files named in `except` may differ.
    #[track_caller]
    pub(crate) fn assert_equal(&self, other: &Self, except: &[&str], place: &str) {
        assert_eq!(self.metrics, other.metrics, "{place}");
        assert!(self.adapter.keys().eq(other.adapter.keys()), "{place}");
        for (name, bytes) in self.adapter.iter().filter(|(name, _)| !except.contains(&name.as_str())) {
            assert!(*bytes == other.adapter[name], "{place}: {name}");
        }
    }
}

/// Every tensor of an adapter directory by its key.
pub(crate) fn read_adapter(dir: &Path) -> BTreeMap<String, Parameter> {
    let files = file_names(dir).into_iter().filter(|name| name.ends_with(".safetensors"));
    files.flat_map(|name| read_tensors(&dir.join(name))).collect()
}

/// Names in a folder, in alphabetical order.
pub(crate) fn file_names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = entries.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}
