//! Writing PyTorch files: the archive that `torch.save` makes of a dictionary of tensors.
//!
//! Reference: `torch/serialization.py` (`_save`), `torch/_utils.py` (`_rebuild_tensor_v2`), CPython `pickletools.py`, PKWARE
//! `APPNOTE.TXT` 4.3.

use std::borrow::Cow;
use std::path::Path;

use super::zip::MAGIC;
use crate::weights::{CheckpointError, StoredDtype, TensorOut};

/// Storages begin at multiples of this many bytes, as PyTorch has them, so that they can be mapped into memory.
const ALIGN: usize = 64;

/// The pieces that make up a PyTorch file with a dictionary of these tensors in this order. `torch.load` reads it, with
/// `weights_only=True` too.
///
/// # Errors
/// The file would have 4 GiB or more. `path` is for the message.
pub fn pytorch_pieces<'a>(path: &Path, tensors: &[TensorOut<'a>]) -> Result<Vec<Cow<'a, [u8]>>, CheckpointError> {
    let mut archive = Archive::default();
    archive.add("archive/data.pkl", Cow::Owned(pickle(tensors)));
    archive.add("archive/byteorder", Cow::Borrowed(b"little"));
    for (key, tensor) in tensors.iter().enumerate() {
        archive.add(&format!("archive/data/{key}"), tensor.bytes.clone());
    }
    archive.add("archive/version", Cow::Borrowed(b"3\n"));
    archive.finish().ok_or_else(|| CheckpointError::Header {
        path: path.to_path_buf(),
        problem: "a PyTorch file of 4 GiB or more is not written".into(),
    })
}

/// The dictionary as a pickle of protocol 2.
fn pickle(tensors: &[TensorOut<'_>]) -> Vec<u8> {
    const DICT: &[u8] = b"ccollections\nOrderedDict\n)R";
    let mut out = b"\x80\x02".to_vec();
    out.extend(DICT);
    out.push(b'(');
    for (key, tensor) in tensors.iter().enumerate() {
        let elements: usize = tensor.shape.iter().product();
        text(&mut out, &tensor.name);
        out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        text(&mut out, "storage");
        out.extend(format!("ctorch\n{}\n", storage(tensor.dtype)).bytes());
        text(&mut out, &key.to_string());
        text(&mut out, "cpu");
        integer(&mut out, elements);
        // The tuple so far is what the storage is known by; offset, shape, strides, no gradient, no hooks follow.
        out.extend(b"tQ");
        integer(&mut out, 0);
        tuple(&mut out, &tensor.shape);
        tuple(&mut out, &strides(&tensor.shape));
        out.push(0x89);
        out.extend(DICT);
        out.extend(b"tR");
    }
    out.extend(b"u.");
    out
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.push(b'X');
    out.extend((text.len() as u32).to_le_bytes());
    out.extend(text.bytes());
}

fn integer(out: &mut Vec<u8>, number: usize) {
    match i32::try_from(number) {
        Ok(number) => {
            out.push(b'J');
            out.extend(number.to_le_bytes());
        }
        Err(_) => {
            out.extend([0x8a, 8]);
            out.extend((number as u64).to_le_bytes());
        }
    }
}

fn tuple(out: &mut Vec<u8>, numbers: &[usize]) {
    out.push(b'(');
    numbers.iter().for_each(|&number| integer(out, number));
    out.push(b't');
}

/// Elements between neighbours along each axis, row by row.
fn strides(shape: &[usize]) -> Vec<usize> {
    (0..shape.len()).map(|axis| shape[axis + 1..].iter().product()).collect()
}

fn storage(dtype: StoredDtype) -> &'static str {
    match dtype {
        StoredDtype::F32 => "FloatStorage",
        StoredDtype::F16 => "HalfStorage",
        StoredDtype::Bf16 => "BFloat16Storage",
    }
}

/// A zip archive without compression.
#[derive(Default)]
struct Archive<'a> {
    pieces: Vec<Cow<'a, [u8]>>,
    bytes: usize,
    directory: Vec<u8>,
    entries: u16,
}

impl<'a> Archive<'a> {
    fn add(&mut self, name: &str, content: Cow<'a, [u8]>) {
        const FIXED_BYTES: usize = 30;
        const EXTRA_BYTES: usize = 4;
        let start = self.bytes + FIXED_BYTES + name.len() + EXTRA_BYTES;
        let padding = start.next_multiple_of(ALIGN) - start;
        let common = |out: &mut Vec<u8>| {
            // Version 2.0, no flags, not compressed, the first day that the format can tell.
            [20u16, 0, 0, 0, 33].iter().for_each(|field| out.extend(field.to_le_bytes()));
            let size = content.len() as u32;
            [crc32fast::hash(&content), size, size].iter().for_each(|field| out.extend(field.to_le_bytes()));
            out.extend((name.len() as u16).to_le_bytes());
        };
        let mut header = MAGIC.to_vec();
        common(&mut header);
        header.extend(((EXTRA_BYTES + padding) as u16).to_le_bytes());
        header.extend(name.bytes());
        // PyTorch's own padding field.
        header.extend(b"FB");
        header.extend((padding as u16).to_le_bytes());
        header.resize(header.len() + padding, b'Z');

        self.directory.extend(b"PK\x01\x02\x14\x00");
        common(&mut self.directory);
        // No extra field, no comment, first disk, no attributes.
        self.directory.extend([0; 12]);
        self.directory.extend((self.bytes as u32).to_le_bytes());
        self.directory.extend(name.bytes());
        self.entries += 1;
        self.bytes += header.len() + content.len();
        self.pieces.extend([Cow::Owned(header), content]);
    }

    /// Nothing if the archive is too large for its fields.
    fn finish(mut self) -> Option<Vec<Cow<'a, [u8]>>> {
        let start = u32::try_from(self.bytes).ok()?;
        let mut end = b"PK\x05\x06\x00\x00\x00\x00".to_vec();
        [self.entries, self.entries].iter().for_each(|count| end.extend(count.to_le_bytes()));
        [self.directory.len() as u32, start].iter().for_each(|field| end.extend(field.to_le_bytes()));
        end.extend([0; 2]);
        self.pieces.extend([Cow::Owned(self.directory), Cow::Owned(end)]);
        Some(self.pieces)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::TensorFile;

    #[test]
    fn what_is_written_is_read_back() {
        let values: Vec<f32> = (0..24).map(|x| x as f32 / 7.0).collect();
        let halves: Vec<u8> = (0..10).collect();
        let mut tensors = vec![
            TensorOut::f32("model.mm_projector.0.weight", [4, 6], &values),
            TensorOut::f32("model.mm_projector.0.bias", [3], &values[..3]),
            TensorOut::f32("empty", [0, 4], &[]),
        ];
        for (name, dtype) in [("half", StoredDtype::F16), ("brain", StoredDtype::Bf16)] {
            tensors.push(TensorOut { name: name.into(), dtype, shape: vec![5], bytes: Cow::Borrowed(&halves) });
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mm_projector.bin");
        std::fs::write(&path, pytorch_pieces(&path, &tensors).unwrap().concat()).unwrap();
        let file = TensorFile::open(&path).unwrap();
        assert_eq!(file.names().count(), tensors.len());
        for tensor in &tensors {
            let view = file.get(&tensor.name).unwrap();
            assert_eq!((view.dtype(), view.shape()), (tensor.dtype, &tensor.shape[..]), "{}", tensor.name);
            assert!(*view.bytes() == *tensor.bytes, "{}", tensor.name);
        }
    }
}
