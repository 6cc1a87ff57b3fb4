//! Read-only memory mapping, the crate's one use of `unsafe`.
//!
//! Checkpoints of tens of gigabytes must not be copied into memory before one tensor is read, and no safe interface to
//! file mappings exists: the language cannot rule out that another process changes the file. It is kept to this file
//! so that the rest of the crate stays free of it.

use std::fs::File;
use std::ops::Deref;
use std::path::Path;

use memmap2::Mmap;

/// The bytes of a file, mapped read-only for as long as the value lives.
pub(crate) struct Mapping(Option<Mmap>);

impl Mapping {
    /// Maps a regular file.
    #[allow(unsafe_code)]
    pub(crate) fn open(path: &Path) -> std::io::Result<Self> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "not a regular file"));
        }
        if metadata.len() == 0 {
            // Mapping nothing is an error on most systems.
            return Ok(Self(None));
        }
        // SAFETY: the mapping is private and read-only, and is only ever viewed as `&[u8]`, for which every bit pattern
        // is valid. All offsets were checked against the length at this moment. What remains is another process that
        // truncates or rewrites the file during the run: like every program that maps its weights, this one requires
        // checkpoints to stay unchanged while they are in use. This project's own writers never modify a file in place;
        // they write a new one and rename it, which leaves existing mappings on the old contents.
        let map = unsafe { Mmap::map(&file)? };
        Ok(Self(Some(map)))
    }

    /// Lets the system take back the memory of the pages that have been read; they are read again from the file if needed.
    /// Does nothing where the system has no such call.
    #[allow(unsafe_code)]
    pub(crate) fn release(&self) {
        #[cfg(unix)]
        if let Some(map) = &self.0 {
            // SAFETY: this call may discard changes of private pages. The mapping is read-only, so there are none: every page
            // comes back from the file with the same content.
            let released = unsafe { map.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
            // A refusal costs memory and nothing else.
            drop(released);
        }
    }
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }
}
