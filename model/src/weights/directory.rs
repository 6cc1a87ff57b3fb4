//! Which files of a directory hold a model's tensors.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use serde_json::{Map, Value};

use super::{CheckpointError, TensorFile, printable};

/// Single files and indexes of shards by their usual names, in the order of preference.
const SINGLES: [(&str, &str); 3] = [
    ("model.safetensors", "model.safetensors.index.json"),
    ("pytorch_model.bin", "pytorch_model.bin.index.json"),
    // What diffusers writes, often beside the same in other forms.
    ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.safetensors.index.json"),
];

/// Endings of weight files. Research releases are one such file of any name.
const ENDINGS: [&str; 5] = [".safetensors", ".bin", ".pth", ".pt", ".pth.tar"];

/// An index of a model with a hundred thousand tensors stays well below this.
const MAX_INDEX_BYTES: u64 = 64 << 20;

/// Opens a file, or the files of a directory: the single one, every shard of the index in alphabetical order, or the one
/// weight file that is there.
pub(super) fn open_files(path: &Path) -> Result<Vec<TensorFile>, CheckpointError> {
    if path.is_file() {
        return Ok(vec![TensorFile::open(path)?]);
    }
    for (single, index) in SINGLES {
        if path.join(single).is_file() {
            return Ok(vec![TensorFile::open(&path.join(single))?]);
        }
        if path.join(index).is_file() {
            return open_shards(path, &path.join(index));
        }
    }
    match weight_files(path)?.as_slice() {
        [] => Err(no_weights(path, "; check the path")),
        [one] => Ok(vec![TensorFile::open(one)?]),
        [_, _, ..] => Err(no_weights(path, ", but several other weight files; name the one that is meant")),
    }
}

/// Opens every shard of an index.
fn open_shards(dir: &Path, index: &Path) -> Result<Vec<TensorFile>, CheckpointError> {
    let weight_map = read_index(index)?;
    let shards: BTreeSet<&str> = weight_map.values().map(String::as_str).collect();
    let mut files = BTreeMap::new();
    for shard in shards {
        let path = shard_path(dir, index, shard)?;
        files.insert(shard, TensorFile::open(&path)?);
    }
    for (name, shard) in &weight_map {
        if !files.get(shard.as_str()).is_some_and(|file| file.contains(name)) {
            let problem = format!("tensor {} is not in {}, where the index puts it", printable(name), printable(shard));
            return Err(CheckpointError::Index { path: index.to_path_buf(), problem });
        }
    }
    Ok(files.into_values().collect())
}

/// The files of a directory that look like weights, in alphabetical order.
fn weight_files(dir: &Path) -> Result<Vec<PathBuf>, CheckpointError> {
    let io = |source| CheckpointError::Io { action: "cannot open model directory", path: dir.to_path_buf(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if ENDINGS.iter().any(|ending| name.ends_with(ending)) && path.is_file() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
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

fn no_weights(dir: &Path, found: &'static str) -> CheckpointError {
    CheckpointError::NoWeights { dir: dir.to_path_buf(), found }
}
