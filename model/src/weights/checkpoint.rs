//! The tensors of a model under their canonical names, from one file, several shards or several models.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use sha2::{Digest as _, Sha256};

use super::directory::open_files;
use super::file::Place;
use super::names::Canonical;
use super::{CheckpointError, Inventory, NameMap, TensorFile, TensorView, printable};

/// A mapped checkpoint whose tensors have canonical names.
pub struct Checkpoint {
    dir: PathBuf,
    pub(super) files: Vec<TensorFile>,
    pub(super) tensors: BTreeMap<String, Located>,
}

/// Where a canonical tensor is stored. It may be a slice of rows of a stored one.
pub(super) struct Located {
    pub(super) file: usize,
    stored: String,
    dtype: Dtype,
    shape: Vec<usize>,
    /// Where its bytes lie in the file.
    pub(super) place: Place,
}

impl Checkpoint {
    /// Maps the weight files of a directory: `model.safetensors`, else the shards that `model.safetensors.index.json`
    /// names, else `pytorch_model.bin` or its shards, else the one weight file that is there. `path` may also be a file.
    ///
    /// # Errors
    /// No such files, a damaged or foreign file, an index that names a missing shard or a path outside the directory,
    /// or a tensor that is stored twice.
    pub fn open(path: &Path, names: NameMap) -> Result<Self, CheckpointError> {
        Self::open_under("", path, names)
    }

    /// The same for a part of a model, whose canonical names begin with `prefix` there.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_under(prefix: &str, path: &Path, names: NameMap) -> Result<Self, CheckpointError> {
        let files = open_files(path)?;
        let mut checkpoint = Self { dir: path.to_path_buf(), files: Vec::new(), tensors: BTreeMap::new() };
        for (index, file) in files.iter().enumerate() {
            for (stored, entry) in file.entries() {
                let mut add = |name: String, shape: Vec<usize>, place: Place| {
                    let located = Located { file: index, stored: stored.into(), dtype: entry.dtype, shape, place };
                    insert(&mut checkpoint.tensors, &files, format!("{prefix}{name}"), located)
                };
                match names.map(stored) {
                    Canonical::Ignored => {}
                    Canonical::Whole(name) => add(name, entry.shape.clone(), entry.place.clone())?,
                    Canonical::RowThirds(names) => {
                        let (shape, length) = third_of(file, stored, &entry.shape, entry.place.len())?;
                        for (at, name) in names.into_iter().enumerate() {
                            add(name, shape.clone(), entry.place.part(at, length))?;
                        }
                    }
                }
            }
        }
        checkpoint.files = files;
        Ok(checkpoint)
    }

    /// Adds the tensors of another checkpoint. Where both have one, the other's is used.
    pub fn overlay(&mut self, other: Checkpoint) {
        let before = self.files.len();
        self.files.extend(other.files);
        let moved = other.tensors.into_iter().map(|(name, at)| (name, Located { file: at.file + before, ..at }));
        self.tensors.extend(moved);
    }

    /// Whether [`Self::with_replaced`] can write the model anew: it lies in safetensors files of one place.
    pub fn is_replaceable(&self) -> bool {
        let place = self.files.first().and_then(|file| file.path().parent());
        self.files.iter().all(|file| !file.header().is_empty() && file.path().parent() == place)
    }

    /// The directory or file.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Lets go of the memory into which tensors were read so far: a system counts mapped pages as the program's own.
    pub fn release(&self) {
        self.files.iter().for_each(TensorFile::release);
    }

    /// Canonical names in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Whether there is a tensor of this canonical name.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Shape of a tensor by its canonical name, if there is one.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        Some(&self.tensors.get(name)?.shape)
    }

    /// A tensor by its canonical name.
    ///
    /// # Errors
    /// There is no such tensor, or its type is not f32, f16 or bf16.
    pub fn get(&self, name: &str) -> Result<TensorView<'_>, CheckpointError> {
        let missing = || CheckpointError::Missing { path: self.dir.clone(), name: printable(name) };
        let (name, at) = self.tensors.get_key_value(name).ok_or_else(missing)?;
        let file = self.files.get(at.file).ok_or_else(missing)?;
        file.view(name, at.dtype, &at.shape, &at.place)
    }

    /// Compares the checkpoint with what the configuration calls for: every required tensor is there, has the expected
    /// shape and a weight's element type, and nothing else is there except what the inventory lists as unused.
    ///
    /// # Errors
    /// [`CheckpointError::Mismatch`] with all differences, or [`CheckpointError::Dtype`].
    pub fn check(&self, inventory: &Inventory) -> Result<(), CheckpointError> {
        let found = self.tensors.iter().map(|(name, at)| (name.as_str(), at.shape.as_slice()));
        inventory.compare(&self.dir, found, "check that config.json belongs to these weight files")?;
        for spec in &inventory.required {
            self.get(&spec.name)?;
        }
        Ok(())
    }

    /// SHA-256 (hexadecimal) over the files' sizes, headers and samples of their data: equal for copies of a checkpoint,
    /// different for another one, and fast for any size. It does not prove that every byte is equal.
    pub fn fingerprint(&self) -> String {
        const SAMPLES: usize = 64;
        const SAMPLE_BYTES: usize = 4096;
        let mut hash = Sha256::new();
        for file in &self.files {
            let data = file.data();
            hash.update((data.len() as u64).to_le_bytes());
            hash.update(file.header());
            let stride = (data.len() / SAMPLES).max(SAMPLE_BYTES);
            for piece in data.chunks(stride) {
                hash.update(&piece[..piece.len().min(SAMPLE_BYTES)]);
            }
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Adds a tensor, unless its canonical name is taken.
fn insert(
    tensors: &mut BTreeMap<String, Located>,
    files: &[TensorFile],
    name: String,
    located: Located,
) -> Result<(), CheckpointError> {
    let path = |at: &Located| files.get(at.file).map(|file| file.path().to_path_buf()).unwrap_or_default();
    if let Some(first) = tensors.get(&name) {
        return Err(CheckpointError::Duplicate {
            name: printable(&name),
            first: printable(&first.stored),
            first_file: path(first),
            second: printable(&located.stored),
            second_file: path(&located),
        });
    }
    tensors.insert(name, located);
    Ok(())
}

/// Shape and length of one third of a fused query-key-value tensor of `length` bytes.
fn third_of(
    file: &TensorFile,
    stored: &str,
    shape: &[usize],
    length: usize,
) -> Result<(Vec<usize>, usize), CheckpointError> {
    let mut third = shape.to_vec();
    match third.first_mut() {
        Some(rows) if rows.is_multiple_of(3) && length.is_multiple_of(3) => *rows /= 3,
        _ => {
            let problem = format!("tensor {} of shape {shape:?} should have three equal parts", printable(stored));
            return Err(CheckpointError::Header { path: file.path().to_path_buf(), problem });
        }
    }
    Ok((third, length / 3))
}
