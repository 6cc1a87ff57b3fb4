//! The operations of a file system that writing a folder needs.

use std::fmt::Debug;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// A file system to write to. Reading needs no such seam: what is read is verified.
pub trait Disk: Debug + Send + Sync {
    /// Makes a folder whose parent exists. One that is there already is no error.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes an empty file, in place of one that is there.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Gives a file or folder another name; a file that has that name is replaced.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a folder and what it holds.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a folder survive a loss of power.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Bytes that can still be written below `path`, where that is known.
    fn available(&self, path: &Path) -> Option<u64>;
}

/// A file that is being written.
pub trait DiskFile: Write {
    /// Makes the content survive a loss of power.
    fn sync(&mut self) -> io::Result<()>;
}

/// The file system of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemDisk;

impl Disk for SystemDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        match fs::create_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            result => result,
        }
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(BufWriter::with_capacity(1 << 20, File::create(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        // Only Unix opens folders as files; elsewhere names are flushed with what they name.
        if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
    }

    fn available(&self, path: &Path) -> Option<u64> {
        fs4::available_space(path).ok()
    }
}

impl DiskFile for BufWriter<File> {
    fn sync(&mut self) -> io::Result<()> {
        self.flush()?;
        self.get_ref().sync_all()
    }
}
