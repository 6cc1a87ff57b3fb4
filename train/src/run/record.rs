//! `run.json`: what ran, with which settings, on which device.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::config::Config;

/// How far a run has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Still going, or its process was ended from outside.
    Running,
    /// All steps done and all files written.
    Finished,
    /// Stopped by an error.
    Failed,
    /// Stopped by a signal, with a checkpoint.
    Interrupted,
}

/// The device as a reader of a result needs to know it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DeviceRecord {
    /// Name that the driver gives the device.
    pub adapter: String,
    /// Graphics interface.
    pub backend: String,
    /// Driver name and version.
    pub driver: String,
}

/// The content of `run.json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunRecord {
    /// How far the run has come.
    pub status: Status,
    /// Version of viral-wgpu.
    pub version: &'static str,
    /// Start of the run, UTC.
    pub started: String,
    /// Operating system and processor architecture.
    pub platform: String,
    /// The device that trains.
    pub device: DeviceRecord,
    /// Start of every random stream.
    pub seed: u64,
    /// Optimiser steps of the whole run.
    pub steps: u64,
    /// The step that the last part of the run went on from, if it was resumed.
    pub resumed_from: Option<u64>,
    /// Hashes of what went in, by name: whoever repeats the run can check that they have the same.
    pub fingerprints: BTreeMap<String, String>,
    /// The resolved configuration.
    pub config: Config,
}

/// The time, UTC.
pub(crate) fn now() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}

impl RunRecord {
    /// The record of a run that begins now.
    pub fn new(config: &Config, device: DeviceRecord, steps: u64, fingerprints: BTreeMap<String, String>) -> Self {
        Self {
            status: Status::Running,
            version: env!("CARGO_PKG_VERSION"),
            started: now(),
            platform: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            device,
            seed: config.train.seed,
            steps,
            resumed_from: None,
            fingerprints,
            config: config.clone(),
        }
    }

    /// The status in a `run.json`, if there is one that can be read.
    pub(super) fn read_status(path: &Path) -> Option<Status> {
        #[derive(Deserialize)]
        struct Head {
            status: Status,
        }
        let head: Head = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
        Some(head.status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_holds_the_whole_configuration() {
        let record = RunRecord::new(&Config::default(), DeviceRecord::default(), 12, BTreeMap::new());
        let json = serde_json::to_value(&record).unwrap();
        assert_eq!(json["status"], "running");
        assert_eq!(json["seed"], 42);
        assert_eq!(json["steps"], 12);
        assert_eq!(json["config"]["train"]["lr"], 2e-4);
        assert_eq!(json["config"]["vra"]["objective"], "cosine");
        assert!(json["started"].as_str().unwrap().ends_with('Z'));
        for section in crate::config::SECTIONS {
            for key in section.keys {
                assert!(json["config"][section.name].get(key.name).is_some(), "{}", key.path());
            }
        }
    }

    #[test]
    fn a_status_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.json");
        assert_eq!(RunRecord::read_status(&path), None);
        for status in [Status::Running, Status::Finished, Status::Failed, Status::Interrupted] {
            let record =
                RunRecord { status, ..RunRecord::new(&Config::default(), DeviceRecord::default(), 1, BTreeMap::new()) };
            std::fs::write(&path, serde_json::to_vec(&record).unwrap()).unwrap();
            assert_eq!(RunRecord::read_status(&path), Some(status));
        }
    }
}
