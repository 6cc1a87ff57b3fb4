//! `MANIFEST.json`: what a folder holds, so that anybody can tell whether it is whole.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, Kind, Result};

/// Name of the file.
pub const MANIFEST: &str = "MANIFEST.json";

/// Size and hash of every file of a folder but the manifest itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// By name.
    pub files: BTreeMap<String, Entry>,
}

/// A file of a [`Manifest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Size.
    pub bytes: u64,
    /// SHA-256 of the content, in hexadecimal digits.
    pub sha256: String,
}

impl Manifest {
    pub(super) fn to_json(&self) -> Result<String> {
        let text = serde_json::to_string_pretty(self);
        Ok(text.map_err(|error| Error::internal("cannot write a manifest", error.to_string()))? + "\n")
    }

    /// Reads the manifest of `folder` and checks every file that it lists.
    ///
    /// # Errors
    /// [`Kind::Verification`] if the manifest or a file is missing, or differs from what was written.
    pub fn verify(folder: &Path) -> Result<Self> {
        let place = folder.join(MANIFEST);
        let text = std::fs::read(&place).map_err(|error| {
            let why = format!("{MANIFEST} cannot be read: {error}; it is written last, so the folder is not complete");
            broken(folder, why)
        })?;
        let manifest: Self =
            serde_json::from_slice(&text).map_err(|error| broken(&place, format!("not a manifest: {error}")))?;
        for (name, entry) in &manifest.files {
            let path = folder.join(name);
            if Path::new(name).components().count() != 1 || name.starts_with('.') {
                return Err(broken(&place, format!("`{name}` is no name of a file in this folder")));
            }
            let found = measure(&path).map_err(|error| broken(&path, error.to_string()))?;
            if found.bytes != entry.bytes {
                return Err(broken(&path, format!("it has {} bytes, and had {}", found.bytes, entry.bytes)));
            }
            if found.sha256 != entry.sha256 {
                return Err(broken(&path, format!("its SHA-256 is {}, and was {}", found.sha256, entry.sha256)));
            }
        }
        Ok(manifest)
    }
}

fn measure(path: &Path) -> io::Result<Entry> {
    let mut file = File::open(path)?;
    let (mut hash, mut bytes, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 20]);
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok(Entry { bytes, sha256: format!("{:x}", hash.finalize()) });
        }
        bytes += count as u64;
        hash.update(&buffer[..count]);
    }
}

fn broken(place: &Path, why: String) -> Error {
    Error {
        kind: Kind::Verification,
        what: "a checkpoint is damaged or incomplete".into(),
        place: place.display().to_string(),
        why,
        hint: "resume from another checkpoint, or copy this one again from where it is whole".into(),
    }
}
