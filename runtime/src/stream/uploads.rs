//! Staging memory for inputs: two windows, one being filled while the device copies from the other.

use crate::buffer::Allocation;
use crate::transfer::Mapping;
use crate::{Buffer, Device, Error, Submission};

/// Mapped ranges begin at multiples of this.
const MAP_ALIGN: usize = 8;

#[derive(Debug)]
pub(super) struct Uploads {
    windows: [Window; 2],
    current: usize,
}

#[derive(Debug)]
struct Window {
    staging: Allocation,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Mapped, with this many bytes filled.
    Open(usize),
    /// Unmapped, part of a submission to come.
    Closed,
    /// Submitted; the host gets it back when the device is done with it.
    InFlight(Submission, Mapping),
}

impl Uploads {
    pub(super) fn new(device: &Device, bytes: u64) -> Result<Self, Error> {
        let window = || {
            let usage = wgpu::BufferUsages::MAP_WRITE | wgpu::BufferUsages::COPY_SRC;
            let staging = device.allocate("upload staging", bytes, usage, true)?;
            Ok::<_, Error>(Window { staging, state: State::Open(0) })
        };
        Ok(Self { windows: [window()?, window()?], current: 0 })
    }

    /// Puts as much of `content` as fits into the current window, records the copy to `buffer`, and returns the number of
    /// bytes: 0 if the window is full and must be submitted first.
    pub(super) fn stage(
        &mut self,
        device: &Device,
        encoder: &mut wgpu::CommandEncoder,
        buffer: &Buffer,
        offset: u64,
        content: &[u8],
    ) -> Result<usize, Error> {
        let window = &mut self.windows[self.current];
        let filled = window.open(device)?;
        let room = window.staging.bytes() as usize - filled;
        let Some(part) = content.get(..content.len().min(room)).filter(|part| !part.is_empty()) else { return Ok(0) };
        let range = filled as u64..(filled + part.len()) as u64;
        let staging = window.staging.raw();
        staging
            .get_mapped_range_mut(range)
            .map_err(|error| Error::Refused { message: error.to_string() })?
            .copy_from_slice(part);
        encoder.copy_buffer_to_buffer(staging, filled as u64, buffer.raw(), offset, part.len() as u64);
        // Never beyond the window: its size is a multiple of 16.
        window.state = State::Open((filled + part.len()).next_multiple_of(MAP_ALIGN));
        Ok(part.len())
    }

    /// Ends the filling of the current window, if it holds anything: what is recorded is about to be submitted.
    pub(super) fn close(&mut self) -> Result<(), Error> {
        let window = &mut self.windows[self.current];
        if matches!(window.state, State::Open(filled) if filled > 0) {
            window.staging.raw().unmap();
            window.state = State::Closed;
            self.current = 1 - self.current;
        }
        Ok(())
    }

    /// Asks for closed windows back once `submission` is done.
    pub(super) fn submitted(&mut self, submission: &Submission) {
        for window in &mut self.windows {
            if matches!(window.state, State::Closed) {
                let whole = 0..window.staging.bytes();
                let mapping = Mapping::request(window.staging.raw(), wgpu::MapMode::Write, whole);
                window.state = State::InFlight(submission.clone(), mapping);
            }
        }
    }
}

impl Window {
    /// Waits until the host may write, and returns the number of bytes filled.
    fn open(&mut self, device: &Device) -> Result<usize, Error> {
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Open(filled) => {
                self.state = State::Open(filled);
                Ok(filled)
            }
            State::InFlight(submission, mapping) => {
                submission.wait()?;
                mapping.finish(device)?;
                self.state = State::Open(0);
                Ok(0)
            }
            // Only after a failed submission, and then the device is lost.
            State::Closed => Err(device.check().err().unwrap_or_else(|| Error::Refused {
                message: "staging memory is held by a submission that failed".to_owned(),
            })),
        }
    }
}
