//! A checkpoint's `tokenizer.json`.

use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};

use serde::de::IgnoredAny;
use serde_json::Value;

use super::TokenizerError;

/// The files are tens of megabytes at most.
const MAX_FILE_BYTES: u64 = 256 << 20;

/// A tokenizer with the ids that it puts in front of every text.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    prefix: Vec<u32>,
}

/// A token and where its characters end in the text.
pub(super) struct Token {
    pub(super) id: u32,
    pub(super) end: usize,
}

impl Tokenizer {
    /// Reads `tokenizer.json` and, for what it leaves open, `tokenizer_config.json`.
    ///
    /// # Errors
    /// `tokenizer.json` is missing or not usable, or a beginning-of-sequence token is asked for that does not exist.
    pub fn from_dir(dir: &Path) -> Result<Self, TokenizerError> {
        let path = dir.join("tokenizer.json");
        let hint = if dir.join("tokenizer.model").exists() || dir.join("vocab.json").exists() {
            "convert the slow tokenizer beside it with `AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)`"
        } else {
            "check the path: a model directory in the Hugging Face layout holds one"
        };
        let bytes = read(&path, hint)?;
        let broken = |problem: String| TokenizerError::Broken { path: path.clone(), problem };
        // The library's own parser panics on some syntax errors.
        serde_json::from_slice::<IgnoredAny>(&bytes).map_err(|error| broken(error.to_string()))?;
        let mut inner = contained(|| tokenizers::Tokenizer::from_bytes(&bytes)).map_err(broken)?;
        // A file may carry the settings of its last use.
        inner.with_truncation(None).map_err(|error| broken(error.to_string()))?;
        inner.with_padding(None);
        let mut tokenizer = Self { inner, prefix: Vec::new() };
        tokenizer.prefix = tokenizer.find_prefix(dir, &path)?;
        Ok(tokenizer)
    }

    /// One more than the largest id: the embedding table needs this many rows.
    pub fn id_bound(&self) -> usize {
        self.inner.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1)
    }

    /// The id of a token, such as `</s>`.
    pub fn id_of(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
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
        contained(|| self.inner.decode(ids, false)).map_err(super::TextError::Tokenizer)
    }

    /// Tokens of one text, nothing added; ends are in characters.
    pub(super) fn tokens(&self, text: &str) -> Result<Vec<Token>, super::TextError> {
        let encoding =
            contained(|| self.inner.encode_char_offsets(text, false)).map_err(super::TextError::Tokenizer)?;
        let ends = encoding.get_offsets().iter().map(|(_, end)| *end);
        Ok(encoding.get_ids().iter().zip(ends).map(|(&id, end)| Token { id, end }).collect())
    }

    /// What the post-processor puts in front. Where `tokenizer.json` has no post-processor, `tokenizer_config.json`
    /// decides: older files leave the beginning-of-sequence token to it.
    fn find_prefix(&self, dir: &Path, path: &Path) -> Result<Vec<u32>, TokenizerError> {
        let broken = |problem: String| TokenizerError::Broken { path: path.to_path_buf(), problem };
        let encoding = contained(|| self.inner.encode("a", true)).map_err(broken)?;
        let special = encoding.get_special_tokens_mask().iter().take_while(|mask| **mask == 1).count();
        if special > 0 {
            return Ok(encoding.get_ids().iter().take(special).copied().collect());
        }
        let config = dir.join("tokenizer_config.json");
        if !config.is_file() {
            return Ok(Vec::new());
        }
        let text = read(&config, "check the file")?;
        let wrong = |problem: String| TokenizerError::Broken { path: config.clone(), problem };
        let settings: Value = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
        let adds = match settings.get("add_bos_token").and_then(Value::as_bool) {
            Some(explicit) => explicit,
            None => self.inner.get_post_processor().is_none(),
        };
        // A token is written as a string or as an object with its content.
        let token = settings.get("bos_token").map(|token| token.get("content").unwrap_or(token));
        match token.and_then(Value::as_str) {
            Some(token) if adds => match self.id_of(token) {
                Some(id) => Ok(vec![id]),
                None => Err(wrong(format!("`bos_token` {token:?} is not in tokenizer.json"))),
            },
            _ => Ok(Vec::new()),
        }
    }
}

/// Calls the library, which panics on some files that contradict themselves, such as a post-processor without its own
/// tokens.
fn contained<T>(call: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    match std::panic::catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("the tokenizer library gives up on it".to_string()),
    }
}

fn read(path: &Path, hint: &'static str) -> Result<Vec<u8>, TokenizerError> {
    let io = |source| TokenizerError::Io { path: PathBuf::from(path), source, hint };
    let length = std::fs::metadata(path).map_err(io)?.len();
    if length > MAX_FILE_BYTES {
        let problem = format!("{length} bytes; at most {MAX_FILE_BYTES}");
        return Err(TokenizerError::Broken { path: path.to_path_buf(), problem });
    }
    std::fs::read(path).map_err(io)
}
