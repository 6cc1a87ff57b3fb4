//! Writing safetensors files.

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

/// Writes a safetensors file with metadata `{"format": "pt"}`, byte for byte as the reference implementation does:
/// tensors ordered by element type and name, header padded to 8 bytes. The same tensors give the same bytes whatever
/// their order. The file appears complete or not at all: it is written beside its final place, flushed to the disk and
/// renamed.
///
/// # Errors
/// The disk refuses, a name occurs twice, or a shape does not fit its bytes.
pub fn write_safetensors(path: &Path, tensors: &[TensorOut<'_>]) -> Result<(), CheckpointError> {
    let mut order: Vec<&TensorOut<'_>> = tensors.iter().collect();
    order.sort_by(|a, b| stored(b.dtype).cmp(&stored(a.dtype)).then_with(|| a.name.cmp(&b.name)));
    let header = header(path, &order)?;

    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let write = || -> std::io::Result<()> {
        let mut out = BufWriter::with_capacity(1 << 20, File::create(&partial)?);
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(&header)?;
        for tensor in &order {
            out.write_all(&tensor.bytes)?;
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

/// The header's JSON, padded with spaces so that the data starts at a multiple of 8.
fn header(path: &Path, order: &[&TensorOut<'_>]) -> Result<Vec<u8>, CheckpointError> {
    let damaged = |problem: String| CheckpointError::Header { path: path.to_path_buf(), problem };
    let mut names = BTreeSet::new();
    let mut infos = Vec::with_capacity(order.len());
    let mut offset = 0;
    for tensor in order {
        if !names.insert(tensor.name.as_str()) {
            return Err(damaged(format!("tensor {} occurs twice", printable(&tensor.name))));
        }
        let end = offset + tensor.bytes.len();
        let info = TensorInfo { dtype: stored(tensor.dtype), shape: tensor.shape.clone(), data_offsets: (offset, end) };
        infos.push((tensor.name.clone(), info));
        offset = end;
    }
    let format = HashMap::from([("format".to_string(), "pt".to_string())]);
    let metadata = Metadata::new(Some(format), infos).map_err(|error| damaged(error.to_string()))?;
    let mut json = serde_json::to_vec(&metadata).map_err(|error| damaged(error.to_string()))?;
    json.resize(json.len().next_multiple_of(8), b' ');
    Ok(json)
}

fn stored(dtype: StoredDtype) -> Dtype {
    match dtype {
        StoredDtype::F32 => Dtype::F32,
        StoredDtype::F16 => Dtype::F16,
        StoredDtype::Bf16 => Dtype::BF16,
    }
}
