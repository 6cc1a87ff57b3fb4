//! The directory of a zip archive whose entries are not compressed.
//!
//! PyTorch's archives are such; nothing else of the format is needed, so nothing else can be abused. Reference: PKWARE
//! `APPNOTE.TXT` 4.3 and 4.5.3 (zip64).

use std::collections::HashMap;
use std::ops::Range;

use super::Problem;
use crate::weights::printable;

/// How an archive begins: the header of its first entry.
pub(super) const MAGIC: &[u8] = b"PK\x03\x04";

/// Entries of an archive; a checkpoint has one a tensor.
const MAX_ENTRIES: u64 = 1 << 20;

/// An entry of an archive.
pub(super) struct Entry {
    /// Where its bytes lie in the file.
    pub(super) range: Range<usize>,
    /// CRC-32 of them.
    pub(super) checksum: u32,
}

/// Entries by name. They lie inside the file and do not overlap.
pub(super) fn entries(bytes: &[u8]) -> Result<HashMap<String, Entry>, Problem> {
    let (count, mut directory) = directory(bytes).ok_or_else(|| {
        Problem::Truncated("the archive's directory, which stands at its end, is missing or damaged".into())
    })?;
    if count > MAX_ENTRIES {
        return Err(Problem::Refused(format!("its archive has {count} entries, at most {MAX_ENTRIES} are read")));
    }
    let mut entries = HashMap::new();
    for index in 0..count {
        let damaged = || Problem::Refused(format!("entry {index} of its archive's directory is damaged"));
        let record = Record::next(&mut directory).ok_or_else(damaged)?;
        let name = std::str::from_utf8(record.name).map_err(|_| damaged())?;
        let wrong = |problem: &str| Problem::Refused(format!("entry {} of its archive {problem}", printable(name)));
        if record.method != 0 || record.flags & 1 != 0 || record.stored != record.size {
            return Err(wrong("is compressed or encrypted, which PyTorch never does"));
        }
        let range = record.range(bytes).ok_or_else(|| wrong("lies outside the file, or goes by another name there"))?;
        if entries.insert(name.to_string(), Entry { range, checksum: record.checksum }).is_some() {
            return Err(wrong("is there twice"));
        }
    }
    let mut ranges: Vec<&Range<usize>> = entries.values().map(|entry| &entry.range).collect();
    ranges.retain(|range| !range.is_empty());
    ranges.sort_unstable_by_key(|range| range.start);
    if ranges.windows(2).any(|pair| pair[0].end > pair[1].start) {
        return Err(Problem::Refused("entries of its archive overlap".into()));
    }
    Ok(entries)
}

/// Number of entries, and the bytes from the directory's beginning on.
fn directory(bytes: &[u8]) -> Option<(u64, &[u8])> {
    const END: &[u8] = b"PK\x05\x06";
    const END_BYTES: usize = 22;
    const LONGEST_COMMENT: usize = 0xFFFF;
    let last = bytes.len().checked_sub(END_BYTES)?;
    let is_end = |at: &usize| {
        let comment = bytes.get(at + 20..).and_then(u16_at).map(usize::from);
        bytes[*at..].starts_with(END) && comment == Some(last - at)
    };
    let end = (last.saturating_sub(LONGEST_COMMENT)..=last).rev().find(is_end)?;
    let (mut count, mut start) =
        (u64::from(u16_at(bytes.get(end + 10..)?)?), u64::from(u32_at(bytes.get(end + 16..)?)?));
    // Archives beyond the fields' reach, and all that PyTorch writes, say it again in wider ones.
    if let Some(locator) = end.checked_sub(20).and_then(|at| bytes.get(at..))
        && locator.starts_with(b"PK\x06\x07")
    {
        let wide = bytes.get(usize::try_from(u64_at(locator.get(8..)?)?).ok()?..)?;
        if !wide.starts_with(b"PK\x06\x06") {
            return None;
        }
        (count, start) = (u64_at(wide.get(32..)?)?, u64_at(wide.get(48..)?)?);
    }
    Some((count, bytes.get(usize::try_from(start).ok()?..end)?))
}

/// A record of the directory.
struct Record<'a> {
    flags: u16,
    method: u16,
    checksum: u32,
    stored: u64,
    size: u64,
    header: u64,
    name: &'a [u8],
}

impl<'a> Record<'a> {
    /// Reads the record at the beginning of `directory` and moves behind it.
    fn next(directory: &mut &'a [u8]) -> Option<Self> {
        const FIXED_BYTES: usize = 46;
        let (fixed, rest) = directory.split_at_checked(FIXED_BYTES)?;
        if !fixed.starts_with(b"PK\x01\x02") {
            return None;
        }
        let length = |at: usize| u16_at(&fixed[at..]).map(usize::from);
        let (name, rest) = rest.split_at_checked(length(28)?)?;
        let (extra, rest) = rest.split_at_checked(length(30)?)?;
        let (_comment, rest) = rest.split_at_checked(length(32)?)?;
        *directory = rest;
        let narrow = |at: usize| u32_at(&fixed[at..]).map(u64::from);
        let (mut stored, mut size, mut header) = (narrow(20)?, narrow(24)?, narrow(42)?);
        // Fields that are full continue in a block of wider ones, in this order.
        let mut wide = wide_fields(extra);
        for field in [&mut size, &mut stored, &mut header] {
            if *field == u64::from(u32::MAX) {
                *field = u64_at(wide)?;
                wide = &wide[8..];
            }
        }
        let (flags, method) = (u16_at(&fixed[8..])?, u16_at(&fixed[10..])?);
        Some(Self { flags, method, checksum: u32_at(&fixed[16..])?, stored, size, header, name })
    }

    /// Where the entry's bytes lie, behind a header that repeats its name.
    fn range(&self, bytes: &[u8]) -> Option<Range<usize>> {
        const FIXED_BYTES: usize = 30;
        let at = usize::try_from(self.header).ok()?;
        let (fixed, rest) = bytes.get(at..)?.split_at_checked(FIXED_BYTES)?;
        let (name, extra) = (usize::from(u16_at(&fixed[26..])?), usize::from(u16_at(&fixed[28..])?));
        if !fixed.starts_with(MAGIC) || rest.get(..name) != Some(self.name) {
            return None;
        }
        let start = at + FIXED_BYTES + name + extra;
        let end = start.checked_add(usize::try_from(self.size).ok()?)?;
        (end <= bytes.len()).then_some(start..end)
    }
}

/// The block of 64-bit fields among an entry's extra fields; empty if there is none.
fn wide_fields(mut extra: &[u8]) -> &[u8] {
    while let (Some(kind), Some(length)) = (u16_at(extra), extra.get(2..).and_then(u16_at)) {
        let Some(body) = extra.get(4..4 + usize::from(length)) else { return &[] };
        if kind == 1 {
            return body;
        }
        extra = &extra[4 + body.len()..];
    }
    &[]
}

fn u16_at(bytes: &[u8]) -> Option<u16> {
    bytes.first_chunk().map(|word| u16::from_le_bytes(*word))
}

fn u32_at(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|word| u32::from_le_bytes(*word))
}

fn u64_at(bytes: &[u8]) -> Option<u64> {
    bytes.first_chunk().map(|word| u64::from_le_bytes(*word))
}
