//! TensorBoard's event files: a scalar a step for each curve.
//!
//! A file is a list of records, each a length and bytes, both with a checksum; the bytes are a protocol-buffer message
//! (TensorFlow `core/lib/io/record_writer.cc`, `core/util/event.proto`, `core/framework/summary.proto`).

use std::fs::{self, File, OpenOptions};
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::{Error, Result};

/// How the names of event files begin; TensorBoard looks for nothing else.
const PREFIX: &str = "events.out.tfevents.";

/// Longest record that is believed.
const MAX_RECORD: u64 = 16 << 20;

/// An event file that is being written. Each step reaches the operating system as a whole.
#[derive(Debug)]
pub(super) struct EventFile {
    file: File,
    path: PathBuf,
}

impl EventFile {
    /// Makes a new file in `folder`, beside those that are there.
    ///
    /// # Errors
    /// The disk refuses.
    pub(super) fn create(folder: &Path) -> Result<Self> {
        let now = seconds();
        let name = |n: u32| folder.join(format!("{PREFIX}{:010}.viral-wgpu.{}.{n}", now as u64, std::process::id()));
        let path = (0..u32::MAX).map(name).find(|path| !path.exists()).unwrap_or_else(|| name(0));
        let file = OpenOptions::new().create_new(true).write(true).open(&path);
        let file = file.map_err(|error| Error::io("make the event file", &path, &error))?;
        let mut events = Self { file, path };
        // Event.file_version = 3
        events.append(&[double(1, now), bytes(3, b"brain.Event:2")].concat())?;
        Ok(events)
    }

    /// Appends the values of a step by the names of their curves. Values that are not finite are left out.
    ///
    /// # Errors
    /// The disk refuses.
    pub(super) fn step(&mut self, step: u64, scalars: &[(String, f64)]) -> Result<()> {
        let finite = scalars.iter().filter(|(_, value)| value.is_finite());
        // Summary.value = 1 of Value { tag = 1, simple_value = 2 }
        let values = finite.map(|(tag, value)| bytes(1, &[bytes(1, tag.as_bytes()), float(2, *value as f32)].concat()));
        let summary: Vec<u8> = values.flatten().collect();
        // Event { wall_time = 1, step = 2, summary = 5 }
        self.append(&[double(1, seconds()), whole(2, step), bytes(5, &summary)].concat())
    }

    fn append(&mut self, event: &[u8]) -> Result<()> {
        let length = (event.len() as u64).to_le_bytes();
        let record =
            [&length[..], &masked_crc(&length).to_le_bytes(), event, &masked_crc(event).to_le_bytes()].concat();
        self.file.write_all(&record).map_err(|error| Error::io("write the event file", &self.path, &error))
    }
}

/// Cuts what was recorded of `step` and later steps off the event files in `folder`, for a run that goes on from there.
///
/// # Errors
/// The disk refuses. A record that cannot be read ends its file.
pub(super) fn cut(folder: &Path, step: u64) -> Result<()> {
    for path in files(folder) {
        let failed = |error| Error::io("cut the event file", &path, &error);
        let end = sound(&path, |event| event.step.is_some_and(|found| found >= step)).map_err(failed)?;
        OpenOptions::new().write(true).open(&path).and_then(|file| file.set_len(end)).map_err(failed)?;
    }
    Ok(())
}

/// The event files in a folder, in the order in which they were made.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_events = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX));
    let mut files: Vec<PathBuf> = entries.filter(is_events).collect();
    files.sort();
    files
}

/// What this program reads of an event.
#[derive(Clone, Debug, Default, PartialEq)]
struct Event {
    step: Option<u64>,
    scalars: Vec<(String, f32)>,
}

/// Length of the part of a file that consists of whole records up to the first for which `ends` holds.
fn sound(path: &Path, mut ends: impl FnMut(&Event) -> bool) -> std::io::Result<u64> {
    let mut reader = BufReader::new(File::open(path)?);
    let mut position = 0;
    while let Some(event) = record(&mut reader)? {
        let parsed = parse(&event).unwrap_or_default();
        if ends(&parsed) {
            break;
        }
        position += event.len() as u64 + 16;
    }
    Ok(position)
}

/// The next record with correct checksums; nothing at the end, and where a record is torn.
fn record(reader: &mut impl Read) -> std::io::Result<Option<Vec<u8>>> {
    let mut head = [0; 12];
    let read = |reader: &mut dyn Read, into: &mut [u8]| match reader.read_exact(into) {
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
        result => result.map(|()| true),
    };
    if !read(reader, &mut head)? {
        return Ok(None);
    }
    let (length, check) = head.split_at(8);
    let size = length.iter().rev().fold(0u64, |size, &byte| size << 8 | u64::from(byte));
    if masked_crc(length).to_le_bytes() != check || size > MAX_RECORD {
        return Ok(None);
    }
    let mut event = vec![0; size as usize];
    let mut check = [0; 4];
    let whole = read(reader, &mut event)? && read(reader, &mut check)?;
    Ok((whole && masked_crc(&event).to_le_bytes() == check).then_some(event))
}

/// Reads the fields of an event that this program writes.
fn parse(message: &[u8]) -> Option<Event> {
    let mut event = Event::default();
    for (field, content) in fields(message)? {
        match (field, content) {
            (2, Field::Whole(step)) => event.step = Some(step),
            (5, Field::Bytes(summary)) => {
                for (_, value) in fields(summary)? {
                    let Field::Bytes(value) = value else { continue };
                    let (mut tag, mut scalar) = (String::new(), None);
                    for (field, content) in fields(value)? {
                        match (field, content) {
                            (1, Field::Bytes(name)) => tag = String::from_utf8_lossy(name).into_owned(),
                            (2, Field::Fixed(bits)) => scalar = Some(f32::from_bits(bits as u32)),
                            _ => {}
                        }
                    }
                    event.scalars.extend(scalar.map(|scalar| (tag, scalar)));
                }
            }
            _ => {}
        }
    }
    Some(event)
}

enum Field<'a> {
    Whole(u64),
    Fixed(u64),
    Bytes(&'a [u8]),
}

fn fields(mut message: &[u8]) -> Option<Vec<(u64, Field<'_>)>> {
    let mut fields = Vec::new();
    while !message.is_empty() {
        let key = take_varint(&mut message)?;
        let mut fixed = |length: usize| {
            let (bytes, rest) = message.split_at_checked(length)?;
            message = rest;
            Some(bytes.iter().rev().fold(0, |bits, &byte| bits << 8 | u64::from(byte)))
        };
        let content = match key & 7 {
            0 => Field::Whole(take_varint(&mut message)?),
            1 => Field::Fixed(fixed(8)?),
            5 => Field::Fixed(fixed(4)?),
            2 => {
                let length = usize::try_from(take_varint(&mut message)?).ok()?;
                let (bytes, rest) = message.split_at_checked(length)?;
                message = rest;
                Field::Bytes(bytes)
            }
            _ => return None,
        };
        fields.push((key >> 3, content));
    }
    Some(fields)
}

fn take_varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn whole(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

fn double(field: u64, value: f64) -> Vec<u8> {
    [varint(field << 3 | 1), value.to_le_bytes().to_vec()].concat()
}

fn float(field: u64, value: f32) -> Vec<u8> {
    [varint(field << 3 | 5), value.to_le_bytes().to_vec()].concat()
}

fn bytes(field: u64, content: &[u8]) -> Vec<u8> {
    [varint(field << 3 | 2), varint(content.len() as u64), content.to_vec()].concat()
}

fn seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// The checksum of a record: CRC-32C, rotated and shifted, so that a checksum of data with checksums stays meaningful.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32 with Castagnoli's polynomial (RFC 3720, appendix B.4).
fn crc32c(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut index = 0;
        while index < 256 {
            let mut crc = index as u32;
            let mut bit = 0;
            while bit < 8 {
                crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
                bit += 1;
            }
            table[index] = crc;
            index += 1;
        }
        table
    };
    !bytes.iter().fold(!0, |crc, &byte| crc >> 8 ^ TABLE[(crc as u8 ^ byte) as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(folder: &Path) -> Vec<Event> {
        let mut events = Vec::new();
        for path in files(folder) {
            let length = sound(&path, |event| {
                events.push(event.clone());
                false
            });
            assert_eq!(length.unwrap(), fs::metadata(&path).unwrap().len(), "every record is whole");
        }
        events.into_iter().filter(|event| event.step.is_some()).collect()
    }

    /// The vectors of RFC 3720, appendix B.4.
    #[test]
    fn checksums_are_castagnolis() {
        let rising: Vec<u8> = (0..32).collect();
        for (bytes, crc) in [(vec![0; 32], 0x8a91_36aa), (vec![0xff; 32], 0x62a8_ab43), (rising, 0x46dd_794e)] {
            assert_eq!(crc32c(&bytes), crc);
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = EventFile::create(folder.path()).unwrap();
        for step in [0, 1, 300, 1 << 40] {
            let scalars = [("loss/lm".to_owned(), 2.5 + step as f64), ("nothing".to_owned(), f64::NAN)];
            file.step(step, &scalars).unwrap();
        }
        let events = read(folder.path());
        assert_eq!(events.len(), 4);
        assert_eq!(events[2], Event { step: Some(300), scalars: vec![("loss/lm".into(), 302.5)] });
        assert_eq!(events[3].step, Some(1 << 40));
    }

    #[test]
    fn a_resumed_run_has_every_step_once() {
        let folder = tempfile::tempdir().unwrap();
        let scalar = |step: u64| [("loss".to_owned(), step as f64)];
        let mut file = EventFile::create(folder.path()).unwrap();
        (0..5).for_each(|step| file.step(step, &scalar(step)).unwrap());
        // The process is killed in the middle of a record.
        file.file.write_all(&[1, 2, 3]).unwrap();
        cut(folder.path(), 3).unwrap();
        let mut file = EventFile::create(folder.path()).unwrap();
        (3..6).for_each(|step| file.step(step, &scalar(step)).unwrap());
        let steps: Vec<_> = read(folder.path()).iter().filter_map(|event| event.step).collect();
        assert_eq!(steps, [0, 1, 2, 3, 4, 5]);
    }
}
