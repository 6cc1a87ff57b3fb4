//! A checkpoint's tokenizer: `tokenizer.json`, a SentencePiece model, or a byte-level vocabulary with merges.

use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};

use serde::de::IgnoredAny;
use serde_json::Value;

use super::sentencepiece::SentencePiece;
use super::settings;
use super::{TokenizerError, byte_level};

/// The files are tens of megabytes at most.
const MAX_FILE_BYTES: u64 = 256 << 20;

/// A tokenizer with the ids that it puts in front of every text.
pub struct Tokenizer {
    engine: Engine,
    prefix: Vec<u32>,
}

/// What turns text into ids.
enum Engine {
    Library(Box<tokenizers::Tokenizer>),
    SentencePiece(Box<SentencePiece>),
}

/// A token and where its characters end in the text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) id: u32,
    pub(super) end: usize,
}

impl Tokenizer {
    /// Reads `tokenizer.json`; where there is none, the SentencePiece model `tokenizer.model`, or else `vocab.json` with
    /// `merges.txt`. What these leave open is in `tokenizer_config.json` and `added_tokens.json`.
    ///
    /// # Errors
    /// There is no such file, a file is not usable, or a beginning-of-sequence token is asked for that does not exist.
    pub fn from_dir(dir: &Path) -> Result<Self, TokenizerError> {
        let has = |name: &str| dir.join(name).is_file();
        if has("tokenizer.json") {
            Self::from_json(dir, &dir.join("tokenizer.json"))
        } else if has("tokenizer.model") {
            Self::from_sentencepiece(dir, &dir.join("tokenizer.model"))
        } else if has("vocab.json") {
            let inner = byte_level::read(dir)?;
            Ok(Self { engine: Engine::Library(Box::new(inner)), prefix: Vec::new() })
        } else {
            let hint =
                "a model directory holds this file, a SentencePiece tokenizer.model, or vocab.json with merges.txt";
            let source = std::io::ErrorKind::NotFound.into();
            Err(TokenizerError::Io { path: dir.join("tokenizer.json"), source, hint })
        }
    }

    fn from_json(dir: &Path, path: &Path) -> Result<Self, TokenizerError> {
        let bytes = read(path)?;
        let broken = |problem: String| TokenizerError::Broken { path: path.to_path_buf(), problem };
        // The library's own parser panics on some syntax errors.
        serde_json::from_slice::<IgnoredAny>(&bytes).map_err(|error| broken(error.to_string()))?;
        let mut inner = contained(|| tokenizers::Tokenizer::from_bytes(&bytes)).map_err(broken)?;
        // A file may carry the settings of its last use.
        inner.with_truncation(None).map_err(|error| broken(error.to_string()))?;
        inner.with_padding(None);
        let prefix = find_prefix(&inner, dir, path)?;
        Ok(Self { engine: Engine::Library(Box::new(inner)), prefix })
    }

    fn from_sentencepiece(dir: &Path, path: &Path) -> Result<Self, TokenizerError> {
        let bytes = read(path)?;
        let broken = |problem: String| TokenizerError::Broken { path: path.to_path_buf(), problem };
        let file = settings::read(dir)?;
        let model = SentencePiece::parse(&bytes, |id_of| file.for_sentencepiece(id_of)).map_err(broken)?;
        let prefix = match file.bos() {
            Some(token) => {
                vec![model.id_of(token).ok_or_else(|| broken(format!("`bos_token` {token:?} is not in it")))?]
            }
            None => Vec::new(),
        };
        Ok(Self { engine: Engine::SentencePiece(Box::new(model)), prefix })
    }

    /// One more than the largest id: the embedding table needs this many rows.
    pub fn id_bound(&self) -> usize {
        match &self.engine {
            Engine::Library(inner) => inner.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1),
            Engine::SentencePiece(model) => model.id_bound(),
        }
    }

    /// The id of a token, such as `</s>`.
    pub fn id_of(&self, token: &str) -> Option<u32> {
        match &self.engine {
            Engine::Library(inner) => inner.token_to_id(token),
            Engine::SentencePiece(model) => model.id_of(token),
        }
    }

    /// Ids that come once, in front of every sample: the beginning-of-sequence token of tokenizers that have one.
    pub fn prefix(&self) -> &[u32] {
        &self.prefix
    }

    /// The text of ids, special tokens included.
    ///
    /// # Errors
    /// The tokenizer's decoder fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String, super::TextError> {
        match &self.engine {
            Engine::Library(inner) => contained(|| inner.decode(ids, false)).map_err(super::TextError::Tokenizer),
            Engine::SentencePiece(model) => Ok(model.decode(ids)),
        }
    }

    /// Tokens of one text, nothing added; ends are in characters.
    pub(super) fn tokens(&self, text: &str) -> Result<Vec<Token>, super::TextError> {
        match &self.engine {
            Engine::Library(inner) => {
                let encoding =
                    contained(|| inner.encode_char_offsets(text, false)).map_err(super::TextError::Tokenizer)?;
                let ends = encoding.get_offsets().iter().map(|(_, end)| *end);
                Ok(encoding.get_ids().iter().zip(ends).map(|(&id, end)| Token { id, end }).collect())
            }
            Engine::SentencePiece(model) => Ok(model.tokens(text)),
        }
    }
}

/// What the post-processor puts in front. Where `tokenizer.json` has no post-processor, `tokenizer_config.json`
/// decides: older files leave the beginning-of-sequence token to it.
fn find_prefix(inner: &tokenizers::Tokenizer, dir: &Path, path: &Path) -> Result<Vec<u32>, TokenizerError> {
    let broken = |problem: String| TokenizerError::Broken { path: path.to_path_buf(), problem };
    let encoding = contained(|| inner.encode("a", true)).map_err(broken)?;
    let special = encoding.get_special_tokens_mask().iter().take_while(|mask| **mask == 1).count();
    if special > 0 {
        return Ok(encoding.get_ids().iter().take(special).copied().collect());
    }
    let config = dir.join("tokenizer_config.json");
    if !config.is_file() {
        return Ok(Vec::new());
    }
    let text = read(&config)?;
    let wrong = |problem: String| TokenizerError::Broken { path: config.clone(), problem };
    let settings: Value = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
    let adds = match settings.get("add_bos_token").and_then(Value::as_bool) {
        Some(explicit) => explicit,
        None => inner.get_post_processor().is_none(),
    };
    // A token is written as a string or as an object with its content.
    let token = settings.get("bos_token").map(|token| token.get("content").unwrap_or(token));
    match token.and_then(Value::as_str) {
        Some(token) if adds => match inner.token_to_id(token) {
            Some(id) => Ok(vec![id]),
            None => Err(wrong(format!("`bos_token` {token:?} is not in tokenizer.json"))),
        },
        _ => Ok(Vec::new()),
    }
}

/// Calls the library, which panics on some files that contradict themselves, such as a post-processor without its own
/// tokens.
pub(super) fn contained<T>(call: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    match std::panic::catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("the tokenizer library gives up on it".to_string()),
    }
}

/// Reads a file of a tokenizer.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, TokenizerError> {
    let io = |source| TokenizerError::Io { path: PathBuf::from(path), source, hint: "check the file" };
    let length = std::fs::metadata(path).map_err(io)?.len();
    if length > MAX_FILE_BYTES {
        let problem = format!("{length} bytes; at most {MAX_FILE_BYTES}");
        return Err(TokenizerError::Broken { path: path.to_path_buf(), problem });
    }
    std::fs::read(path).map_err(io)
}
