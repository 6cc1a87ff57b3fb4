//! What a text becomes before it is segmented: characters replaced by the model's table, spaces made visible.
//!
//! Reference: google/sentencepiece `src/normalizer.cc`.

use super::proto::Model;

/// Stands for a space inside pieces.
pub(super) const SPACE: &str = "\u{2581}";

/// What stands for a byte that is not UTF-8; the texts here are, so only the table's own damage can bring it.
const REPLACEMENT: &str = "\u{FFFD}";

/// A text as the model sees it.
#[derive(Debug, Default)]
pub(super) struct Normalized {
    pub(super) text: String,
    /// For each byte of `text`, where in the original the character that it came from begins, and for its end where the
    /// original's last part ends. In bytes.
    pub(super) origins: Vec<usize>,
}

impl Normalized {
    fn push(&mut self, text: &str, origin: usize) {
        self.text.push_str(text);
        self.origins.resize(self.text.len(), origin);
    }
}

/// The rules of a model.
#[derive(Debug)]
pub(super) struct Normalizer {
    map: Option<CharMap>,
    /// Pieces that the user defined; they are never changed.
    verbatim: Vec<String>,
    space_is_suffix: bool,
    add_dummy_prefix: bool,
    remove_extra_whitespaces: bool,
    escape_whitespaces: bool,
}

impl Normalizer {
    pub(super) fn new(model: &Model, verbatim: Vec<String>) -> Result<Self, String> {
        let map = if model.charsmap.is_empty() { None } else { Some(CharMap::parse(&model.charsmap)?) };
        Ok(Self {
            map,
            verbatim,
            space_is_suffix: model.space_is_suffix,
            add_dummy_prefix: model.add_dummy_prefix,
            remove_extra_whitespaces: model.remove_extra_whitespaces,
            escape_whitespaces: model.escape_whitespaces,
        })
    }

    /// Normalises a text. `dummy_prefix` may switch off the space that the model wants before the first word.
    pub(super) fn apply(&self, text: &str, dummy_prefix: bool) -> Normalized {
        let mut out = Normalized::default();
        let strip = self.remove_extra_whitespaces;
        let space = if self.escape_whitespaces { SPACE } else { " " };
        let mut at = 0;
        if strip {
            while let Some((part, length)) = self.part(&text[at..]) {
                if part != " " {
                    break;
                }
                at += length;
            }
        }
        if at == text.len() {
            out.origins.push(at);
            return out;
        }
        let prefix = dummy_prefix && self.add_dummy_prefix;
        if prefix && !self.space_is_suffix {
            out.push(space, at);
        }
        let mut after_space = strip;
        while let Some((part, length)) = self.part(&text[at..]) {
            let mut part = part;
            // A part that begins with spaces continues the run before it.
            while after_space && part.starts_with(' ') {
                part = &part[1..];
            }
            for c in part.chars() {
                let mut buffer = [0; 4];
                out.push(if c == ' ' { space } else { c.encode_utf8(&mut buffer) }, at);
            }
            if !part.is_empty() {
                after_space = part.ends_with(' ');
            }
            at += length;
            if !strip {
                after_space = false;
            }
        }
        if strip {
            while out.text.ends_with(space) {
                let end = out.text.len() - space.len();
                at = out.origins[end];
                out.text.truncate(end);
                out.origins.truncate(end);
            }
        }
        if prefix && self.space_is_suffix {
            out.push(space, at);
        }
        out.origins.push(at);
        out
    }

    /// What the beginning of a text becomes, and how many bytes of it.
    fn part<'a>(&'a self, text: &'a str) -> Option<(&'a str, usize)> {
        let first = text.chars().next()?;
        let verbatim = self.verbatim.iter().filter(|piece| text.starts_with(piece.as_str())).map(String::len).max();
        if let Some(length) = verbatim {
            return Some((&text[..length], length));
        }
        if let Some(found) = self.map.as_ref().and_then(|map| map.longest(text)) {
            return Some(found);
        }
        Some((&text[..first.len_utf8()], first.len_utf8()))
    }
}

/// A table from character sequences to texts: a double-array trie over bytes and the texts, each closed by a zero byte.
#[derive(Debug)]
struct CharMap {
    units: Vec<u32>,
    texts: Vec<u8>,
}

impl CharMap {
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let damaged = || "its table of characters is damaged".to_string();
        let (length, rest) = bytes.split_first_chunk::<4>().ok_or_else(damaged)?;
        let (trie, texts) = rest.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or_else(damaged)?;
        if !trie.len().is_multiple_of(4) || !texts.ends_with(&[0]) || std::str::from_utf8(texts).is_err() {
            return Err(damaged());
        }
        let units = trie.as_chunks::<4>().0.iter().map(|unit| u32::from_le_bytes(*unit)).collect();
        Ok(Self { units, texts: texts.to_vec() })
    }

    /// The text for the longest sequence of the table that `text` begins with, and the sequence's length.
    fn longest(&self, text: &str) -> Option<(&str, usize)> {
        let offset = |unit: u32| ((unit >> 10) << ((unit & (1 << 9)) >> 6)) as usize;
        let mut node = offset(*self.units.first()?);
        let mut found = None;
        for (index, byte) in text.bytes().enumerate() {
            node ^= usize::from(byte);
            let Some(unit) = self.units.get(node).copied() else { break };
            // The label, with the bit that only values have.
            if unit & ((1 << 31) | 0xFF) != u32::from(byte) {
                break;
            }
            node ^= offset(unit);
            if (unit >> 8) & 1 == 1
                && let Some(value) = self.units.get(node)
            {
                found = Some(((value & !(1 << 31)) as usize, index + 1));
            }
        }
        let (start, length) = found.filter(|(_, length)| text.is_char_boundary(*length))?;
        let rest = self.texts.get(start..)?;
        let end = rest.iter().position(|byte| *byte == 0)?;
        Some((std::str::from_utf8(&rest[..end]).unwrap_or(REPLACEMENT), length))
    }
}
