//! What can be wrong with a picture.

use std::path::PathBuf;

/// A picture that cannot be used. The message names the file and what to try.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The file is missing or cannot be read.
    #[error("cannot read image {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The contents are no picture of a known format; the file name does not matter.
    #[error("{} is not a PNG, JPEG, WebP, BMP or GIF image", path.display())]
    Unknown {
        /// The file.
        path: PathBuf,
    },
    /// The format is known, the contents are damaged.
    #[error("image {} is broken: {problem}; copy or download it again", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// What the decoder says.
        problem: String,
    },
    /// The picture exceeds a limit that protects memory; it was not decoded.
    #[error("image {} is too large: {problem}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Size and limit.
        problem: String,
    },
}
