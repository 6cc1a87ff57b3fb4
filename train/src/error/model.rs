//! Errors of model, adapter and checkpoint files, as the user reads them.

use std::io;
use std::path::Path;

use viral_model::adapter::AdapterError;
use viral_model::config::ConfigError;
use viral_model::graph::SourceError;
use viral_model::weights::CheckpointError;

use super::{Error, Kind};

const AGAIN: &str = "copy or download the file again, and check that the disk was not full";

impl From<ConfigError> for Error {
    fn from(error: ConfigError) -> Self {
        match error {
            ConfigError::Io { path, source, hint } => read(&path, &source, hint),
            ConfigError::Json { path, problem } => file(
                &path,
                "a configuration of the model is not a JSON object",
                problem,
                "restore the file from where the model came from",
            ),
            ConfigError::Value { path, key, value, expected } => file(
                &path,
                &format!("`{key}` of the model cannot be {value}"),
                format!("expected {expected}"),
                "restore the file from where the model came from",
            ),
            ConfigError::Unsupported { path, key, value, supported } => file(
                &path,
                &format!("`{key}` = {value} is not supported"),
                format!("supported: {supported}"),
                "choose a model with a supported setting",
            ),
            ConfigError::Inconsistent { path, problem } => {
                file(&path, "the model's configuration contradicts itself", problem, "correct one of the settings")
            }
        }
    }
}

impl From<CheckpointError> for Error {
    fn from(error: CheckpointError) -> Self {
        let text = error.to_string();
        match error {
            CheckpointError::Io { path, source, .. } => {
                read(&path, &source, "check the path; a folder in the Hugging Face layout is needed")
            }
            CheckpointError::NoWeights { dir, found } => file(
                &dir,
                "the folder holds no weights",
                format!("neither model.safetensors nor pytorch_model.bin is there, nor an index of either{found}"),
                "download the model's weights into this folder",
            ),
            CheckpointError::Foreign { path, problem } => file(&path, "not a weight file", problem, AGAIN),
            CheckpointError::Pickle { path, problem } => file(
                &path,
                "the file is refused: it holds more than tensors, or is damaged",
                format!("{problem} (nothing in it was run)"),
                "use the model's files in safetensors format",
            ),
            CheckpointError::Truncated { path, problem } => file(&path, "the file is truncated", problem, AGAIN),
            CheckpointError::Header { path, problem } => file(&path, "the file has a damaged header", problem, AGAIN),
            CheckpointError::Index { path, problem } => {
                file(&path, "the index of the checkpoint is wrong", problem, "download index and shards again")
            }
            CheckpointError::Duplicate { name, first, first_file, second, second_file } => file(
                &second_file,
                &format!("tensor `{name}` is stored twice"),
                format!("as {first} in {}, and as {second} here", first_file.display()),
                "keep the files of one version of the model only",
            ),
            CheckpointError::Contradiction { path, problem } => file(
                &path,
                "two files contradict each other",
                problem,
                "keep the files of one version of the model only",
            ),
            CheckpointError::Missing { path, name } => file(
                &path,
                &format!("tensor `{name}` is missing"),
                "the model's configuration calls for it".into(),
                "check that config.json and weights belong together",
            ),
            CheckpointError::Dtype { path, name, found } => file(
                &path,
                &format!("tensor `{name}` is of type {found}"),
                "expected F32, F16 or BF16".into(),
                "use a version of the model that is not quantised",
            ),
            CheckpointError::NonFinite { path, name, index, value } => file(
                &path,
                &format!("tensor `{name}` holds {value}"),
                format!("at element {index}: the file is damaged, or the model diverged"),
                AGAIN,
            ),
            CheckpointError::Mismatch { path, hint, .. } => {
                file(&path, "the weights do not match the configuration", listed(&text), hint)
            }
        }
    }
}

impl From<AdapterError> for Error {
    fn from(error: AdapterError) -> Self {
        match error {
            AdapterError::Config(error) => error.into(),
            AdapterError::Weights(error) => error.into(),
            AdapterError::NotAnAdapter { dir, problem } => file(
                &dir,
                "not an adapter directory",
                problem.into(),
                "expected adapter_config.json and adapter_model.safetensors as PEFT writes them",
            ),
            AdapterError::NotWritable { dir, name, problem } => Self {
                place: dir.display().to_string(),
                ..Self::internal(format!("tensor `{name}` does not belong into an adapter"), problem)
            },
            AdapterError::Io { path, source } => Self::io("write the adapter", &path, &source),
        }
    }
}

impl From<SourceError<CheckpointError>> for Error {
    fn from(error: SourceError<CheckpointError>) -> Self {
        match error {
            SourceError::Load(error) => error.into(),
            foreign => Self {
                kind: Kind::Model,
                what: "a table of positions cannot be used".into(),
                place: String::new(),
                why: foreign.to_string(),
                hint: "check that config.json and weights belong together".into(),
            },
        }
    }
}

fn file(path: &Path, what: &str, why: String, hint: &str) -> Error {
    Error { kind: Kind::Model, what: what.into(), place: path.display().to_string(), why, hint: hint.into() }
}

/// A file that is not there makes the model invalid; any other failure to read is the disk's.
fn read(path: &Path, error: &io::Error, hint: &str) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound => file(path, "a file of the model is missing", error.to_string(), hint),
        _ => Error::io("read a file of the model", path, error),
    }
}

/// The lists of tensors in a mismatch: its message without the first line, which names the file, and the last, which is
/// the hint.
fn listed(text: &str) -> String {
    let lines: Vec<_> = text.lines().skip(1).map(|line| line.strip_prefix("  ").unwrap_or(line)).collect();
    lines.split_last().map(|(_, lists)| lists.join("\n")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn damage_names_file_tensor_and_remedy() {
        let path = PathBuf::from("llava/model.safetensors");
        let truncated = CheckpointError::Truncated { path: path.clone(), problem: "100 of 200 bytes".into() };
        assert_eq!(
            Error::from(truncated).to_string(),
            "the file is truncated\n  where  llava/model.safetensors\n  why    100 of 200 bytes\n  try    copy or \
             download the file again, and check that the disk was not full"
        );
        let mismatch = CheckpointError::Mismatch {
            path,
            missing: vec!["a.weight".into()],
            left_over: vec!["b.weight".into(), "c.weight".into()],
            shapes: vec![],
            hint: "check that they belong together",
        };
        let error = Error::from(AdapterError::Weights(mismatch));
        assert_eq!(error.kind.exit_code(), 4);
        assert_eq!(error.why, "1 tensor missing:\n  a.weight\n2 tensors left over:\n  b.weight\n  c.weight");
        assert_eq!(error.hint, "check that they belong together");
    }

    #[test]
    fn missing_files_are_the_models_and_unreadable_ones_the_disks() {
        let io =
            |kind: io::ErrorKind| ConfigError::Io { path: "llava/config.json".into(), source: kind.into(), hint: "h" };
        assert_eq!(Error::from(io(io::ErrorKind::NotFound)).kind, Kind::Model);
        assert_eq!(Error::from(io(io::ErrorKind::PermissionDenied)).kind, Kind::Io);
    }
}
