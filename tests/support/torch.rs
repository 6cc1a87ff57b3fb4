//! PyTorch's archives, written as `torch.save` writes a state dictionary.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use safetensors::Dtype;

/// A tensor's element type, shape and bytes, row by row.
pub(crate) type Stored = (Dtype, Vec<usize>, Vec<u8>);

/// Writes an archive. Matrices are stored column by column, with the strides that say so, where `transposed` wants it.
pub(crate) fn save(path: &Path, tensors: &BTreeMap<String, Stored>, transposed: bool) {
    let mut archive = Archive::default();
    let mut pickle = b"\x80\x02ccollections\nOrderedDict\n)R(".to_vec();
    let mut storages = Vec::new();
    for (key, (name, (dtype, shape, bytes))) in tensors.iter().enumerate() {
        let (strides, bytes) = match shape[..] {
            [rows, columns] if transposed => (vec![1, rows], columns_first(bytes, rows, columns)),
            _ => (row_strides(shape), bytes.clone()),
        };
        text(&mut pickle, name);
        let storage = match dtype {
            Dtype::F32 => "FloatStorage",
            Dtype::F16 => "HalfStorage",
            Dtype::BF16 => "BFloat16Storage",
            other => panic!("{other}"),
        };
        pickle.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        text(&mut pickle, "storage");
        pickle.extend(format!("ctorch\n{storage}\n").bytes());
        text(&mut pickle, &key.to_string());
        text(&mut pickle, "cpu");
        number(&mut pickle, shape.iter().product());
        pickle.extend(b"tQK\x00");
        for numbers in [shape, &strides] {
            pickle.push(b'(');
            numbers.iter().for_each(|n| number(&mut pickle, *n));
            pickle.push(b't');
        }
        pickle.extend(b"\x89ccollections\nOrderedDict\n)RtR");
        storages.push(bytes);
    }
    pickle.extend(b"u.");
    archive.add("archive/data.pkl", &pickle);
    archive.add("archive/byteorder", b"little");
    for (key, bytes) in storages.iter().enumerate() {
        archive.add(&format!("archive/data/{key}"), bytes);
    }
    archive.add("archive/version", b"3\n");
    fs::write(path, archive.finish()).unwrap();
}

fn text(pickle: &mut Vec<u8>, text: &str) {
    pickle.push(b'X');
    pickle.extend((text.len() as u32).to_le_bytes());
    pickle.extend(text.bytes());
}

fn number(pickle: &mut Vec<u8>, number: usize) {
    pickle.push(b'J');
    pickle.extend((number as i32).to_le_bytes());
}

fn row_strides(shape: &[usize]) -> Vec<usize> {
    (0..shape.len()).map(|axis| shape[axis + 1..].iter().product()).collect()
}

fn columns_first(bytes: &[u8], rows: usize, columns: usize) -> Vec<u8> {
    let width = bytes.len() / (rows * columns).max(1);
    let element = |row: usize, column: usize| &bytes[(row * columns + column) * width..][..width];
    let positions = (0..columns).flat_map(|column| (0..rows).map(move |row| (row, column)));
    positions.flat_map(|(row, column)| element(row, column).to_vec()).collect()
}

/// A zip archive of entries that are not compressed.
#[derive(Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    directory: Vec<u8>,
    entries: u16,
}

impl Archive {
    pub(crate) fn add(&mut self, name: &str, content: &[u8]) {
        let at = self.bytes.len() as u32;
        let mut common = vec![0; 12];
        common.extend(crc32fast::hash(content).to_le_bytes());
        common.extend([content.len() as u32; 2].iter().flat_map(|size| size.to_le_bytes()));
        common.extend((name.len() as u32).to_le_bytes());
        self.bytes.extend(b"PK\x03\x04");
        self.bytes.extend(&common[2..]);
        self.bytes.extend(name.bytes());
        self.bytes.extend(content);
        self.directory.extend(b"PK\x01\x02");
        self.directory.extend(&common);
        self.directory.extend([0; 10]);
        self.directory.extend(at.to_le_bytes());
        self.directory.extend(name.bytes());
        self.entries += 1;
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        let at = self.bytes.len() as u32;
        self.bytes.append(&mut self.directory.clone());
        self.bytes.extend(b"PK\x05\x06\0\0\0\0");
        self.bytes.extend([self.entries; 2].iter().flat_map(|count| count.to_le_bytes()));
        self.bytes.extend((self.directory.len() as u32).to_le_bytes());
        self.bytes.extend(at.to_le_bytes());
        self.bytes.extend([0; 2]);
        self.bytes
    }
}
