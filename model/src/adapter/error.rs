//! What can be wrong with an adapter directory.

use std::path::PathBuf;

use crate::config::ConfigError;
use crate::weights::CheckpointError;

/// An adapter that cannot be used. The message names file and key.
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    /// `adapter_config.json` is missing, wrong, or asks for something that is not implemented.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A weight file is missing, damaged, or does not hold what it should.
    #[error(transparent)]
    Weights(#[from] CheckpointError),
    /// The directory holds nothing that could be loaded.
    #[error("{} is not an adapter directory: {problem}", dir.display())]
    NotAnAdapter {
        /// The directory.
        dir: PathBuf,
        /// What was looked for, and what to try.
        problem: &'static str,
    },
    /// A tensor that does not belong into an adapter directory was to be written.
    #[error("cannot write {name} to {}: {problem}", dir.display())]
    NotWritable {
        /// The directory.
        dir: PathBuf,
        /// Canonical name.
        name: String,
        /// Why not.
        problem: &'static str,
    },
    /// A file or directory cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
}
