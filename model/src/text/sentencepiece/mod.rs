//! SentencePiece models (`tokenizer.model`), with the ids that the original gives.
//!
//! A text is cut at its special tokens; what lies between is normalised ([`normalize`]), segmented ([`segment`]), and
//! characters without a piece become their bytes. What of this the library's slow LLaMA tokenizer does differently is in
//! [`Settings`].

mod normalize;
mod proto;
mod segment;

use std::collections::HashMap;

use self::normalize::{Normalizer, SPACE};
use self::proto::{Algorithm, Kind, Piece};
use super::tokenizer::Token;

/// What `tokenizer_config.json` says about a SentencePiece model.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// Texts, with their ids, that are tokens wherever they occur.
    pub(super) special: Vec<(String, u32)>,
    /// Whether the space before the first word is added behind every special token, too, as old versions did.
    pub(super) legacy: bool,
    /// Whether it is added at all.
    pub(super) prefix_space: bool,
}

/// A model with its settings.
#[derive(Debug)]
pub(super) struct SentencePiece {
    vocabulary: Vocabulary,
    normalizer: Normalizer,
    algorithm: Algorithm,
    settings: Settings,
}

/// The pieces, by id and by text.
#[derive(Debug)]
struct Vocabulary {
    pieces: Vec<Piece>,
    /// Pieces that stand for text. Several models have texts such as `<unk>` that do not.
    ids: HashMap<String, u32>,
    reserved: HashMap<String, u32>,
    user_defined: Vec<String>,
    /// Ids of the 256 byte pieces, if characters fall back to them.
    bytes: Option<Vec<u32>>,
    unknown: u32,
    lowest: f32,
    longest: usize,
}

impl SentencePiece {
    /// Reads a model; `settings` are made from its pieces.
    pub(super) fn parse(
        bytes: &[u8],
        settings: impl FnOnce(&dyn Fn(&str) -> Option<u32>) -> Result<Settings, String>,
    ) -> Result<Self, String> {
        let mut model = proto::parse(bytes)?;
        let vocabulary = Vocabulary::new(std::mem::take(&mut model.pieces), model.byte_fallback)?;
        let normalizer = Normalizer::new(&model, vocabulary.user_defined.clone())?;
        let mut settings = settings(&|text| vocabulary.reserved.get(text).or(vocabulary.ids.get(text)).copied())?;
        // Where one begins with another, the longer one is meant.
        settings.special.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
        settings.special.retain(|(text, _)| !text.is_empty());
        Ok(Self { vocabulary, normalizer, algorithm: model.algorithm, settings })
    }

    /// One more than the largest id.
    pub(super) fn id_bound(&self) -> usize {
        let added = self.settings.special.iter().map(|(_, id)| *id as usize + 1).max().unwrap_or(0);
        added.max(self.vocabulary.pieces.len())
    }

    /// The id of a token.
    pub(super) fn id_of(&self, token: &str) -> Option<u32> {
        let added = self.settings.special.iter().find(|(text, _)| text == token).map(|(_, id)| *id);
        added.or_else(|| self.vocabulary.id(token))
    }

    /// Tokens of a text; ends are in characters.
    pub(super) fn tokens(&self, text: &str) -> Vec<Token> {
        let mut tokens = Vec::new();
        let mut rest = text;
        let mut behind = 0;
        while !rest.is_empty() {
            let found = self.first_special(rest);
            let end = found.map_or(rest.len(), |(at, _, _)| at);
            // The prefix goes before the first word, unless a special token stands there.
            let prefix = self.settings.prefix_space && (behind == 0 || self.settings.legacy);
            self.push_tokens(&rest[..end], prefix, behind, &mut tokens);
            behind += rest[..end].chars().count();
            let Some((_, length, id)) = found else { return tokens };
            behind += rest[end..end + length].chars().count();
            tokens.push(Token { id, end: behind });
            rest = &rest[end + length..];
        }
        tokens
    }

    /// The text of ids.
    pub(super) fn decode(&self, ids: &[u32]) -> String {
        let mut bytes: Vec<u8> = Vec::new();
        for (index, id) in ids.iter().enumerate() {
            if let Some((text, _)) = self.settings.special.iter().find(|(_, special)| special == id) {
                bytes.extend(text.bytes());
            } else if let Some(byte) = self.vocabulary.byte_of(*id) {
                bytes.push(byte);
            } else if let Some(piece) = self.vocabulary.pieces.get(*id as usize) {
                let text = piece.text.replace(SPACE, " ");
                let is_prefix = index == 0 && self.settings.prefix_space;
                bytes.extend(if is_prefix { text.strip_prefix(' ').unwrap_or(&text) } else { &text }.bytes());
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Position, length and id of the first special token in a text.
    fn first_special(&self, text: &str) -> Option<(usize, usize, u32)> {
        let found =
            self.settings.special.iter().filter_map(|(special, id)| Some((text.find(special)?, special.len(), *id)));
        found.min_by_key(|(at, length, _)| (*at, std::cmp::Reverse(*length)))
    }

    /// Tokens of a text without special ones, which begins behind `behind` characters.
    fn push_tokens(&self, text: &str, dummy_prefix: bool, behind: usize, tokens: &mut Vec<Token>) {
        if text.is_empty() {
            return;
        }
        let normalized = self.normalizer.apply(text, dummy_prefix);
        let segments = match self.algorithm {
            Algorithm::Bpe => segment::bpe(&normalized.text, &self.vocabulary),
            Algorithm::Unigram => segment::unigram(&normalized.text, &self.vocabulary),
        };
        let (mut counted, mut end) = (0, behind);
        let mut after_unknown = false;
        for (range, id) in segments {
            let origin = normalized.origins.get(range.end).copied().unwrap_or(text.len());
            end += text.get(counted..origin).map_or(0, |part| part.chars().count());
            counted = counted.max(origin);
            let id = id.filter(|id| *id != self.vocabulary.unknown);
            match (id, &self.vocabulary.bytes) {
                (Some(id), _) => tokens.push(Token { id, end }),
                (None, Some(ids)) => {
                    let bytes = normalized.text[range].bytes();
                    tokens.extend(bytes.map(|byte| Token { id: ids[usize::from(byte)], end }));
                }
                // A run of unknown characters is one token.
                (None, None) => match tokens.last_mut().filter(|_| after_unknown) {
                    Some(last) => last.end = end,
                    None => tokens.push(Token { id: self.vocabulary.unknown, end }),
                },
            }
            after_unknown = id.is_none();
        }
    }
}

impl Vocabulary {
    fn new(pieces: Vec<Piece>, byte_fallback: bool) -> Result<Self, String> {
        let (mut ids, mut reserved, mut user_defined) = (HashMap::new(), HashMap::new(), Vec::new());
        let (mut unknown, mut longest) = (None, 0);
        let mut lowest = f32::MAX;
        for (id, piece) in pieces.iter().enumerate() {
            let id = id as u32;
            match piece.kind {
                Kind::Normal | Kind::UserDefined | Kind::Unused => {
                    if piece.text.is_empty() {
                        return Err(format!("piece {id} is empty"));
                    }
                    longest = longest.max(piece.text.len());
                    ids.insert(piece.text.clone(), id);
                }
                Kind::Unknown | Kind::Control | Kind::Byte => {
                    reserved.insert(piece.text.clone(), id);
                }
            }
            match piece.kind {
                Kind::Normal => lowest = lowest.min(piece.score),
                Kind::UserDefined => user_defined.push(piece.text.clone()),
                Kind::Unknown if unknown.is_some() => return Err("it has two pieces for what is unknown".into()),
                Kind::Unknown => unknown = Some(id),
                Kind::Control | Kind::Unused | Kind::Byte => {}
            }
        }
        let bytes = byte_fallback.then(|| {
            let byte = |byte: u8| reserved.get(&format!("<0x{byte:02X}>")).copied();
            (0..=u8::MAX)
                .map(byte)
                .collect::<Option<Vec<u32>>>()
                .ok_or("it falls back to bytes and has no pieces for them")
        });
        let bytes = bytes.transpose()?;
        let unknown = unknown.ok_or("it has no piece for what is unknown")?;
        Ok(Self { pieces, ids, reserved, user_defined, bytes, unknown, lowest, longest })
    }

    fn piece(&self, id: u32) -> &Piece {
        // Every id comes from this vocabulary.
        &self.pieces[id as usize]
    }

    /// The id of a piece that text can become.
    fn mergeable(&self, text: &str) -> Option<u32> {
        self.ids.get(text).copied()
    }

    /// The id of a piece of any kind.
    fn id(&self, text: &str) -> Option<u32> {
        self.reserved.get(text).or_else(|| self.ids.get(text)).copied()
    }

    fn byte_of(&self, id: u32) -> Option<u8> {
        let position = self.bytes.as_ref()?.iter().position(|byte| *byte == id)?;
        u8::try_from(position).ok()
    }

    /// Length of the longest user-defined piece that a text begins with.
    fn user_defined_prefix(&self, text: &str) -> Option<usize> {
        self.user_defined.iter().filter(|piece| text.starts_with(piece.as_str())).map(String::len).max()
    }

    /// Lengths of the beginnings of a text that may be pieces, shortest first.
    fn lengths(&self, text: &str) -> impl Iterator<Item = usize> {
        let ends = text.char_indices().map(|(at, c)| at + c.len_utf8());
        ends.take_while(|length| *length <= self.longest)
    }
}
