//! `residual_config.json`: how visual tokens are added again inside the decoder.

use std::path::Path;

use serde_json::json;

use crate::config::{ConfigError, Document};

/// How visual tokens are added again inside the decoder. A model that was trained so must be run so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResidualConfig {
    /// What is added: `post_projection`, the visual tokens, or `pre_projection`, the encoder's features through the
    /// residual's adapter.
    pub source: String,
    /// Decoder layers behind which it is added, counted from 1.
    pub layers: Vec<usize>,
    /// Where: `visual` tokens, or `all`.
    pub positions: String,
}

impl ResidualConfig {
    pub(super) fn read(path: &Path) -> Result<Self, ConfigError> {
        let document = Document::read(path)?;
        let s = document.root();
        let word = |key: &str, words: [&str; 2]| -> Result<String, ConfigError> {
            let expected = || s.wrong(key, &format!("{:?} or {:?}", words[0], words[1]));
            Ok(s.text(key)?.filter(|word| words.contains(word)).ok_or_else(expected)?.to_owned())
        };
        let layers = s.value("layers").and_then(|value| value.as_array()).and_then(|layers| {
            layers.iter().map(|layer| layer.as_u64().and_then(|layer| usize::try_from(layer).ok())).collect()
        });
        Ok(Self {
            source: word("source", ["post_projection", "pre_projection"])?,
            layers: layers.ok_or_else(|| s.wrong("layers", "a list of layers"))?,
            positions: word("positions", ["visual", "all"])?,
        })
    }

    /// The file's text.
    pub(super) fn to_json(&self) -> String {
        let Self { source, layers, positions } = self;
        format!("{:#}\n", json!({"source": source, "layers": layers, "positions": positions}))
    }
}

impl std::fmt::Display for ResidualConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "source = {:?}, layers = {:?}, positions = {:?}", self.source, self.layers, self.positions)
    }
}
