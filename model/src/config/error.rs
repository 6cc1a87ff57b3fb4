//! What can be wrong with a configuration file.

use std::path::{Path, PathBuf};

/// A configuration that cannot be used. The message names file, key and value.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is missing or cannot be read.
    #[error("cannot read {}: {source}; {hint}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
        /// What to try.
        hint: &'static str,
    },
    /// The file is not JSON, or its root is not an object.
    #[error("{} is not a JSON object: {problem}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What the parser says, with line and column.
        problem: String,
    },
    /// A key holds a value of the wrong kind or out of range.
    #[error("{}: `{key}` is {value}, expected {expected}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// Dotted path of the key.
        key: String,
        /// The value as JSON, shortened.
        value: String,
        /// What the key takes.
        expected: String,
    },
    /// The value is legitimate, but this program does not implement it.
    #[error("{}: `{key}` = {value} is not supported; supported: {supported}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// Dotted path of the key.
        key: String,
        /// The value as JSON, shortened.
        value: String,
        /// What is implemented.
        supported: String,
    },
    /// Two settings contradict each other.
    #[error("{}: {problem}", path.display())]
    Inconsistent {
        /// The file.
        path: PathBuf,
        /// The settings with their values and the rule between them.
        problem: String,
    },
}

/// The error of a failed read, with a hint that fits its kind.
pub(crate) fn io_error(path: &Path, source: std::io::Error) -> ConfigError {
    let hint = match source.kind() {
        std::io::ErrorKind::NotFound => "check the path: a model directory in the Hugging Face layout is needed",
        std::io::ErrorKind::PermissionDenied => "check the permissions",
        _ => "check the disk and the path",
    };
    ConfigError::Io { path: path.to_path_buf(), source, hint }
}
