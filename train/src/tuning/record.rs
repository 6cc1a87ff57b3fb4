//! The file of what was measured on one device with one driver.

use std::fmt::Write as _;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};
use viral_compiler::{Target, Tuning, tunables};
use viral_runtime::AdapterReport;

use crate::error::{Error, Kind, Result};
use crate::store::{Survives, hex, replace_file};

/// Raised when a reader of older programs would go wrong.
const FORMAT: u32 = 1;

const HEADING: &str = "\
# Kernels that were measured to be faster on this device than those that the rules of viral-wgpu choose.
#
# `--tune full` measures and writes this; runs that begin with `--tune cached`, the default, use it, and those with
# `--tune off` do not. A run keeps a copy in its folder and goes on with that one when it is resumed.
#
# An entry is one decision (tunable) for one class of problems: what was chosen instead of what the rule says, and the median
# time of such a problem alone, in milliseconds. Extents are rounded up to quarters of powers of two. Entries, or the whole
# file, may be deleted: rules decide what is not listed.
";

/// What was measured, where.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TuningRecord {
    /// Of this file.
    pub format: u32,
    /// Name that the driver gives the device.
    pub adapter: String,
    /// Graphics interface.
    pub backend: String,
    /// Driver name and version.
    pub driver: String,
    /// Version of viral-wgpu.
    pub version: String,
    /// The kernels that were measured, as [`tunables::version`] tells them from others.
    pub kernels: String,
    /// When, UTC.
    pub measured: String,
    /// What was chosen.
    #[serde(default, rename = "choice")]
    pub entries: Vec<Entry>,
}

/// One choice against the rule.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The decision.
    pub tunable: String,
    /// The problems that it is for.
    pub class: String,
    /// What is chosen.
    pub choice: String,
    /// What the rule would choose.
    pub rule: String,
    /// Median time of a problem with the choice, in milliseconds.
    pub choice_ms: f64,
    /// With the rule's.
    pub rule_ms: f64,
}

impl TuningRecord {
    /// A record without entries, of measurements at a time given in words.
    pub fn new(adapter: &AdapterReport, target: &Target, measured: String) -> Self {
        Self {
            format: FORMAT,
            adapter: adapter.name.clone(),
            backend: adapter.backend.name().to_owned(),
            driver: adapter.driver.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kernels: kernels(target),
            measured,
            entries: Vec::new(),
        }
    }

    /// The file of a device among those in `folder`: its name for whoever looks, and a hash, because names may differ in what
    /// no file name can hold.
    pub fn file(folder: &Path, adapter: &AdapterReport) -> PathBuf {
        let hash = hex(&Sha256::digest(adapter.with_driver())[..4]);
        let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
        let words: Vec<String> =
            adapter.name.split_whitespace().take(3).map(|word| word.chars().map(plain).collect()).collect();
        let name: String = words.join("-").chars().take(40).collect();
        folder.join(format!("{}-{}-{hash}.toml", name.trim_matches('-'), adapter.backend.name()))
    }

    /// Reads a record; nothing where there is none.
    ///
    /// # Errors
    /// A file that cannot be read, or that is no such record.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("read what was measured about kernels", path, &error)),
        };
        let damaged = |why: String| Error {
            kind: Kind::Config,
            what: "the record of measured kernels is damaged".into(),
            place: path.display().to_string(),
            why,
            hint: "delete the file, or have it written again with --tune full".into(),
        };
        let text = String::from_utf8(text).map_err(|error| damaged(error.to_string()))?;
        let record: Self = toml::from_str(&text).map_err(|error| damaged(error.to_string().trim_end().to_owned()))?;
        match record.format {
            FORMAT => Ok(Some(record)),
            other => Err(damaged(format!("it has format {other}, and this version reads {FORMAT}"))),
        }
    }

    /// Why what the record says does not hold for a device and the kernels of this program, if it does not.
    pub fn foreign(&self, adapter: &AdapterReport, target: &Target) -> Option<String> {
        let now = Self::new(adapter, target, String::new());
        for (what, recorded, present) in [
            ("device", &self.adapter, &now.adapter),
            ("backend", &self.backend, &now.backend),
            ("driver", &self.driver, &now.driver),
        ] {
            if recorded != present {
                return Some(format!("it is of the {what} `{recorded}`, and this is `{present}`"));
            }
        }
        (self.kernels != now.kernels).then(|| {
            let Self { version, measured, .. } = self;
            format!("it was measured on {measured} with other kernels (viral-wgpu {version}, {})", self.kernels)
        })
    }

    /// The choices as a plan's compiler takes them, and what is wrong with those that mean nothing here.
    pub fn tuning(&self, target: &Target) -> (Tuning, Vec<String>) {
        let (mut tuning, mut ignored) = (Tuning::default(), Vec::new());
        for Entry { tunable, class, choice, .. } in &self.entries {
            match tunables::check([tunable, class, choice], target) {
                Ok(()) => tuning.set(tunable, class, choice),
                Err(why) => ignored.push(format!("{tunable} of `{class}`: {why}")),
            }
        }
        (tuning, ignored)
    }

    /// The file's content.
    pub fn to_toml(&self) -> String {
        let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
        let mut text = format!("{HEADING}\nformat = {}\n", self.format);
        for (key, value) in [
            ("adapter", &self.adapter),
            ("backend", &self.backend),
            ("driver", &self.driver),
            ("version", &self.version),
            ("kernels", &self.kernels),
            ("measured", &self.measured),
        ] {
            let _ = writeln!(text, "{key} = {}", quoted(value));
        }
        for Entry { tunable, class, choice, rule, choice_ms, rule_ms } in &self.entries {
            text += "\n[[choice]]\n";
            for (key, value) in [("tunable", tunable), ("class", class), ("choice", choice), ("rule", rule)] {
                let _ = writeln!(text, "{key} = {}", quoted(value));
            }
            let _ = writeln!(text, "choice_ms = {choice_ms:?}\nrule_ms = {rule_ms:?}");
        }
        text
    }

    /// Writes the file as a whole: a reader sees the old content or the new, never a part.
    ///
    /// # Errors
    /// [`Kind::Io`] if the disk refuses.
    pub fn write(&self, path: &Path) -> Result<()> {
        let written = replace_file(path, self.to_toml().as_bytes(), Survives::LossOfPower);
        written.map_err(|error| Error::io("write what was measured about kernels", path, &error))
    }
}

fn kernels(target: &Target) -> String {
    format!("{:016x}", tunables::version(target))
}
