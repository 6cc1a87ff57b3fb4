//! Folders that are there as a whole or not at all, whatever happens while they are written.
//!
//! * [`Disk`] is the few operations that writing needs, so that tests can let each of them fail (`disk.rs`);
//! * [`write_folder`] writes a folder beside its final place, flushes it and renames it (`folder.rs`);
//! * [`Manifest`] is the list of a folder's files with size and hash, written last (`manifest.rs`);
//! * [`Checkpoints`] are the `step-N` folders of a run: saved, found, thinned out (`checkpoints.rs`);
//! * [`FeatureFolder`] is what frozen networks made of pictures, a file each (`features.rs`);
//! * [`replace_file`] writes a single file as a whole (`file.rs`).

mod checkpoints;
mod disk;
#[cfg(test)]
pub(crate) mod faults;
mod features;
mod file;
mod folder;
mod manifest;
#[cfg(test)]
mod tests;

pub use checkpoints::{Best, Checkpoints, step_of};
pub use disk::{Disk, DiskFile, SystemDisk};
pub(crate) use features::{FeatureFolder, Value as FeatureValue, hex};
pub(crate) use file::{Survives, replace_file};
pub(crate) use folder::put;
pub use folder::{Part, write_folder};
pub use manifest::{MANIFEST, Manifest};
