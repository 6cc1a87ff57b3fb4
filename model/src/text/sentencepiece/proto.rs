//! `tokenizer.model`: the fields of SentencePiece's `ModelProto` that decide what a text becomes.
//!
//! Reference: google/sentencepiece `src/sentencepiece_model.proto`. Fields that are not named here are skipped, as the
//! wire format wants it.

/// A piece of the vocabulary; its place in the list is its id.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Piece {
    pub(super) text: String,
    pub(super) score: f32,
    pub(super) kind: Kind,
}

/// What a piece is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Byte,
    Unused,
}

/// How a text is segmented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    Unigram,
    Bpe,
}

/// A model as it is stored.
#[derive(Clone, Debug)]
pub(super) struct Model {
    pub(super) pieces: Vec<Piece>,
    pub(super) algorithm: Algorithm,
    /// Whether characters without a piece become their bytes.
    pub(super) byte_fallback: bool,
    /// Whether a space goes behind a word instead of before it.
    pub(super) space_is_suffix: bool,
    pub(super) charsmap: Vec<u8>,
    pub(super) add_dummy_prefix: bool,
    pub(super) remove_extra_whitespaces: bool,
    pub(super) escape_whitespaces: bool,
}

/// The longest piece of any published model has 48 bytes.
const MAX_PIECE_BYTES: usize = 1 << 12;

/// Ids are 32-bit, and no vocabulary comes near this.
const MAX_PIECES: usize = 1 << 22;

/// Reads a model.
pub(super) fn parse(bytes: &[u8]) -> Result<Model, String> {
    let mut model = Model {
        pieces: Vec::new(),
        algorithm: Algorithm::Unigram,
        byte_fallback: false,
        space_is_suffix: false,
        charsmap: Vec::new(),
        add_dummy_prefix: true,
        remove_extra_whitespaces: true,
        escape_whitespaces: true,
    };
    for field in Fields(bytes) {
        match field? {
            (1, Field::Bytes(piece)) if model.pieces.len() < MAX_PIECES => model.pieces.push(self::piece(piece)?),
            (1, _) => return Err(format!("it has more than {MAX_PIECES} pieces, or one that is none")),
            (2, Field::Bytes(trainer)) => read_trainer(&mut model, trainer)?,
            (3, Field::Bytes(normalizer)) => read_normalizer(&mut model, normalizer)?,
            _ => {}
        }
    }
    if model.pieces.is_empty() {
        return Err("it has no pieces; is this a SentencePiece model?".into());
    }
    Ok(model)
}

fn piece(bytes: &[u8]) -> Result<Piece, String> {
    let mut piece = Piece { text: String::new(), score: 0.0, kind: Kind::Normal };
    for field in Fields(bytes) {
        match field? {
            (1, Field::Bytes(text)) if text.len() <= MAX_PIECE_BYTES => {
                piece.text = std::str::from_utf8(text).map_err(|_| "a piece is not UTF-8")?.to_string();
            }
            (2, Field::Word(bits)) => piece.score = f32::from_bits(bits),
            (3, Field::Number(kind)) => {
                piece.kind = match kind {
                    1 => Kind::Normal,
                    2 => Kind::Unknown,
                    3 => Kind::Control,
                    4 => Kind::UserDefined,
                    5 => Kind::Unused,
                    6 => Kind::Byte,
                    other => return Err(format!("a piece is of the unknown kind {other}")),
                };
            }
            (1..=3, _) => return Err("a piece has a field of the wrong type".into()),
            _ => {}
        }
    }
    if piece.score.is_nan() {
        return Err("a piece has no score".into());
    }
    Ok(piece)
}

fn read_trainer(model: &mut Model, bytes: &[u8]) -> Result<(), String> {
    for field in Fields(bytes) {
        match field? {
            (3, Field::Number(1)) => model.algorithm = Algorithm::Unigram,
            (3, Field::Number(2)) => model.algorithm = Algorithm::Bpe,
            (3, _) => return Err("its algorithm is neither unigram nor bpe".into()),
            (24, Field::Number(flag)) => model.space_is_suffix = flag != 0,
            (35, Field::Number(flag)) => model.byte_fallback = flag != 0,
            _ => {}
        }
    }
    Ok(())
}

fn read_normalizer(model: &mut Model, bytes: &[u8]) -> Result<(), String> {
    for field in Fields(bytes) {
        match field? {
            (2, Field::Bytes(charsmap)) => model.charsmap = charsmap.to_vec(),
            (3, Field::Number(flag)) => model.add_dummy_prefix = flag != 0,
            (4, Field::Number(flag)) => model.remove_extra_whitespaces = flag != 0,
            (5, Field::Number(flag)) => model.escape_whitespaces = flag != 0,
            _ => {}
        }
    }
    Ok(())
}

/// A field's content.
enum Field<'a> {
    Number(u64),
    Word(u32),
    Bytes(&'a [u8]),
    /// 64-bit words, of which nothing here is made.
    Other,
}

/// The fields of a message in the wire format, with their numbers.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Field<'a>), String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field.ok_or_else(|| "it is damaged: a field is cut short or of an unknown type".to_string()))
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Option<(u64, Field<'a>)> {
        let key = self.varint()?;
        let field = match key & 7 {
            0 => Field::Number(self.varint()?),
            1 => {
                self.take(8)?;
                Field::Other
            }
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Field::Bytes(self.take(length)?)
            }
            5 => Field::Word(u32::from_le_bytes(self.take(4)?.try_into().ok()?)),
            _ => return None,
        };
        Some((key >> 3, field))
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }
}
