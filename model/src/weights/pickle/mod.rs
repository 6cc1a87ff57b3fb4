//! PyTorch files: zip archives (`.bin`, `.pt`, `.pth`, `.pth.tar`) and the form that was written before them.
//!
//! Either holds a pickle that describes tensors and, apart from it, the bytes of their storages. The pickle is run by a
//! machine that builds dictionaries of tensors and can do nothing else ([`machine`]); a tensor then is a view of a
//! storage, and becomes an entry that says where its bytes lie.

mod archive;
mod legacy;
mod machine;
mod value;
mod write;
mod zip;

use std::collections::BTreeMap;
use std::ops::Range;

use safetensors::Dtype;

use self::value::{Id, Store, Tensor, Value};
pub use self::write::pytorch_pieces;
use super::file::{Entry, Place};
use super::printable;

/// A pickle describes tensors in some 200 bytes each; a longer one is something else.
const MAX_PICKLE_BYTES: usize = 64 << 20;

/// Where training programs put the tensors, when they save more than those. Averaged weights go first.
const NESTED: [&str; 4] = ["state_dict_ema", "state_dict", "model_state_dict", "model"];

/// The tensors of a PyTorch file.
pub(super) struct Contents {
    pub(super) entries: BTreeMap<String, Entry>,
    /// Elements of tensors that are stored in another order than row by row, put in order.
    pub(super) ordered: Vec<u8>,
}

/// What is wrong with a file.
pub(super) enum Problem {
    /// It ends too early.
    Truncated(String),
    /// It holds something that is refused.
    Refused(String),
}

impl From<String> for Problem {
    fn from(problem: String) -> Self {
        Self::Refused(problem)
    }
}

/// Whether this is how PyTorch files begin.
pub(super) fn is_pytorch(bytes: &[u8]) -> bool {
    bytes.starts_with(zip::MAGIC) || bytes.starts_with(legacy::MAGIC)
}

/// Finds the tensors of a PyTorch file.
pub(super) fn read(bytes: &[u8]) -> Result<Contents, Problem> {
    if bytes.starts_with(legacy::MAGIC) { legacy::read(bytes) } else { archive::read(bytes) }
}

/// The tensors below the value of a pickle. `locate` gives the bytes of a storage by its key.
fn contents(
    bytes: &[u8],
    store: &Store<'_>,
    root: Id,
    locate: impl Fn(&str) -> Option<Range<usize>>,
) -> Result<Contents, Problem> {
    let mut contents = Contents { entries: BTreeMap::new(), ordered: Vec::new() };
    for (name, tensor) in tensors(store, root)? {
        let wrong = |problem: String| Problem::Refused(format!("tensor {}: {problem}", printable(name)));
        let storage = tensor.storage;
        let width = width(storage.dtype);
        let range =
            locate(storage.key).ok_or_else(|| wrong(format!("its storage {} is missing", printable(storage.key))))?;
        if storage.elements.checked_mul(width) != Some(range.len()) {
            let problem = format!(
                "its storage has {} bytes, {} elements of {} were announced",
                range.len(),
                storage.elements,
                storage.dtype
            );
            return Err(wrong(problem));
        }
        let elements = extent(tensor).ok_or_else(|| {
            let Tensor { offset, shape, strides, .. } = tensor;
            wrong(format!(
                "shape {shape:?} with strides {strides:?} at {offset} leaves its storage of {} elements",
                storage.elements
            ))
        })?;
        let start = range.start + tensor.offset * width;
        let place = if is_contiguous(&tensor.shape, &tensor.strides) {
            Place::Stored(start..start + elements * width)
        } else {
            let begin = contents.ordered.len();
            if begin + elements * width > bytes.len() {
                return Err(wrong("putting it in order would take more memory than the file is large".into()));
            }
            gather(bytes.get(range).unwrap_or_default(), tensor, width, &mut contents.ordered);
            Place::Ordered(begin..contents.ordered.len())
        };
        let entry = Entry { dtype: storage.dtype, shape: tensor.shape.clone(), place };
        contents.entries.insert(name.to_string(), entry);
    }
    Ok(contents)
}

/// Names and tensors of a state dictionary, which is the root or one of its entries.
fn tensors<'s, 'a>(store: &'s Store<'a>, root: Id) -> Result<Vec<(&'a str, &'s Tensor<'a>)>, Problem> {
    let Value::Dict(root) = store.get(root) else {
        return Err(Problem::Refused("it holds no dictionary of tensors".into()));
    };
    let of = |entries: &[(Id, Id)]| -> Vec<(&'a str, &'s Tensor<'a>)> {
        let named = entries.iter().filter_map(|(key, value)| Some((store.text(*key)?, store.get(*value))));
        named
            .filter_map(|(name, value)| if let Value::Tensor(tensor) = value { Some((name, tensor)) } else { None })
            .collect()
    };
    for nested in NESTED {
        let entry = root.iter().rev().find(|(key, _)| store.text(*key) == Some(nested));
        if let Some(Value::Dict(entries)) = entry.map(|(_, value)| store.get(*value)) {
            return Ok(of(entries));
        }
    }
    let tensors = of(root);
    if tensors.is_empty() && !root.is_empty() {
        let expected = NESTED.join(", ");
        return Err(Problem::Refused(format!("its dictionary holds no tensors, nor does an entry of it ({expected})")));
    }
    Ok(tensors)
}

/// Number of elements of a view that stays inside its storage and has no more elements than it.
fn extent(tensor: &Tensor<'_>) -> Option<usize> {
    let elements = tensor.shape.iter().try_fold(1usize, |product, size| product.checked_mul(*size))?;
    if elements == 0 {
        return (tensor.offset <= tensor.storage.elements).then_some(0);
    }
    let mut last = tensor.offset;
    for (size, stride) in tensor.shape.iter().zip(&tensor.strides) {
        last = last.checked_add((size - 1).checked_mul(*stride)?)?;
    }
    (last < tensor.storage.elements && elements <= tensor.storage.elements).then_some(elements)
}

/// Whether elements lie row by row. The stride of an axis of one element says nothing.
fn is_contiguous(shape: &[usize], strides: &[usize]) -> bool {
    if shape.contains(&0) {
        return true;
    }
    let mut expected = 1usize;
    shape.iter().zip(strides).rev().all(|(size, stride)| {
        let fits = *size == 1 || *stride == expected;
        expected = expected.saturating_mul(*size);
        fits
    })
}

/// Appends the elements of a view that [`extent`] has checked, row by row.
fn gather(storage: &[u8], tensor: &Tensor<'_>, width: usize, out: &mut Vec<u8>) {
    let mut index = vec![0; tensor.shape.len()];
    loop {
        let at = tensor.offset + index.iter().zip(&tensor.strides).map(|(i, stride)| i * stride).sum::<usize>();
        out.extend_from_slice(storage.get(at * width..(at + 1) * width).unwrap_or_default());
        let Some(axis) = (0..index.len()).rev().find(|axis| index[*axis] + 1 < tensor.shape[*axis]) else { return };
        index[axis] += 1;
        index[axis + 1..].fill(0);
    }
}

/// The bytes of one pickle, which must not be longer than files of tensors have it.
fn checked_length(length: usize) -> Result<(), Problem> {
    if length <= MAX_PICKLE_BYTES {
        return Ok(());
    }
    Err(Problem::Refused(format!("its description of tensors has {length} bytes, at most {MAX_PICKLE_BYTES} are read")))
}

/// Bytes of an element.
fn width(dtype: Dtype) -> usize {
    dtype.bitsize() / 8
}
