//! What `tokenizer_config.json` and `added_tokens.json` say about tokens.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::TokenizerError;
use super::sentencepiece;
use super::tokenizer::read as read_file;

/// The settings of a tokenizer directory.
pub(super) struct Settings {
    path: PathBuf,
    config: Map<String, Value>,
    /// Tokens beside the vocabulary's own, by id.
    pub(super) added: BTreeMap<u32, String>,
}

/// Tokens that a LLaMA tokenizer has when its configuration is silent.
const LLAMA_TOKENS: [(&str, &str); 3] = [("unk_token", "<unk>"), ("bos_token", "<s>"), ("eos_token", "</s>")];

/// Reads the files of a directory, either of which may be missing.
pub(super) fn read(dir: &Path) -> Result<Settings, TokenizerError> {
    let path = dir.join("tokenizer_config.json");
    let config = object(&path)?;
    let mut settings = Settings { path, config, added: BTreeMap::new() };
    for (token, id) in object(&dir.join("added_tokens.json"))? {
        let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
        let id = id.ok_or_else(|| settings.broken(format!("added_tokens.json gives {token:?} no id")))?;
        settings.added.insert(id, token);
    }
    if let Some(tokens) = settings.config.get("added_tokens_decoder").and_then(Value::as_object).cloned() {
        for (id, token) in tokens {
            let id = id.parse().map_err(|_| settings.broken(format!("`added_tokens_decoder` has the id {id:?}")))?;
            let text =
                settings.text(&token)?.ok_or_else(|| settings.broken(format!("added token {id} has no text")))?;
            settings.added.insert(id, text);
        }
    }
    Ok(settings)
}

impl Settings {
    /// The token that begins every sequence, if one does. A LLaMA tokenizer has one unless told otherwise.
    pub(super) fn bos(&self) -> Option<&str> {
        let adds = self.config.get("add_bos_token").and_then(Value::as_bool).unwrap_or(true);
        let token = match self.config.get("bos_token") {
            None => Some("<s>"),
            Some(token) => token.get("content").unwrap_or(token).as_str(),
        };
        token.filter(|_| adds)
    }

    /// A setting of `tokenizer_config.json`.
    pub(super) fn value(&self, key: &str) -> Option<&Value> {
        self.config.get(key)
    }

    /// The special tokens by their roles, such as `eos_token`.
    pub(super) fn tokens(&self) -> BTreeMap<String, String> {
        let tokens = self.config.iter().filter(|(key, _)| key.ends_with("_token"));
        let text = |value: &Value| Some(value.get("content").unwrap_or(value).as_str()?.to_string());
        tokens.filter_map(|(key, value)| Some((key.clone(), text(value)?))).collect()
    }

    /// The settings of a SentencePiece model; `id_of` looks up its pieces.
    pub(super) fn for_sentencepiece(
        &self,
        id_of: &dyn Fn(&str) -> Option<u32>,
    ) -> Result<sentencepiece::Settings, String> {
        let mut special: Vec<(String, u32)> = self.added.iter().map(|(id, text)| (text.clone(), *id)).collect();
        for (key, usual) in LLAMA_TOKENS.into_iter().chain([("pad_token", "")]) {
            let token = match self.config.get(key) {
                None => Some(usual.to_string()).filter(|token| id_of(token).is_some()),
                Some(token) => self.text(token).map_err(|error| error.to_string())?,
            };
            let Some(token) = token.filter(|token| !special.iter().any(|(text, _)| text == token)) else { continue };
            let id = id_of(&token).ok_or_else(|| format!("`{key}` {token:?} of tokenizer_config.json is not in it"))?;
            special.push((token, id));
        }
        let flag = |key: &str| self.config.get(key).and_then(Value::as_bool).unwrap_or(true);
        Ok(sentencepiece::Settings { special, legacy: flag("legacy"), prefix_space: flag("add_prefix_space") })
    }

    /// The text of a token, which is written as a string or as an object; `null` is none.
    fn text(&self, token: &Value) -> Result<Option<String>, TokenizerError> {
        match token {
            Value::Null => Ok(None),
            Value::String(text) => Ok(Some(text.clone())),
            Value::Object(parts) => {
                for key in ["lstrip", "rstrip", "single_word"] {
                    if parts.get(key).and_then(Value::as_bool) == Some(true) {
                        return Err(self.broken(format!("`{key}` of token {token} is not supported; supported: false")));
                    }
                }
                Ok(parts.get("content").and_then(Value::as_str).map(str::to_string))
            }
            other => Err(self.broken(format!("{other} is no token"))),
        }
    }

    fn broken(&self, problem: String) -> TokenizerError {
        TokenizerError::Broken { path: self.path.clone(), problem }
    }
}

/// A JSON file whose root is an object; a missing one is empty.
fn object(path: &Path) -> Result<Map<String, Value>, TokenizerError> {
    if !path.is_file() {
        return Ok(Map::new());
    }
    let broken = |problem: String| TokenizerError::Broken { path: path.to_path_buf(), problem };
    serde_json::from_slice(&read_file(path)?).map_err(|error| broken(error.to_string()))
}
