//! Scratch memory that several plans share.

use viral_compiler::plan::{BufferRole, Plan};

use crate::{Buffer, Device, Error};

/// Memory for the slots of plans that never run at the same time: one per bucket of sequence lengths, say.
///
/// The largest slots of all plans share one buffer, so do the second largest, and so on, which is the least memory that such
/// sharing can need. [`SlotPool::reserve`] every plan before the first is bound: a buffer is allocated when it is first used,
/// in the size reserved so far, and one that turns out too small is replaced while earlier plans keep the old one.
#[derive(Debug, Default)]
pub struct SlotPool {
    slots: Vec<Slot>,
}

#[derive(Debug, Default)]
struct Slot {
    bytes: u64,
    buffer: Option<Buffer>,
}

impl SlotPool {
    /// An empty pool.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes room for `plan` without allocating anything.
    pub fn reserve(&mut self, plan: &Plan) {
        for (rank, (_, bytes)) in ranked_slots(plan).into_iter().enumerate() {
            if rank == self.slots.len() {
                self.slots.push(Slot::default());
            }
            self.slots[rank].bytes = self.slots[rank].bytes.max(bytes);
        }
    }

    /// Bytes that all plans reserved so far need together.
    pub fn bytes(&self) -> u64 {
        self.slots.iter().map(|slot| slot.bytes).sum()
    }

    /// The buffer of every slot of `plan`, with the slot's index in [`Plan::buffers`].
    pub(crate) fn allocate(&mut self, device: &Device, plan: &Plan) -> Result<Vec<(usize, Buffer)>, Error> {
        self.reserve(plan);
        let mut buffers = Vec::new();
        for (rank, ((index, _), slot)) in ranked_slots(plan).into_iter().zip(&mut self.slots).enumerate() {
            let buffer = match slot.buffer.take().filter(|buffer| buffer.bytes() >= slot.bytes) {
                Some(buffer) => buffer,
                None => device.buffer(&format!("slot {rank}"), slot.bytes)?,
            };
            slot.buffer = Some(buffer.clone());
            buffers.push((index, buffer));
        }
        Ok(buffers)
    }
}

/// Index and size of every slot of `plan`, largest first.
fn ranked_slots(plan: &Plan) -> Vec<(usize, u64)> {
    let slots = plan.buffers.iter().enumerate().filter(|(_, buffer)| buffer.role == BufferRole::Slot);
    let mut slots: Vec<_> = slots.map(|(index, buffer)| (index, buffer.bytes)).collect();
    slots.sort_by_key(|&(index, bytes)| (std::cmp::Reverse(bytes), index));
    slots
}
