//! What can be wrong with weight files.

use std::fmt;
use std::path::{Path, PathBuf};

/// Lists in a message stop after this many entries.
const LISTED: usize = 8;

/// A checkpoint that cannot be used. The message names the file, the tensor where there is one, and what to try.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// A file or directory cannot be read or written.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was being done, such as "cannot open".
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A directory holds no weight file.
    #[error("{} holds neither model.safetensors nor pytorch_model.bin, nor an index of either{found}", dir.display())]
    NoWeights {
        /// The directory.
        dir: PathBuf,
        /// What was found instead, with advice.
        found: &'static str,
    },
    /// A file is neither safetensors nor PyTorch's.
    #[error("{} is not a weight file: {problem}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it looks like, and what to try.
        problem: String,
    },
    /// The file ends before its contents do.
    #[error("{} is truncated: {problem}; copy or download it again", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Sizes in bytes, and the first tensor that is cut.
        problem: String,
    },
    /// The header is damaged or contradicts itself.
    #[error("{} has a damaged header: {problem}; copy or download it again", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the tensor's name.
        problem: String,
    },
    /// A PyTorch file holds something else than tensors, or contradicts itself. Nothing in it was run.
    #[error("{} is refused: {problem}; its pickle was not run; a file in safetensors format has none", path.display())]
    Pickle {
        /// The file.
        path: PathBuf,
        /// What is in it, or wrong with it.
        problem: String,
    },
    /// The index of a sharded checkpoint is wrong.
    #[error("{}: {problem}", path.display())]
    Index {
        /// The index file.
        path: PathBuf,
        /// What is wrong, with tensor and shard names.
        problem: String,
    },
    /// Two stored tensors have the same canonical name.
    #[error("tensor {name} is stored twice: as {first} in {} and as {second} in {}", first_file.display(), second_file.display())]
    Duplicate {
        /// Canonical name.
        name: String,
        /// Stored name of the first.
        first: String,
        /// File of the first.
        first_file: PathBuf,
        /// Stored name of the second.
        second: String,
        /// File of the second.
        second_file: PathBuf,
    },
    /// Files beside each other hold different elements for the same tensor.
    #[error("{}: {problem}; keep the files of one version only", path.display())]
    Contradiction {
        /// The second file.
        path: PathBuf,
        /// The tensor and the first file.
        problem: String,
    },
    /// A tensor that was asked for is not there.
    #[error("{} has no tensor {name}", path.display())]
    Missing {
        /// The file or directory.
        path: PathBuf,
        /// Canonical name.
        name: String,
    },
    /// A tensor's element type is not one that weights come in.
    #[error("{}: tensor {name} is of type {found}, expected F32, F16 or BF16", path.display())]
    Dtype {
        /// The file.
        path: PathBuf,
        /// Tensor name.
        name: String,
        /// Type in the header.
        found: String,
    },
    /// A tensor holds NaN or infinity.
    #[error("{}: tensor {name} holds {value} at element {index}: the file is damaged or the model diverged", path.display())]
    NonFinite {
        /// The file.
        path: PathBuf,
        /// Tensor name.
        name: String,
        /// Position in row-major order.
        index: usize,
        /// The value.
        value: f32,
    },
    /// The checkpoint does not hold the tensors that the configuration calls for.
    #[error("{}", mismatch(path, missing, left_over, shapes, hint))]
    Mismatch {
        /// The file or directory.
        path: PathBuf,
        /// Expected and not found.
        missing: Vec<String>,
        /// Found and not expected.
        left_over: Vec<String>,
        /// Found with another shape.
        shapes: Vec<ShapeMismatch>,
        /// What to try.
        hint: &'static str,
    },
}

/// A tensor whose stored shape is not the one that the configuration calls for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShapeMismatch {
    /// Canonical name.
    pub name: String,
    /// Shape by the configuration.
    pub expected: Vec<usize>,
    /// Shape in the file.
    pub found: Vec<usize>,
}

impl fmt::Display for ShapeMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: expected shape {:?}, found {:?}", printable(&self.name), self.expected, self.found)
    }
}

/// A name from a file, with control characters escaped and cut to a readable length.
pub(crate) fn printable(name: &str) -> String {
    const LIMIT: usize = 200;
    let mut shown: String = name.chars().take(LIMIT).flat_map(char::escape_debug).collect();
    if name.chars().nth(LIMIT).is_some() {
        shown.push('…');
    }
    shown
}

fn mismatch(path: &Path, missing: &[String], left_over: &[String], shapes: &[ShapeMismatch], hint: &str) -> String {
    let mut text = format!("{} does not match its configuration", path.display());
    section(&mut text, "of the wrong shape", shapes, ShapeMismatch::to_string);
    section(&mut text, "missing", missing, |name| printable(name));
    section(&mut text, "left over", left_over, |name| printable(name));
    text.push_str("\n  ");
    text.push_str(hint);
    text
}

fn section<T>(text: &mut String, what: &str, items: &[T], show: impl Fn(&T) -> String) {
    if items.is_empty() {
        return;
    }
    let plural = if items.len() == 1 { "tensor" } else { "tensors" };
    text.push_str(&format!("\n  {} {plural} {what}:", items.len()));
    for item in items.iter().take(LISTED) {
        text.push_str(&format!("\n    {}", show(item)));
    }
    if items.len() > LISTED {
        text.push_str(&format!("\n    … and {} more", items.len() - LISTED));
    }
}
