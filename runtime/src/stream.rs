//! Step after step: inputs up, replay, results down, without allocating on the device and without waiting for it.

use std::collections::VecDeque;
use std::ops::Range;

use crate::{Buffer, Device, Error, Executable, Submission};

mod reads;
mod uploads;

use reads::Reads;
pub use reads::Ticket;
use uploads::Uploads;

/// How much a [`Stream`] may hold in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamOptions {
    /// Bytes of each of the two staging buffers for inputs. Steps with more input than this work, with a wait in between.
    pub upload_bytes: u64,
    /// Replays that may be queued before [`Stream::run`] waits for the oldest one.
    pub replays_ahead: usize,
}

/// An ordered sequence of writes, replays and reads on a device.
///
/// Everything takes effect in the order of the calls. A step looks like this:
///
/// ```text
/// stream.write(&input, 0, bytes)?;             // into staging memory; copied by the device before the replay
/// stream.run(&executable)?;                    // returns while the device works
/// let next = stream.read_later(&loss, 0..4)?;  // copied by the device after the replay
/// if let Some(ticket) = previous.replace(next) {
///     let loss = stream.take(ticket)?;         // of the step before: it has been there for a while
/// }
/// ```
#[derive(Debug)]
pub struct Stream {
    device: Device,
    /// Copies that are recorded and not submitted.
    pending: Option<wgpu::CommandEncoder>,
    uploads: Uploads,
    reads: Reads,
    in_flight: VecDeque<Submission>,
    replays_ahead: usize,
}

impl Default for StreamOptions {
    fn default() -> Self {
        Self { upload_bytes: 8 << 20, replays_ahead: 2 }
    }
}

impl Stream {
    /// A stream with its staging memory for inputs. Memory for results is allocated when [`Stream::read_later`] first needs it.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::BufferTooLarge`], [`Error::DeviceLost`].
    pub fn new(device: &Device, options: StreamOptions) -> Result<Self, Error> {
        Ok(Self {
            device: device.clone(),
            pending: None,
            uploads: Uploads::new(device, options.upload_bytes)?,
            reads: Reads::default(),
            in_flight: VecDeque::new(),
            replays_ahead: options.replays_ahead,
        })
    }

    /// Copies `content` to `buffer` from byte `offset` on, before everything that follows. Both are multiples of 4.
    ///
    /// # Errors
    /// [`Error::OutOfRange`], [`Error::Unaligned`], [`Error::DeviceLost`].
    pub fn write(&mut self, buffer: &Buffer, offset: u64, content: &[u8]) -> Result<(), Error> {
        buffer.check_words(offset, content.len() as u64)?;
        let mut at = offset;
        let mut rest = content;
        while !rest.is_empty() {
            let encoder = self.pending.get_or_insert_with(|| new_encoder(&self.device));
            let written = self.uploads.stage(&self.device, encoder, buffer, at, rest)?;
            if written == 0 {
                self.flush()?;
            }
            at += written as u64;
            rest = rest.get(written..).unwrap_or_default();
        }
        Ok(())
    }

    /// Replays `executable` once. Returns without waiting, unless too many replays are queued already.
    ///
    /// # Errors
    /// [`Error::DeviceLost`] or the first fault of another kind.
    pub fn run(&mut self, executable: &Executable) -> Result<Submission, Error> {
        self.uploads.close()?;
        let submission = executable.run_after(self.pending.take())?;
        self.submitted(&submission);
        self.in_flight.push_back(submission.clone());
        while self.in_flight.len() > self.replays_ahead.max(1) {
            if let Some(oldest) = self.in_flight.pop_front() {
                oldest.wait()?;
            }
        }
        Ok(submission)
    }

    /// Asks for the bytes of `range` (multiples of 4) as they are after everything so far; [`Stream::take`] gets them.
    ///
    /// The staging memory goes back to the stream when the ticket is taken or dropped.
    ///
    /// # Errors
    /// [`Error::OutOfRange`], [`Error::Unaligned`], [`Error::OutOfMemory`], [`Error::DeviceLost`].
    pub fn read_later(&mut self, buffer: &Buffer, range: Range<u64>) -> Result<Ticket, Error> {
        let bytes = range.end.saturating_sub(range.start);
        buffer.check_words(range.start, bytes)?;
        let encoder = self.pending.get_or_insert_with(|| new_encoder(&self.device));
        self.reads.record(&self.device, encoder, buffer, range.start, bytes)
    }

    /// Submits what is recorded: the device starts to copy what [`Stream::read_later`] asked for. The next [`Stream::run`] or
    /// [`Stream::take`] does so too.
    ///
    /// # Errors
    /// [`Error::DeviceLost`] or the first fault of another kind.
    pub fn flush(&mut self) -> Result<(), Error> {
        if let Some(encoder) = self.pending.take() {
            self.uploads.close()?;
            let submission = self.device.submit(Some(encoder.finish()))?;
            self.submitted(&submission);
        }
        Ok(())
    }

    /// As [`Stream::flush`]; `then` is called once all so far is done, by the next call after that which looks at the device:
    /// every one that submits or waits does.
    ///
    /// # Errors
    /// As [`Stream::flush`].
    pub fn flush_then(&mut self, then: impl FnOnce() + Send + 'static) -> Result<(), Error> {
        self.flush()?;
        self.device.queue().on_submitted_work_done(then);
        // Drivers that work while they take commands in are done by now.
        self.device.poll(wgpu::PollType::Poll)
    }

    /// The bytes that a ticket stands for. Waits until they are there, which is no wait for a ticket of an earlier step.
    ///
    /// # Errors
    /// [`Error::DeviceLost`], or [`Error::Refused`] for a ticket of another stream.
    pub fn take(&mut self, ticket: Ticket) -> Result<Vec<u8>, Error> {
        if self.reads.is_recorded(&ticket) {
            self.flush()?;
        }
        self.reads.take(&self.device, ticket)
    }

    /// As [`Stream::take`], for a single number.
    ///
    /// # Errors
    /// As [`Stream::take`]; [`Error::Refused`] if the ticket stands for fewer than 4 bytes.
    pub fn take_f32(&mut self, ticket: Ticket) -> Result<f32, Error> {
        let content = self.take(ticket)?;
        let first =
            content.first_chunk().ok_or_else(|| Error::Refused { message: "an empty read has no number".into() })?;
        Ok(f32::from_le_bytes(*first))
    }

    /// Submits what is recorded and waits until everything is done.
    ///
    /// # Errors
    /// [`Error::DeviceLost`] or the first fault of another kind.
    pub fn wait(&mut self) -> Result<(), Error> {
        self.flush()?;
        self.in_flight.clear();
        self.device.wait()
    }

    fn submitted(&mut self, submission: &Submission) {
        self.uploads.submitted(submission);
        self.reads.submitted(submission);
    }
}

fn new_encoder(device: &Device) -> wgpu::CommandEncoder {
    device.raw().create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("stream") })
}
