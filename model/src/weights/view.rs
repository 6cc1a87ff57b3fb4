//! One stored tensor: its type, shape and bytes, and conversion to `f32`.

use std::ops::Range;
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
        self.convert(self.bytes, &mut values);
        self.check_finite(0, &values)?;
        Ok(values)
    }

    /// The elements of `range`, or as many as there are of them. They are lent by the file where it holds them as floats, else
    /// converted into `piece`. Large tensors are read in pieces this way.
    ///
    /// # Errors
    /// [`CheckpointError::NonFinite`] if one of them is NaN or infinite.
    pub fn elements<'b>(&self, range: Range<usize>, piece: &'b mut Vec<f32>) -> Result<&'b [f32], CheckpointError>
    where
        'a: 'b,
    {
        let (start, end) = (range.start.min(self.len()), range.end.min(self.len()));
        let width = self.dtype.bytes();
        let bytes = self.bytes.get(start * width..end * width).unwrap_or_default();
        let lent = match self.dtype {
            StoredDtype::F32 if cfg!(target_endian = "little") => bytemuck::try_cast_slice(bytes).ok(),
            _ => None,
        };
        let values: &'b [f32] = match lent {
            Some(values) => values,
            None => {
                piece.resize(bytes.len() / width, 0.0);
                self.convert(bytes, piece);
                piece
            }
        };
        self.check_finite(start, values)?;
        Ok(values)
    }

    /// Fills `out` with as many stored elements.
    fn convert(&self, bytes: &[u8], out: &mut [f32]) {
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
    }

    /// Fails if one of `values`, which are those from position `start` on, is not finite.
    fn check_finite(&self, start: usize, values: &[f32]) -> Result<(), CheckpointError> {
        // All are looked at, which takes less time than a question after each.
        if values.iter().fold(true, |finite, x| finite & x.is_finite()) {
            return Ok(());
        }
        let at = values.iter().position(|x| !x.is_finite()).unwrap_or_default();
        Err(CheckpointError::NonFinite {
            path: self.file.to_path_buf(),
            name: printable(self.name),
            index: start + at,
            value: values[at],
        })
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
