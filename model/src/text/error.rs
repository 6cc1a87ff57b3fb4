//! What can be wrong with a tokenizer or a conversation.

use std::path::PathBuf;

/// A tokenizer that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// A file is missing or cannot be read.
    #[error("cannot read {}: {source}; {hint}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
        /// What to try.
        hint: &'static str,
    },
    /// A file is damaged or of another version.
    #[error("{} is not a usable tokenizer file: {problem}", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

/// A conversation that cannot be turned into a training sample. Turns are counted from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// There is nothing to learn from.
    #[error("the conversation has no turns")]
    Empty,
    /// A turn's speaker is unknown.
    #[error("turn {turn} is from `{from}`, expected `human` or `gpt`")]
    Role {
        /// Number of the turn.
        turn: usize,
        /// What stands in `from`.
        from: String,
    },
    /// Two turns of one speaker follow each other.
    #[error("turn {turn} is from `{from}` like the one before it; speakers have to alternate")]
    Order {
        /// Number of the turn.
        turn: usize,
        /// The speaker.
        from: String,
    },
    /// The `plain` template takes one picture and one caption.
    #[error("the plain template takes a human turn with an {tag} tag and a gpt turn: {problem}", tag = super::IMAGE_TAG)]
    Plain {
        /// What is there instead.
        problem: String,
    },
    /// The checkpoint's chat template fails.
    #[error("the model's chat template: {problem}")]
    Chat {
        /// What it says, or what is wrong with it.
        problem: String,
    },
    /// The tokenizer fails on a text.
    #[error("the tokenizer fails: {0}")]
    Tokenizer(String),
}
