//! Writing a folder as a whole.

use std::borrow::Cow;
use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::disk::Disk;
use super::manifest::{Entry, MANIFEST, Manifest};
use crate::error::{Error, Kind, Result};

/// How a file's content comes about.
type Content<'a> = Box<dyn FnOnce(&mut dyn Write) -> Result<()> + 'a>;

/// A file that is to be written.
pub struct Part<'a> {
    name: String,
    bytes: u64,
    content: Content<'a>,
}

impl<'a> Part<'a> {
    /// A file of `bytes` bytes that `content` writes piece by piece.
    pub fn new(name: impl Into<String>, bytes: u64, content: impl FnOnce(&mut dyn Write) -> Result<()> + 'a) -> Self {
        Self { name: name.into(), bytes, content: Box::new(content) }
    }

    /// A file made of pieces that are there already.
    pub fn pieces(name: impl Into<String>, pieces: Vec<Cow<'a, [u8]>>) -> Self {
        let bytes = pieces.iter().map(|piece| piece.len() as u64).sum();
        Self::new(name, bytes, move |out| pieces.iter().try_for_each(|piece| put(out, piece)))
    }

    /// A file of text.
    pub fn text(name: impl Into<String>, text: String) -> Self {
        Self::pieces(name, vec![Cow::Owned(text.into_bytes())])
    }
}

/// Writes bytes of a part. Where the disk refuses, [`write_folder`] replaces the error by one that has the place.
///
/// # Errors
/// The disk refuses.
pub(crate) fn put(out: &mut dyn Write, bytes: &[u8]) -> Result<()> {
    out.write_all(bytes).map_err(|error| Error::io("write", Path::new(""), &error))
}

/// Writes a folder with these files, and with a manifest if `has_manifest`. It appears complete or not at all, and a folder
/// of this name that was there is replaced. When this returns, the folder survives a loss of power.
///
/// # Errors
/// [`Kind::Io`] if the disk refuses, with what is needed and what is free; and what a part itself fails with.
pub fn write_folder(disk: &dyn Disk, target: &Path, parts: Vec<Part<'_>>, has_manifest: bool) -> Result<()> {
    let parent = target.parent().unwrap_or(Path::new("."));
    let need: u64 = parts.iter().map(|part| part.bytes).sum();
    let refused = |path: &Path, error: &io::Error| refused(disk, path, parent, need, error);
    if let Some(free) = disk.available(parent).filter(|&free| free < need) {
        return Err(full(target, need, Some(free), &"the disk is too full"));
    }
    let temporary = with_suffix(target, ".part");
    if temporary.exists() {
        disk.remove_dir(&temporary).map_err(|error| refused(&temporary, &error))?;
    }
    disk.create_dir(&temporary).map_err(|error| refused(&temporary, &error))?;
    let mut manifest = Manifest::default();
    for Part { name, bytes, content } in parts {
        let path = temporary.join(&name);
        let entry = write_file(disk, &path, content, &refused)?;
        if entry.bytes != bytes {
            let why = format!("{} bytes were announced and {} written", bytes, entry.bytes);
            return Err(Error { place: path.display().to_string(), ..Error::internal("a file has another size", why) });
        }
        manifest.files.insert(name, entry);
    }
    if has_manifest {
        let text = manifest.to_json()?;
        write_file(disk, &temporary.join(MANIFEST), Box::new(|out| put(out, text.as_bytes())), &refused)?;
    }
    disk.sync_dir(&temporary).map_err(|error| refused(&temporary, &error))?;
    // A folder cannot be renamed over another one, so the old one leaves first.
    let old = with_suffix(target, ".old.part");
    let replaces = target.exists();
    if replaces {
        if old.exists() {
            disk.remove_dir(&old).map_err(|error| refused(&old, &error))?;
        }
        disk.rename(target, &old).map_err(|error| refused(target, &error))?;
    }
    disk.rename(&temporary, target).map_err(|error| refused(target, &error))?;
    disk.sync_dir(parent).map_err(|error| refused(parent, &error))?;
    if replaces {
        disk.remove_dir(&old).map_err(|error| refused(&old, &error))?;
    }
    Ok(())
}

fn write_file(
    disk: &dyn Disk,
    path: &Path,
    content: Content<'_>,
    refused: &dyn Fn(&Path, &io::Error) -> Error,
) -> Result<Entry> {
    let mut file = disk.create(path).map_err(|error| refused(path, &error))?;
    let mut out = Hashing { out: &mut file, hash: Sha256::new(), bytes: 0, failed: None };
    let written = content(&mut out);
    let (bytes, hash, failed) = (out.bytes, out.hash, out.failed);
    if let (Err(_), Some(error)) = (&written, failed) {
        return Err(refused(path, &error));
    }
    written?;
    file.sync().map_err(|error| refused(path, &error))?;
    Ok(Entry { bytes, sha256: format!("{:x}", hash.finalize()) })
}

/// Passes bytes on and remembers what they were, and why they could not be passed on.
struct Hashing<'f, W: Write + ?Sized> {
    out: &'f mut Box<W>,
    hash: Sha256,
    bytes: u64,
    failed: Option<io::Error>,
}

impl<W: Write + ?Sized> Write for Hashing<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.out.write(bytes) {
            Ok(count) => {
                self.hash.update(&bytes[..count]);
                self.bytes += count as u64;
                Ok(count)
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let kind = error.kind();
                self.failed = Some(error);
                Err(kind.into())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// The error for an operation on `path` that the disk refused.
pub(super) fn refused(disk: &dyn Disk, path: &Path, parent: &Path, need: u64, error: &io::Error) -> Error {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => full(path, need, disk.available(parent), error),
        _ => Error::io("write", path, error),
    }
}

fn full(path: &Path, need: u64, free: Option<u64>, why: &dyn Display) -> Error {
    let free = free.map_or_else(|| "an unknown number of".into(), |free| free.to_string());
    Error {
        kind: Kind::Io,
        what: "the disk is full".into(),
        place: path.display().to_string(),
        why: format!("{why}: {need} bytes are needed and {free} bytes are free"),
        hint:
            "free some space and continue with --resume, keep fewer checkpoints with train.keep_checkpoints, or choose \
               another disk with --out; earlier checkpoints are whole"
                .into(),
    }
}

/// The path with something added to its last name.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
