//! Compiled pipelines kept in a file between runs, for drivers that do not keep them themselves.
//!
//! A cache may be lost at any time: whatever is wrong with the file, pipelines are compiled afresh.

use std::fs;
use std::path::{Path, PathBuf};

use crate::trusted;

/// The driver's cache object and the file it came from and goes to.
pub(super) struct Cache {
    raw: wgpu::PipelineCache,
    file: PathBuf,
    damaged: bool,
}

impl Cache {
    /// Opens the cache of this adapter in `folder`; `None` where the driver has none.
    pub(super) fn open(device: &wgpu::Device, info: &wgpu::AdapterInfo, folder: &Path) -> Option<Self> {
        let driver: String =
            info.driver_info.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let file = folder.join(format!("{}-{driver}", wgpu::util::pipeline_cache_key(info)?));
        let stored = fs::read(&file).ok();
        let content = stored.as_deref().and_then(unseal);
        let damaged = stored.is_some() && content.is_none();
        Some(Self { raw: trusted::pipeline_cache(device, content), file, damaged })
    }

    /// The file, if what it held could not be used.
    pub(super) fn damaged(&self) -> Option<&Path> {
        self.damaged.then_some(&self.file)
    }

    pub(super) fn raw(&self) -> &wgpu::PipelineCache {
        &self.raw
    }

    /// Writes the cache back. A failure costs only time in the next run, so it is not reported.
    pub(super) fn save(&self) {
        let Some(content) = self.raw.get_data() else { return };
        // Written aside and renamed, so that no reader sees half a file; named by process, so that two writers do not mix.
        let mut aside = self.file.clone().into_os_string();
        aside.push(format!(".{}", std::process::id()));
        let written =
            self.file.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(&aside, seal(&content)));
        if written.and_then(|()| fs::rename(&aside, &self.file)).is_err() {
            drop(fs::remove_file(&aside));
        }
    }
}

/// Appends a checksum: the driver trusts what it is given, and wgpu checks the header alone.
fn seal(content: &[u8]) -> Vec<u8> {
    let mut sealed = content.to_vec();
    sealed.extend_from_slice(&checksum(content).to_le_bytes());
    sealed
}

/// The content of a sealed file, if it is the one that was sealed.
fn unseal(sealed: &[u8]) -> Option<&[u8]> {
    let (content, sum) = sealed.split_last_chunk()?;
    (u64::from_le_bytes(*sum) == checksum(content)).then_some(content)
}

/// FNV-1a, 64 bits: enough against torn and truncated files.
fn checksum(content: &[u8]) -> u64 {
    content.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_file_is_not_used() {
        let sealed = seal(b"compiled pipelines");
        assert_eq!(unseal(&sealed), Some(&b"compiled pipelines"[..]));
        for cut in 0..sealed.len() {
            assert_eq!(unseal(&sealed[..cut]), None, "truncated to {cut} bytes");
        }
        for at in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[at] ^= 1;
            assert_eq!(unseal(&damaged), None, "bit flipped in byte {at}");
        }
    }
}
