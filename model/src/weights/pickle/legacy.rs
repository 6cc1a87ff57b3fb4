//! The form before version 1.6: five pickles one after the other (magic number, version, byte order, the tensors, the
//! keys of the storages), then each storage as its number of elements and its bytes.

use std::collections::HashMap;
use std::ops::Range;

use safetensors::Dtype;

use super::value::{Id, Store, Value};
use super::{Contents, MAX_PICKLE_BYTES, Problem, contents, machine, width};
use crate::weights::printable;

/// The pickle of the magic number, `0x1950a86a20f9469cfc6c`.
pub(super) const MAGIC: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";

/// The version that the second pickle must name.
const VERSION: usize = 1001;

pub(super) fn read(bytes: &[u8]) -> Result<Contents, Problem> {
    let (mut store, mut at) = (Store::default(), MAGIC.len());
    let version = next(bytes, &mut at, &mut store)?;
    if store.size(version) != Some(VERSION) {
        return Err(Problem::Refused("it is of an unknown version of the form before PyTorch 1.6".into()));
    }
    let system = next(bytes, &mut at, &mut store)?;
    let is_little = |(key, value): &(Id, Id)| {
        store.text(*key) == Some("little_endian") && matches!(store.get(*value), Value::Int(1))
    };
    if !matches!(store.get(system), Value::Dict(entries) if entries.iter().any(is_little)) {
        return Err(Problem::Refused("its numbers are not stored with the low byte first".into()));
    }
    let root = next(bytes, &mut at, &mut store)?;
    let keys = next(bytes, &mut at, &mut store)?;
    let storages = storages(bytes, at, &store, keys)?;
    contents(bytes, &store, root, |key| storages.get(key).cloned())
}

/// Runs the pickle at `at` and moves behind it.
fn next<'a>(bytes: &'a [u8], at: &mut usize, store: &mut Store<'a>) -> Result<Id, Problem> {
    let rest = bytes.get(*at..).unwrap_or_default();
    let (value, length) = machine::run(&rest[..rest.len().min(MAX_PICKLE_BYTES)], store)?;
    *at += length;
    Ok(value)
}

/// Where the bytes of each storage lie, from `at` to the end of the file.
fn storages<'a>(
    bytes: &[u8],
    mut at: usize,
    store: &Store<'a>,
    keys: Id,
) -> Result<HashMap<&'a str, Range<usize>>, Problem> {
    let types: HashMap<&str, Dtype> = store.storages().map(|storage| (storage.key, storage.dtype)).collect();
    let mut storages = HashMap::new();
    for key in store.items(keys).ok_or_else(|| Problem::Refused("it has no list of storages".into()))? {
        let unknown = || Problem::Refused("its list of storages names one that no tensor has".into());
        let key = store.text(*key).ok_or_else(unknown)?;
        let width = width(*types.get(key).ok_or_else(unknown)?);
        let cut = || Problem::Truncated(format!("it ends before storage {} does", printable(key)));
        let count = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()).ok_or_else(cut)?;
        at += count.len();
        let length = usize::try_from(i64::from_le_bytes(*count)).ok().and_then(|count| count.checked_mul(width));
        let end = length.and_then(|length| at.checked_add(length)).filter(|end| *end <= bytes.len()).ok_or_else(cut)?;
        storages.insert(key, at..end);
        at = end;
    }
    if at != bytes.len() {
        return Err(Problem::Refused(format!("its storages end at byte {at} of {}", bytes.len())));
    }
    Ok(storages)
}
