//! Device memory, and the books on it.

use std::sync::{Arc, Mutex, PoisonError};

use crate::health::{from_wgpu, scoped};
use crate::host_memory::{self, Pages};
use crate::{Device, Error};

/// A buffer that kernels can read and write. Clones are handles to the same memory, which is freed with the last of them.
#[derive(Clone, Debug)]
pub struct Buffer(Arc<Allocation>);

/// A new buffer that is given its first content, before anybody else has it: where the device's memory is the host's this goes
/// without a copy in between.
pub struct Filling<'d> {
    device: &'d Device,
    buffer: Buffer,
    pages: Option<Pages>,
}

/// How much device memory is and was in use, without what wgpu holds for a moment to carry [`Device::write`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUsage {
    /// Buffers that exist now.
    pub live_buffers: u64,
    /// Their bytes.
    pub live_bytes: u64,
    /// The most bytes that ever existed at one time.
    pub peak_bytes: u64,
    /// Buffers ever created: constant from the second step of a training run on.
    pub created_buffers: u64,
    /// Bytes ever created.
    pub created_bytes: u64,
}

/// One wgpu buffer, entered in the device's books from creation to drop.
#[derive(Debug)]
pub(crate) struct Allocation {
    raw: wgpu::Buffer,
    label: String,
    bytes: u64,
    accounts: Arc<Accounts>,
}

/// Books on device memory, shared by a device and its buffers.
#[derive(Debug)]
pub(crate) struct Accounts {
    limit: Option<u64>,
    usage: Mutex<MemoryUsage>,
}

impl Device {
    /// Allocates a buffer of at least `bytes` bytes (rounded up to a multiple of 16), filled with zeros.
    ///
    /// # Errors
    /// [`Error::BufferTooLarge`], [`Error::OutOfMemory`], or [`Error::DeviceLost`].
    pub fn buffer(&self, label: &str, bytes: u64) -> Result<Buffer, Error> {
        Ok(self.filling(label, bytes)?.finish())
    }

    /// Allocates a buffer as [`Device::buffer`] does, to be filled.
    ///
    /// # Errors
    /// As [`Device::buffer`].
    pub fn filling(&self, label: &str, bytes: u64) -> Result<Filling<'_>, Error> {
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        let (allocation, pages) = self.allocate_pages(label, bytes, usage, false)?;
        Ok(Filling { device: self, buffer: Buffer(Arc::new(allocation)), pages })
    }

    /// Allocates memory of any kind.
    pub(crate) fn allocate(
        &self,
        label: &str,
        bytes: u64,
        usage: wgpu::BufferUsages,
        mapped: bool,
    ) -> Result<Allocation, Error> {
        self.allocate_pages(label, bytes, usage, mapped).map(|(allocation, _)| allocation)
    }

    /// The same with its pages, where they are the host's; all of the crate's allocations go through here.
    fn allocate_pages(
        &self,
        label: &str,
        bytes: u64,
        usage: wgpu::BufferUsages,
        mapped: bool,
    ) -> Result<(Allocation, Option<Pages>), Error> {
        self.check()?;
        let limit = self.target().max_buffer_bytes;
        let too_large = || Error::BufferTooLarge { what: label.to_owned(), bytes, limit };
        let bytes = bytes.max(1).checked_next_multiple_of(16).ok_or_else(too_large)?;
        if bytes > limit {
            return Err(too_large());
        }
        self.accounts().enter(label, bytes)?;
        let ((raw, pages), error) = scoped(self.raw(), || {
            let memory = self.host_memory().filter(|_| usage == host_memory::USAGES && !mapped);
            if let Some((raw, pages)) = memory.and_then(|memory| memory.buffer(self.raw(), label, bytes)) {
                return (raw, Some(pages));
            }
            let descriptor =
                wgpu::BufferDescriptor { label: Some(label), size: bytes, usage, mapped_at_creation: mapped };
            (self.raw().create_buffer(&descriptor), None)
        });
        // Made before the errors are looked at, so that its drop takes a failed allocation out of the books again.
        let allocation = Allocation { raw, label: label.to_owned(), bytes, accounts: Arc::clone(self.accounts()) };
        if let Some(error) = error {
            let in_use = self.memory().live_bytes - bytes;
            return Err(from_wgpu(error, label, bytes, in_use));
        }
        self.check()?;
        Ok((allocation, pages))
    }
}

impl Filling<'_> {
    /// Copies `content` to the buffer from byte `offset` on. A last incomplete word is filled up with zeros.
    ///
    /// # Errors
    /// As [`Device::write`].
    pub fn write(&mut self, offset: u64, content: &[u8]) -> Result<(), Error> {
        let Some(pages) = &mut self.pages else { return self.device.write(&self.buffer, offset, content) };
        let (bytes, words) = (content.len(), content.len().next_multiple_of(4));
        self.buffer.check_words(offset, words as u64)?;
        pages.write(offset, content);
        pages.write(offset + bytes as u64, &[0; 3][..words - bytes]);
        self.device.check()
    }

    /// The buffer, as it was filled; zeros elsewhere.
    pub fn finish(self) -> Buffer {
        self.buffer
    }
}

impl Buffer {
    /// The name it was allocated under.
    pub fn label(&self) -> &str {
        &self.0.label
    }

    /// Its size in bytes, a multiple of 16.
    pub fn bytes(&self) -> u64 {
        self.0.bytes
    }

    pub(crate) fn raw(&self) -> &wgpu::Buffer {
        &self.0.raw
    }

    /// Fails unless bytes `offset .. offset + bytes` exist.
    pub(crate) fn check_range(&self, offset: u64, bytes: u64) -> Result<(), Error> {
        let end = offset.saturating_add(bytes);
        if end > self.bytes() {
            return Err(Error::OutOfRange { buffer: self.label().to_owned(), offset, end, size: self.bytes() });
        }
        Ok(())
    }

    /// Fails unless bytes `offset .. offset + bytes` exist and begin and end on a 4-byte boundary.
    pub(crate) fn check_words(&self, offset: u64, bytes: u64) -> Result<(), Error> {
        self.check_range(offset, bytes)?;
        if !offset.is_multiple_of(4) || !bytes.is_multiple_of(4) {
            return Err(Error::Unaligned { buffer: self.label().to_owned(), offset, bytes });
        }
        Ok(())
    }
}

impl Allocation {
    pub(crate) fn raw(&self) -> &wgpu::Buffer {
        &self.raw
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        let mut usage = self.accounts.lock();
        usage.live_buffers -= 1;
        usage.live_bytes -= self.bytes;
    }
}

impl Accounts {
    pub(crate) fn new(limit: Option<u64>) -> Self {
        Self { limit, usage: Mutex::default() }
    }

    pub(crate) fn usage(&self) -> MemoryUsage {
        *self.lock()
    }

    /// Enters a new buffer, unless it would exceed the limit.
    fn enter(&self, what: &str, bytes: u64) -> Result<(), Error> {
        let mut usage = self.lock();
        let live_bytes = usage.live_bytes.saturating_add(bytes);
        if self.limit.is_some_and(|limit| live_bytes > limit) {
            return Err(Error::OutOfMemory { what: what.to_owned(), bytes, in_use: usage.live_bytes });
        }
        usage.live_bytes = live_bytes;
        usage.live_buffers += 1;
        usage.peak_bytes = usage.peak_bytes.max(live_bytes);
        usage.created_buffers += 1;
        usage.created_bytes = usage.created_bytes.saturating_add(bytes);
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, MemoryUsage> {
        self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
