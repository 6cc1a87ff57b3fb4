//! One mapped weight file: safetensors, or what PyTorch writes ([`super::pickle`]).
//!
//! Layout of safetensors: 8 bytes little-endian header length, a JSON object `name -> {dtype, shape, data_offsets}` with an optional
//! `__metadata__`, then the data; offsets count from the end of the header. The header is untrusted: every length,
//! offset and product is checked before the data is touched.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use safetensors::tensor::TensorInfo;
use serde_json::Value;

use super::mapping::Mapping;
use super::pickle::{self, Problem};
use super::{CheckpointError, StoredDtype, TensorView, printable};

/// Bytes of the header length.
const LENGTH_BYTES: usize = 8;

/// The format's own limit.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// A mapped weight file whose description of tensors has been checked against its length.
pub struct TensorFile {
    path: PathBuf,
    bytes: Mapping,
    data_start: usize,
    entries: BTreeMap<String, Entry>,
    /// What [`Place::Ordered`] refers to.
    ordered: Vec<u8>,
}

/// What the header says about one tensor.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    pub(super) place: Place,
}

/// Where the bytes of a tensor lie, row by row.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// In the data part of the file.
    Stored(Range<usize>),
    /// Among those that are stored in another order and were put in order.
    Ordered(Range<usize>),
}

impl Place {
    /// Number of bytes.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Stored(range) | Self::Ordered(range) => range.len(),
        }
    }

    /// Where in the data part of the file, if there.
    pub(super) fn stored(&self) -> Option<&Range<usize>> {
        match self {
            Self::Stored(range) => Some(range),
            Self::Ordered(_) => None,
        }
    }

    /// Part number `index` of several parts of `length` bytes each.
    pub(super) fn part(&self, index: usize, length: usize) -> Self {
        let part = |range: &Range<usize>| range.start + index * length..range.start + (index + 1) * length;
        match self {
            Self::Stored(range) => Self::Stored(part(range)),
            Self::Ordered(range) => Self::Ordered(part(range)),
        }
    }
}

impl TensorFile {
    /// Maps a file, safetensors or PyTorch's by its contents, and checks its header. No code in a file is ever run.
    ///
    /// # Errors
    /// The file cannot be read, is something else, is truncated, its header is damaged, or a pickle in it refers to
    /// anything that files of tensors do not need.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let bytes = Mapping::open(path).map_err(|source| CheckpointError::Io {
            action: "cannot open",
            path: path.to_path_buf(),
            source,
        })?;
        if pickle::is_pytorch(&bytes) {
            let contents = pickle::read(&bytes).map_err(|problem| match problem {
                Problem::Truncated(problem) => CheckpointError::Truncated { path: path.to_path_buf(), problem },
                Problem::Refused(problem) => CheckpointError::Pickle { path: path.to_path_buf(), problem },
            })?;
            let (entries, ordered) = (contents.entries, contents.ordered);
            return Ok(Self { path: path.to_path_buf(), bytes, data_start: 0, entries, ordered });
        }
        let (data_start, entries) = parse(path, &bytes)?;
        Ok(Self { path: path.to_path_buf(), bytes, data_start, entries, ordered: Vec::new() })
    }

    /// Lets go of the memory that reading took; nothing is lost.
    pub(super) fn release(&self) {
        self.bytes.release();
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Stored names in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// A tensor by its stored name.
    ///
    /// # Errors
    /// There is no such tensor, or its type is not f32, f16 or bf16.
    pub fn get(&self, name: &str) -> Result<TensorView<'_>, CheckpointError> {
        match self.entries.get_key_value(name) {
            Some((name, entry)) => self.view(name, entry.dtype, &entry.shape, &entry.place),
            None => Err(CheckpointError::Missing { path: self.path.clone(), name: printable(name) }),
        }
    }

    /// A view over part of the data, under a name and shape of the caller's.
    pub(super) fn view<'a>(
        &'a self,
        name: &'a str,
        dtype: Dtype,
        shape: &'a [usize],
        place: &Place,
    ) -> Result<TensorView<'a>, CheckpointError> {
        let dtype = match dtype {
            Dtype::F32 => StoredDtype::F32,
            Dtype::F16 => StoredDtype::F16,
            Dtype::BF16 => StoredDtype::Bf16,
            other => {
                return Err(CheckpointError::Dtype {
                    path: self.path.clone(),
                    name: printable(name),
                    found: other.to_string(),
                });
            }
        };
        let bytes = match place {
            Place::Stored(range) => self.data().get(range.clone()),
            Place::Ordered(range) => self.ordered.get(range.clone()),
        };
        let bytes = bytes.unwrap_or_default();
        Ok(TensorView { name, file: &self.path, dtype, shape, bytes })
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.entries.iter().map(|(name, entry)| (name.as_str(), entry))
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// Length and JSON of the header, as stored.
    pub(super) fn header(&self) -> &[u8] {
        self.bytes.get(..self.data_start).unwrap_or_default()
    }

    /// The data part.
    pub(super) fn data(&self) -> &[u8] {
        self.bytes.get(self.data_start..).unwrap_or_default()
    }
}

/// Checks the header and returns where the data begins.
fn parse(path: &Path, bytes: &[u8]) -> Result<(usize, BTreeMap<String, Entry>), CheckpointError> {
    if let Some(problem) = foreign(bytes) {
        return Err(CheckpointError::Foreign { path: path.to_path_buf(), problem: problem.to_string() });
    }
    let truncated = |problem: String| CheckpointError::Truncated { path: path.to_path_buf(), problem };
    let damaged = |problem: String| CheckpointError::Header { path: path.to_path_buf(), problem };

    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else {
        return Err(truncated(format!("it has {} bytes, fewer than any header", bytes.len())));
    };
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER_BYTES {
        let problem = format!("its first 8 bytes announce a header of {length} bytes, more than the format allows");
        return Err(CheckpointError::Foreign { path: path.to_path_buf(), problem });
    }
    let length = length as usize;
    let Some((header, data)) = rest.split_at_checked(length) else {
        return Err(truncated(format!("its header has {length} bytes, the file only {} after it", rest.len())));
    };

    let header: serde_json::Map<String, Value> =
        serde_json::from_slice(header).map_err(|error| damaged(format!("not a JSON object ({error})")))?;
    let mut entries = BTreeMap::new();
    let mut ranges = Vec::new();
    for (name, value) in header {
        if name == "__metadata__" {
            continue;
        }
        let (dtype, shape, range) =
            entry(value).map_err(|problem| damaged(format!("tensor {}: {problem}", printable(&name))))?;
        ranges.push((name.clone(), range.clone()));
        entries.insert(name, Entry { dtype, shape, place: Place::Stored(range) });
    }

    // Offsets have to tile the data exactly: a gap or an overlap means that some tensor would read foreign bytes.
    let mut order: Vec<(&String, &Range<usize>)> = ranges.iter().map(|(name, range)| (name, range)).collect();
    order.sort_by_key(|(_, range)| (range.start, range.end));
    let mut end = 0;
    for (name, range) in order {
        if range.start != end {
            let problem = format!("begins at byte {} of the data instead of {end}", range.start);
            return Err(damaged(format!("tensor {} {problem}: a gap or an overlap", printable(name))));
        }
        end = range.end;
        if end > data.len() {
            let problem = format!("tensor {} ends at byte {end} of the data", printable(name));
            return Err(truncated(format!("{problem}, the file holds {}", data.len())));
        }
    }
    if end != data.len() {
        return Err(damaged(format!("its tensors end at byte {end} of the data, the file holds {}", data.len())));
    }
    Ok((LENGTH_BYTES + length, entries))
}

/// Reads one header value and checks that shape, type and offsets agree.
fn entry(value: Value) -> Result<(Dtype, Vec<usize>, Range<usize>), String> {
    let info: TensorInfo = serde_json::from_value(value).map_err(|error| error.to_string())?;
    let (start, end) = info.data_offsets;
    let bits = info.shape.iter().try_fold(info.dtype.bitsize(), |bits, &extent| bits.checked_mul(extent));
    let bytes = bits.filter(|bits| bits % 8 == 0).map(|bits| bits / 8);
    if bytes.is_none() || end.checked_sub(start) != bytes {
        return Err(format!("shape {:?} of {} does not fit offsets {start}..{end}", info.shape, info.dtype));
    }
    Ok((info.dtype, info.shape, start..end))
}

/// Recognises what often lies where a weight file should.
fn foreign(bytes: &[u8]) -> Option<&'static str> {
    let text = bytes.trim_ascii_start();
    // The length in front of a header can be any bytes, those of another format's mark as well.
    let announced = bytes.first_chunk::<LENGTH_BYTES>().map(|length| u64::from_le_bytes(*length));
    if announced.is_some_and(|length| length <= MAX_HEADER_BYTES) && bytes.get(LENGTH_BYTES) == Some(&b'{') {
        None
    } else if bytes.is_empty() {
        Some("it is empty; copy or download it again")
    } else if bytes.starts_with(b"version https://git-lfs") {
        Some("it is a Git LFS pointer; fetch the contents with `git lfs pull`")
    } else if text.starts_with(b"<") && text.get(1).is_some_and(|c| c.is_ascii_alphabetic() || *c == b'!') {
        Some("it is a web page, often an error page saved in place of the file; download it again")
    } else if bytes.starts_with(b"\x80\x02") {
        Some("it is a pickle that PyTorch did not write; save the tensors with `safetensors.torch.save_file`")
    } else if bytes.starts_with(b"GGUF") {
        Some("it is a GGUF file; use the original Hugging Face checkpoint")
    } else {
        None
    }
}
