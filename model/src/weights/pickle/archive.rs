//! The zip archive that PyTorch has written since version 1.6: `NAME/data.pkl`, `NAME/data/KEY`, nothing compressed.

use super::value::Store;
use super::{Contents, Problem, checked_length, contents, machine, zip};

pub(super) fn read(bytes: &[u8]) -> Result<Contents, Problem> {
    const DESCRIPTION: &str = "data.pkl";
    let entries = zip::entries(bytes)?;
    let is_top = |top: &str| top.is_empty() || top.find('/') == Some(top.len() - 1);
    let mut tops: Vec<&str> = entries.keys().filter_map(|name| name.strip_suffix(DESCRIPTION)).collect();
    tops.retain(|top| is_top(top));
    let [top] = tops[..] else {
        return Err(Problem::Refused("it is no archive with one `data.pkl`, so PyTorch did not write it".into()));
    };
    let content = |name: &str| Some((bytes.get(entries.get(name)?.range.clone())?, entries.get(name)?.checksum));
    if content(&format!("{top}byteorder")).is_some_and(|(order, _)| order != b"little") {
        return Err(Problem::Refused("its numbers are stored with the high byte first".into()));
    }
    let (pickle, checksum) = content(&format!("{top}{DESCRIPTION}")).unwrap_or_default();
    checked_length(pickle.len())?;
    // The tensors themselves have to be read without that: they can be larger than memory.
    if crc32fast::hash(pickle) != checksum {
        return Err(Problem::Refused("its description of tensors does not have its checksum".into()));
    }
    let mut store = Store::default();
    let (root, _) = machine::run(pickle, &mut store)?;
    contents(bytes, &store, root, |key| entries.get(&format!("{top}data/{key}")).map(|entry| entry.range.clone()))
}
