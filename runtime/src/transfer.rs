//! Transfers outside the step loop: weights up, checkpoints down. [`Stream`](crate::Stream) moves what changes every step.

use std::ops::Range;
use std::sync::mpsc;
use std::sync::{MutexGuard, PoisonError};

use bytemuck::AnyBitPattern;

use crate::buffer::Allocation;
use crate::health::{from_wgpu, scoped};
use crate::submission::Submission;
use crate::{Buffer, Device, Error};

/// wgpu copies what is written into staging memory of its own and frees it once the copy has run; this much may wait.
const UPLOAD_WINDOW: u64 = 4 << 20;
/// Memory through which [`Device::read`] reads; allocated by the first one, and kept.
pub const READ_STAGING_BYTES: u64 = 4 << 20;

/// State of a device's transfers.
#[derive(Default)]
pub(crate) struct Transfers {
    /// Bytes written since the last submission.
    unsubmitted: u64,
    /// The window before the current one.
    previous: Option<Submission>,
    /// Reused by every read.
    read_staging: Option<Allocation>,
}

impl Device {
    /// Copies `content` to `buffer` from byte `offset` on. A last incomplete word is filled up with zeros.
    ///
    /// Takes effect before any work submitted afterwards. Host memory stays bounded however much is written.
    ///
    /// # Errors
    /// [`Error::OutOfRange`], [`Error::Unaligned`] (of the offset), [`Error::OutOfMemory`], [`Error::DeviceLost`].
    pub fn write(&self, buffer: &Buffer, offset: u64, content: &[u8]) -> Result<(), Error> {
        buffer.check_words(offset, (content.len() as u64).next_multiple_of(4))?;
        let mut at = offset;
        for chunk in content.chunks(UPLOAD_WINDOW as usize) {
            let (words, rest) = chunk.split_at(chunk.len() / 4 * 4);
            let mut last = [0; 4];
            last[..rest.len()].copy_from_slice(rest);
            let ((), error) = scoped(self.raw(), || {
                if !words.is_empty() {
                    self.queue().write_buffer(buffer.raw(), at, words);
                }
                if !rest.is_empty() {
                    self.queue().write_buffer(buffer.raw(), at + words.len() as u64, &last);
                }
            });
            if let Some(error) = error {
                return Err(from_wgpu(error, buffer.label(), chunk.len() as u64, self.memory().live_bytes));
            }
            self.advance_upload_window(chunk.len() as u64)?;
            at += chunk.len() as u64;
        }
        self.check()
    }

    /// Waits for all submitted work and returns the bytes of `range`.
    ///
    /// # Errors
    /// [`Error::OutOfRange`], [`Error::OutOfMemory`] (staging memory, first read only), [`Error::DeviceLost`].
    pub fn read(&self, buffer: &Buffer, range: Range<u64>) -> Result<Vec<u8>, Error> {
        let bytes = range.end.saturating_sub(range.start);
        buffer.check_range(range.start, bytes)?;
        let mut transfers = self.lock_transfers();
        let staging = match transfers.read_staging.take() {
            Some(staging) => staging,
            None => {
                let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
                self.allocate("read staging", READ_STAGING_BYTES, usage, false)?
            }
        };
        let mut content = Vec::with_capacity(bytes as usize);
        let mut at = range.start;
        while at < range.end {
            // Copies move whole words; the range need not be made of them.
            let start = at / 4 * 4;
            let end = (start + READ_STAGING_BYTES).min(range.end.next_multiple_of(4));
            let mut encoder = self.raw().create_command_encoder(&Default::default());
            encoder.copy_buffer_to_buffer(buffer.raw(), start, staging.raw(), 0, end - start);
            let submission = self.submit(Some(encoder.finish()))?;
            let mapping = Mapping::request(staging.raw(), wgpu::MapMode::Read, 0..end - start);
            submission.wait()?;
            mapping.finish(self)?;
            let stop = end.min(range.end);
            read_mapped(staging.raw(), at - start..stop - start, &mut content)?;
            staging.raw().unmap();
            at = stop;
        }
        transfers.read_staging = Some(staging);
        Ok(content)
    }

    /// As [`Device::read`], as elements of type `T`; a last incomplete element is left out.
    ///
    /// # Errors
    /// As [`Device::read`].
    pub fn read_as<T: AnyBitPattern>(&self, buffer: &Buffer, range: Range<u64>) -> Result<Vec<T>, Error> {
        let content = self.read(buffer, range)?;
        Ok(content.chunks_exact(size_of::<T>().max(1)).map(bytemuck::pod_read_unaligned).collect())
    }

    fn lock_transfers(&self) -> MutexGuard<'_, Transfers> {
        self.transfers().lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Submits full windows, and lets at most one wait behind the current one.
    fn advance_upload_window(&self, bytes: u64) -> Result<(), Error> {
        let mut transfers = self.lock_transfers();
        transfers.unsubmitted += bytes;
        if transfers.unsubmitted >= UPLOAD_WINDOW {
            transfers.unsubmitted = 0;
            let current = self.submit(None)?;
            if let Some(previous) = transfers.previous.replace(current) {
                previous.wait()?;
            }
        }
        Ok(())
    }
}

/// A request to map staging memory, under way.
#[derive(Debug)]
pub(crate) struct Mapping(mpsc::Receiver<Result<(), wgpu::BufferAsyncError>>);

impl Mapping {
    /// Asks for `range` of `buffer`; granted once all work submitted so far that uses the buffer is done.
    pub(crate) fn request(buffer: &wgpu::Buffer, mode: wgpu::MapMode, range: Range<u64>) -> Self {
        let (sender, receiver) = mpsc::channel();
        // The receiver may be gone: a dropped ticket. Then nobody wants to know.
        buffer.map_async(mode, range, move |result| drop(sender.send(result)));
        Self(receiver)
    }

    /// Takes the result of a request whose work has been waited for.
    pub(crate) fn finish(self, device: &Device) -> Result<(), Error> {
        let result = match self.0.try_recv() {
            Ok(result) => result,
            // Not granted yet: on some backends callbacks need a poll of their own. Where another thread's poll came first, it is
            // about to call back.
            Err(_) => {
                device.wait()?;
                self.0.recv().unwrap_or(Err(wgpu::BufferAsyncError))
            }
        };
        device.check()?;
        result.map_err(|error| Error::Refused { message: format!("staging memory could not be mapped: {error}") })
    }
}

/// Appends `range` of a mapped buffer to `content`.
pub(crate) fn read_mapped(buffer: &wgpu::Buffer, range: Range<u64>, content: &mut Vec<u8>) -> Result<(), Error> {
    // Mapped ranges start at multiples of 8.
    let start = range.start / 8 * 8;
    let view = buffer
        .get_mapped_range(start..range.end.next_multiple_of(4))
        .map_err(|error| Error::Refused { message: error.to_string() })?;
    content.extend_from_slice(&view[(range.start - start) as usize..(range.end - start) as usize]);
    Ok(())
}
