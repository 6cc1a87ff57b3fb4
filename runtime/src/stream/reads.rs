//! Staging memory for results: a small pool of buffers, each with one read at a time.

use std::sync::Arc;

use crate::buffer::Allocation;
use crate::transfer::{Mapping, read_mapped};
use crate::{Buffer, Device, Error, Submission};

/// Smallest staging buffer; sizes are powers of two, so that reads of similar size share them.
const SMALLEST: u64 = 256;

/// The right to the result of one read.
#[derive(Debug)]
#[must_use]
pub struct Ticket {
    slot: usize,
    token: Arc<()>,
    bytes: u64,
}

#[derive(Debug, Default)]
pub(super) struct Reads {
    slots: Vec<Slot>,
}

#[derive(Debug)]
struct Slot {
    staging: Allocation,
    /// Shared with the ticket; alone here once that is dropped.
    token: Arc<()>,
    state: State,
}

#[derive(Debug)]
enum State {
    Free,
    /// The copy is recorded and not submitted.
    Recorded,
    /// The copy is submitted, the mapping asked for.
    InFlight(Submission, Mapping),
}

impl Reads {
    /// Records a copy of `bytes` bytes into a free staging buffer, allocating one only if none of the size is free.
    pub(super) fn record(
        &mut self,
        device: &Device,
        encoder: &mut wgpu::CommandEncoder,
        buffer: &Buffer,
        offset: u64,
        bytes: u64,
    ) -> Result<Ticket, Error> {
        let size = bytes.next_power_of_two().max(SMALLEST);
        let free = self.slots.iter_mut().position(|slot| slot.staging.bytes() == size && slot.reclaim());
        let index = match free {
            Some(index) => index,
            None => {
                let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
                let staging = device.allocate("read staging", size, usage, false)?;
                self.slots.push(Slot { staging, token: Arc::new(()), state: State::Free });
                self.slots.len() - 1
            }
        };
        let slot = &mut self.slots[index];
        if bytes > 0 {
            encoder.copy_buffer_to_buffer(buffer.raw(), offset, slot.staging.raw(), 0, bytes);
        }
        slot.state = State::Recorded;
        Ok(Ticket { slot: index, token: Arc::clone(&slot.token), bytes })
    }

    /// Asks for the recorded reads, which are part of `submission`.
    pub(super) fn submitted(&mut self, submission: &Submission) {
        for slot in &mut self.slots {
            if matches!(slot.state, State::Recorded) {
                let whole = 0..slot.staging.bytes();
                let mapping = Mapping::request(slot.staging.raw(), wgpu::MapMode::Read, whole);
                slot.state = State::InFlight(submission.clone(), mapping);
            }
        }
    }

    pub(super) fn is_recorded(&self, ticket: &Ticket) -> bool {
        self.slots.get(ticket.slot).is_some_and(|slot| matches!(slot.state, State::Recorded))
    }

    /// Waits for the result of a read that has been submitted.
    pub(super) fn take(&mut self, device: &Device, ticket: Ticket) -> Result<Vec<u8>, Error> {
        device.check()?;
        let foreign = || Error::Refused { message: "the ticket belongs to another stream".to_owned() };
        let slot = self.slots.get_mut(ticket.slot).filter(|slot| Arc::ptr_eq(&slot.token, &ticket.token));
        let slot = slot.ok_or_else(foreign)?;
        let State::InFlight(submission, mapping) = std::mem::replace(&mut slot.state, State::Free) else {
            return Err(foreign());
        };
        submission.wait()?;
        mapping.finish(device)?;
        let mut content = Vec::with_capacity(ticket.bytes as usize);
        if ticket.bytes > 0 {
            read_mapped(slot.staging.raw(), 0..ticket.bytes, &mut content)?;
        }
        slot.staging.raw().unmap();
        Ok(content)
    }
}

impl Slot {
    /// Makes the slot free if its ticket was dropped; says whether it is free.
    fn reclaim(&mut self) -> bool {
        if matches!(self.state, State::InFlight(..)) && Arc::strong_count(&self.token) == 1 {
            // Takes the mapping back, or the request for it.
            self.staging.raw().unmap();
            self.state = State::Free;
        }
        matches!(self.state, State::Free)
    }
}
