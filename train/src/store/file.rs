//! Writing a single file as a whole.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

/// What the content of a written file outlives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Survives {
    /// The end of the program, whenever that comes.
    Programs,
    /// A loss of power as well, for which it waits for the disk.
    LossOfPower,
}

/// Writes a file as a whole, and the folders that it lies in: a reader sees what was there or the new content, and writers do not
/// mix, since each has a name of its own for what is not whole yet.
pub(crate) fn replace_file(path: &Path, content: &[u8], survives: Survives) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(content)?;
    if survives == Survives::LossOfPower {
        file.as_file().sync_all()?;
    }
    file.persist(path).map(drop).map_err(|error| error.error)
}
