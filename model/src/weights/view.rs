//! One stored tensor: its type, shape and bytes, and conversion to `f32`.

use std::path::Path;

use half::f16;
use half::slice::HalfFloatSliceExt as _;

use super::{CheckpointError, printable};

/// Element type of a stored weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StoredDtype {
    /// 32-bit float.
    F32,
    /// 16-bit float, 5 exponent bits.
    F16,
    /// 16-bit float, 8 exponent bits.
    Bf16,
}

impl StoredDtype {
    /// Bytes of one element.
    pub fn bytes(self) -> usize {
        match self {
            StoredDtype::F32 => 4,
            StoredDtype::F16 | StoredDtype::Bf16 => 2,
        }
    }

    /// Name in a safetensors header.
    pub fn name(self) -> &'static str {
        match self {
            StoredDtype::F32 => "F32",
            StoredDtype::F16 => "F16",
            StoredDtype::Bf16 => "BF16",
        }
    }
}

/// A tensor inside a mapped file; little-endian, row-major, not necessarily aligned.
#[derive(Clone, Copy, Debug)]
pub struct TensorView<'a> {
    pub(super) name: &'a str,
    pub(super) file: &'a Path,
    pub(super) dtype: StoredDtype,
    pub(super) shape: &'a [usize],
    pub(super) bytes: &'a [u8],
}

impl<'a> TensorView<'a> {
    /// Name under which it was asked for.
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// File it is stored in.
    pub fn file(&self) -> &'a Path {
        self.file
    }

    /// Element type.
    pub fn dtype(&self) -> StoredDtype {
        self.dtype
    }

    /// Extents.
    pub fn shape(&self) -> &'a [usize] {
        self.shape
    }

    /// Stored bytes, `len() * dtype().bytes()` of them.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.bytes.len() / self.dtype.bytes()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// All elements as `f32`, which holds every stored type exactly.
    ///
    /// # Errors
    /// [`CheckpointError::NonFinite`] if an element is NaN or infinite.
    pub fn to_f32(&self) -> Result<Vec<f32>, CheckpointError> {
        let mut values = vec![0.0; self.len()];
        self.read_f32(0, &mut values)?;
        Ok(values)
    }

    /// Fills the beginning of `out` with the elements from position `start` on and returns how many there were: as many
    /// as fit, or as remain. Large tensors are read in pieces this way.
    ///
    /// # Errors
    /// [`CheckpointError::NonFinite`] if one of them is NaN or infinite.
    pub fn read_f32(&self, start: usize, out: &mut [f32]) -> Result<usize, CheckpointError> {
        let count = out.len().min(self.len().saturating_sub(start));
        let width = self.dtype.bytes();
        let bytes = self.bytes.get(start * width..(start + count) * width).unwrap_or_default();
        let out = &mut out[..count];
        match self.dtype {
            StoredDtype::F32 => {
                for (value, word) in out.iter_mut().zip(bytes.as_chunks().0) {
                    *value = f32::from_le_bytes(*word);
                }
            }
            StoredDtype::Bf16 => {
                for (value, word) in out.iter_mut().zip(bytes.as_chunks().0) {
                    *value = f32::from_bits(u32::from(u16::from_le_bytes(*word)) << 16);
                }
            }
            StoredDtype::F16 => read_f16(bytes, out),
        }
        match out.iter().position(|x| !x.is_finite()) {
            None => Ok(count),
            Some(at) => Err(CheckpointError::NonFinite {
                path: self.file.to_path_buf(),
                name: printable(self.name),
                index: start + at,
                value: out[at],
            }),
        }
    }
}

/// Converts in blocks, so that the batch instruction is used where the processor has one.
fn read_f16(bytes: &[u8], out: &mut [f32]) {
    const BLOCK: usize = 256;
    let mut block = [f16::ZERO; BLOCK];
    for (out, bytes) in out.chunks_mut(BLOCK).zip(bytes.chunks(2 * BLOCK)) {
        let block = &mut block[..out.len()];
        for (value, word) in block.iter_mut().zip(bytes.as_chunks().0) {
            *value = f16::from_le_bytes(*word);
        }
        block.convert_to_f32_slice(out);
    }
}
