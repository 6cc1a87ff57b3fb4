//! Writing safetensors files.
//!
//! A file is its front, a length and a header that depend on names and shapes alone, and then the tensors' bytes.
//! Whoever brings a disk of its own asks for [`safetensors_front`]; [`write_safetensors`] does the rest for the others.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use super::{CheckpointError, StoredDtype, printable};

/// A tensor to be written.
#[derive(Clone, Debug)]
pub struct TensorOut<'a> {
    /// Name in the file.
    pub name: String,
    /// Element type.
    pub dtype: StoredDtype,
    /// Extents.
    pub shape: Vec<usize>,
    /// Little-endian elements in row-major order.
    pub bytes: Cow<'a, [u8]>,
}

impl<'a> TensorOut<'a> {
    /// A tensor of `f32` values.
    pub fn f32(name: impl Into<String>, shape: impl Into<Vec<usize>>, values: &'a [f32]) -> Self {
        let bytes: &[u8] = bytemuck::cast_slice(values);
        let bytes = if cfg!(target_endian = "little") {
            Cow::Borrowed(bytes)
        } else {
            Cow::Owned(values.iter().flat_map(|x| x.to_le_bytes()).collect())
        };
        Self { name: name.into(), dtype: StoredDtype::F32, shape: shape.into(), bytes }
    }
}

/// Name, element type and extents of a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorHead {
    /// Name in the file.
    pub name: String,
    /// Element type.
    pub dtype: StoredDtype,
    /// Extents.
    pub shape: Vec<usize>,
}

impl TensorHead {
    /// Bytes of the tensor's data.
    pub fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.bytes()
    }
}

/// Puts tensors into the order of a file and makes the file's front: the header's length and the header, with metadata
/// `{"format": "pt"}`, byte for byte as the reference implementation writes them. The tensors' bytes follow in the new
/// order: by element type, then by name.
///
/// # Errors
/// A name occurs twice. `path` is for the message.
pub fn safetensors_front(path: &Path, tensors: &mut [TensorHead]) -> Result<Vec<u8>, CheckpointError> {
    let damaged = |problem: String| CheckpointError::Header { path: path.to_path_buf(), problem };
    tensors.sort_by(|a, b| stored(b.dtype).cmp(&stored(a.dtype)).then_with(|| a.name.cmp(&b.name)));
    let mut names = BTreeSet::new();
    let mut infos = Vec::with_capacity(tensors.len());
    let mut offset = 0;
    for tensor in tensors.iter() {
        if !names.insert(tensor.name.as_str()) {
            return Err(damaged(format!("tensor {} occurs twice", printable(&tensor.name))));
        }
        let end = offset + tensor.bytes();
        let info = TensorInfo { dtype: stored(tensor.dtype), shape: tensor.shape.clone(), data_offsets: (offset, end) };
        infos.push((tensor.name.clone(), info));
        offset = end;
    }
    let format = HashMap::from([("format".to_string(), "pt".to_string())]);
    let metadata = Metadata::new(Some(format), infos).map_err(|error| damaged(error.to_string()))?;
    let json = serde_json::to_vec(&metadata).map_err(|error| damaged(error.to_string()))?;
    // Padded with spaces so that the data starts at a multiple of 8.
    let length = json.len().next_multiple_of(8);
    let mut front = (length as u64).to_le_bytes().to_vec();
    front.extend(json);
    front.resize(8 + length, b' ');
    Ok(front)
}

/// The pieces that make up a safetensors file. The same tensors give the same bytes whatever their order.
///
/// # Errors
/// A name occurs twice, or a shape does not fit its bytes. `path` is for the message.
pub fn safetensors_pieces<'a>(path: &Path, tensors: &[TensorOut<'a>]) -> Result<Vec<Cow<'a, [u8]>>, CheckpointError> {
    let head = |tensor: &TensorOut<'_>| TensorHead {
        name: tensor.name.clone(),
        dtype: tensor.dtype,
        shape: tensor.shape.clone(),
    };
    let mut heads: Vec<TensorHead> = tensors.iter().map(head).collect();
    let front = safetensors_front(path, &mut heads)?;
    let by_name: HashMap<&str, &TensorOut<'a>> = tensors.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
    let mut pieces = vec![Cow::Owned(front)];
    for head in &heads {
        let bytes = by_name[head.name.as_str()].bytes.clone();
        if bytes.len() != head.bytes() {
            let problem = format!("tensor {} has {} bytes for shape {:?}", head.name, bytes.len(), head.shape);
            return Err(CheckpointError::Header { path: path.to_path_buf(), problem });
        }
        pieces.push(bytes);
    }
    Ok(pieces)
}

/// Writes a safetensors file. It appears complete or not at all: it is written beside its final place, flushed to the
/// disk and renamed.
///
/// # Errors
/// The disk refuses, a name occurs twice, or a shape does not fit its bytes.
pub fn write_safetensors(path: &Path, tensors: &[TensorOut<'_>]) -> Result<(), CheckpointError> {
    let pieces = safetensors_pieces(path, tensors)?;
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let write = || -> std::io::Result<()> {
        let mut out = BufWriter::with_capacity(1 << 20, File::create(&partial)?);
        for piece in &pieces {
            out.write_all(piece)?;
        }
        out.into_inner()?.sync_all()?;
        std::fs::rename(&partial, path)
    };
    write().map_err(|source| {
        // Best effort: what matters is the error that led here.
        let _ = std::fs::remove_file(&partial);
        CheckpointError::Io { action: "cannot write", path: path.to_path_buf(), source }
    })
}

fn stored(dtype: StoredDtype) -> Dtype {
    match dtype {
        StoredDtype::F32 => Dtype::F32,
        StoredDtype::F16 => Dtype::F16,
        StoredDtype::Bf16 => Dtype::BF16,
    }
}
