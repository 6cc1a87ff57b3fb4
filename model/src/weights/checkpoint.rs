//! A model directory: one safetensors file or several shards with an index.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Component, Path, PathBuf};

use safetensors::Dtype;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::names::Canonical;
use super::{CheckpointError, Inventory, NameMap, TensorFile, TensorView, printable};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// An index of a model with a hundred thousand tensors stays well below this.
const MAX_INDEX_BYTES: u64 = 64 << 20;

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
    /// Position inside the file's data, in bytes.
    pub(super) range: Range<usize>,
}

impl Checkpoint {
    /// Maps the weight files of a directory in the Hugging Face layout: `model.safetensors`, else the shards that
    /// `model.safetensors.index.json` names.
    ///
    /// # Errors
    /// No such files, a damaged or foreign file, an index that names a missing shard or a path outside the directory,
    /// or a tensor that is stored twice.
    pub fn open(dir: &Path, names: NameMap) -> Result<Self, CheckpointError> {
        let files = open_files(dir)?;
        let mut checkpoint = Self { dir: dir.to_path_buf(), files: Vec::new(), tensors: BTreeMap::new() };
        for (index, file) in files.iter().enumerate() {
            for (stored, entry) in file.entries() {
                let mut place = |name: String, shape: Vec<usize>, range: Range<usize>| {
                    let located = Located { file: index, stored: stored.into(), dtype: entry.dtype, shape, range };
                    insert(&mut checkpoint.tensors, &files, name, located)
                };
                match names.map(stored) {
                    Canonical::Ignored => {}
                    Canonical::Whole(name) => place(name, entry.shape.clone(), entry.range.clone())?,
                    Canonical::RowThirds(names) => {
                        let third = third_of(file, stored, &entry.shape, &entry.range)?;
                        for (at, name) in names.into_iter().enumerate() {
                            let start = entry.range.start + at * third.1;
                            place(name, third.0.clone(), start..start + third.1)?;
                        }
                    }
                }
            }
        }
        checkpoint.files = files;
        Ok(checkpoint)
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Canonical names in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Whether there is a tensor of this canonical name.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// A tensor by its canonical name.
    ///
    /// # Errors
    /// There is no such tensor, or its type is not f32, f16 or bf16.
    pub fn get(&self, name: &str) -> Result<TensorView<'_>, CheckpointError> {
        let missing = || CheckpointError::Missing { path: self.dir.clone(), name: printable(name) };
        let (name, at) = self.tensors.get_key_value(name).ok_or_else(missing)?;
        let file = self.files.get(at.file).ok_or_else(missing)?;
        file.view(name, at.dtype, &at.shape, at.range.clone())
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

/// Opens the single file, or every shard of the index in alphabetical order.
fn open_files(dir: &Path) -> Result<Vec<TensorFile>, CheckpointError> {
    let single = dir.join(SINGLE);
    if single.is_file() {
        return Ok(vec![TensorFile::open(&single)?]);
    }
    let index = dir.join(INDEX);
    if !index.is_file() {
        return Err(no_weights(dir));
    }
    let weight_map = read_index(&index)?;
    let shards: BTreeSet<&str> = weight_map.values().map(String::as_str).collect();
    let mut files = BTreeMap::new();
    for shard in shards {
        let path = shard_path(dir, &index, shard)?;
        files.insert(shard, TensorFile::open(&path)?);
    }
    for (name, shard) in &weight_map {
        if !files.get(shard.as_str()).is_some_and(|file| file.contains(name)) {
            let problem = format!("tensor {} is not in {}, where the index puts it", printable(name), printable(shard));
            return Err(CheckpointError::Index { path: index, problem });
        }
    }
    Ok(files.into_values().collect())
}

/// The `weight_map` of an index file.
fn read_index(path: &Path) -> Result<BTreeMap<String, String>, CheckpointError> {
    let io = |source| CheckpointError::Io { action: "cannot read", path: path.to_path_buf(), source };
    let wrong = |problem: String| CheckpointError::Index { path: path.to_path_buf(), problem };
    let length = std::fs::metadata(path).map_err(io)?.len();
    if length > MAX_INDEX_BYTES {
        return Err(wrong(format!("{length} bytes is too large for an index")));
    }
    let bytes = std::fs::read(path).map_err(io)?;
    let mut root: Map<String, Value> =
        serde_json::from_slice(&bytes).map_err(|error| wrong(format!("not a JSON object: {error}")))?;
    let map = root.remove("weight_map").ok_or_else(|| wrong("it has no `weight_map`".into()))?;
    let map: BTreeMap<String, String> = serde_json::from_value(map)
        .map_err(|error| wrong(format!("`weight_map` is not an object of file names: {error}")))?;
    if map.is_empty() {
        return Err(wrong("`weight_map` is empty".into()));
    }
    Ok(map)
}

/// Where a shard named by an index lies. The name must be relative and stay inside the directory, also behind symbolic
/// links; the link farm of a hub cache (`snapshots/REVISION` next to `blobs`) counts as inside.
fn shard_path(dir: &Path, index: &Path, shard: &str) -> Result<PathBuf, CheckpointError> {
    let wrong = |problem: &str| CheckpointError::Index {
        path: index.to_path_buf(),
        problem: format!("shard {} {problem}", printable(shard)),
    };
    let relative = Path::new(shard);
    if shard.is_empty() || !relative.components().all(|part| matches!(part, Component::Normal(_))) {
        return Err(wrong("is not a plain relative path"));
    }
    let path = dir.join(relative);
    let (Ok(root), Ok(target)) = (dir.canonicalize(), path.canonicalize()) else {
        return Err(wrong("is missing; copy or download it again"));
    };
    let snapshots = root.parent().filter(|parent| parent.file_name().is_some_and(|name| name == "snapshots"));
    let blobs = snapshots.and_then(Path::parent).map(|repository| repository.join("blobs"));
    if target.starts_with(&root) || blobs.is_some_and(|blobs| target.starts_with(blobs)) {
        return Ok(path);
    }
    Err(wrong("is a link that leaves the model directory"))
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

/// Shape and bytes of one third of a fused query-key-value tensor.
fn third_of(
    file: &TensorFile,
    stored: &str,
    shape: &[usize],
    range: &Range<usize>,
) -> Result<(Vec<usize>, usize), CheckpointError> {
    let mut third = shape.to_vec();
    match third.first_mut() {
        Some(rows) if rows.is_multiple_of(3) && range.len().is_multiple_of(3) => *rows /= 3,
        _ => {
            let problem = format!("tensor {} of shape {shape:?} should have three equal parts", printable(stored));
            return Err(CheckpointError::Header { path: file.path().to_path_buf(), problem });
        }
    }
    Ok((third, range.len() / 3))
}

/// What to say about a directory without safetensors files.
fn no_weights(dir: &Path) -> CheckpointError {
    if let Err(source) = std::fs::read_dir(dir) {
        return CheckpointError::Io { action: "cannot open model directory", path: dir.to_path_buf(), source };
    }
    let has = |name: &str| dir.join(name).exists();
    let found = if has("pytorch_model.bin") || has("pytorch_model.bin.index.json") {
        ", only PyTorch pickle files; convert them with `save_pretrained(…, safe_serialization=True)`"
    } else {
        "; check the path"
    };
    CheckpointError::NoWeights { dir: dir.to_path_buf(), found }
}
