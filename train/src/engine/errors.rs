//! Errors of the other crates as the user reads them.

use std::path::Path;

use viral_compiler::CompileError;

use crate::error::{Error, Kind};
use crate::run::Signal;

/// Settings that do not fit the networks.
pub(crate) fn config(what: impl Into<String>, why: impl Into<String>, hint: impl Into<String>) -> Error {
    Error { kind: Kind::Config, what: what.into(), place: String::new(), why: why.into(), hint: hint.into() }
}

/// Three steps in a row without a finite gradient.
pub(crate) fn not_finite(step: u64, why: String) -> Error {
    Error {
        kind: Kind::NonFinite,
        what: format!("figures were not finite for three steps in a row, the last of them step {step}"),
        place: String::new(),
        why: format!("{why}\nthe trained tensors still have their last finite values"),
        hint: "try a lower train.lr, a longer warm-up, or train.max_grad_norm = 1.0".into(),
    }
}

/// A signal has ended the run.
pub(crate) fn interrupted(signal: Signal, folder: &Path, checkpoint: &Path) -> Error {
    Error {
        kind: signal.kind(),
        what: "the run was interrupted".into(),
        place: folder.display().to_string(),
        why: format!("the step under way was finished and saved in {}", checkpoint.display()),
        hint: "the same command with --resume goes on".into(),
    }
}

impl From<CompileError> for Error {
    fn from(error: CompileError) -> Self {
        match error {
            CompileError::TooLarge { .. } => Self {
                kind: Kind::Memory,
                what: "a tensor is too large for the device".into(),
                place: String::new(),
                why: error.to_string(),
                hint: "try a smaller train.batch or train.max_length".into(),
            },
            other => Self::internal("the training graph does not compile", other.to_string()),
        }
    }
}
