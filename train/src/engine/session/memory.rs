//! The device memory of a session: flat state, inputs and results, frozen tensors.

use std::collections::{BTreeMap, HashMap};

use viral_compiler::plan::{BufferRole, MemoryReport, Plan, Port};
use viral_runtime::{Buffer, Device, Filling, READ_STAGING_BYTES, SlotPool, StreamOptions};

use crate::engine::init::Contents;
use crate::engine::layout::{Flat, Layout};
use crate::engine::stored::upload;
use crate::error::Result;
use crate::parallel;

/// Allocates the flat buffers and gives trained tensors their first values.
pub(super) fn allocate_state(
    contents: &dyn Contents,
    device: &Device,
    layout: &Layout,
    buffers: &mut HashMap<String, Buffer>,
) -> Result<()> {
    for index in 0..layout.groups.len() {
        for &flat in Flat::all(layout.moments) {
            let name = flat.buffer(index);
            let mut buffer = device.filling(&name, layout.bytes(flat, index))?;
            for entry in layout.entries.iter().filter(|entry| flat == Flat::Param && entry.group == index) {
                let values = contents.value(&entry.name, &entry.ty)?;
                buffer.write(entry.offset, bytemuck::cast_slice(&values))?;
            }
            buffers.insert(name, buffer.finish());
        }
    }
    Ok(())
}

/// Allocates inputs and outputs of all plans, and the frozen tensors, which are uploaded on all cores.
pub(super) fn allocate_ports<'p>(
    contents: &dyn Contents,
    device: &Device,
    plans: impl Iterator<Item = &'p Plan>,
    buffers: &mut HashMap<String, Buffer>,
) -> Result<()> {
    let mut frozen: BTreeMap<String, (Filling<'_>, &Port)> = BTreeMap::new();
    for plan in plans {
        for port in plan.inputs.iter().chain(&plan.outputs) {
            let name = buffer_name(plan, port);
            let bytes = port.bind.bytes.next_multiple_of(16);
            // Plans of different shapes share an input's buffer, which has the size of the largest.
            if buffers.get(&name).is_none_or(|known| known.bytes() < bytes) {
                buffers.insert(name.clone(), device.buffer(&name, bytes)?);
            }
        }
        for port in &plan.state {
            let name = buffer_name(plan, port);
            if !buffers.contains_key(&name) && !frozen.contains_key(&name) {
                let buffer = device.filling(&name, port.ty.bytes())?;
                frozen.insert(name, (buffer, port));
            }
        }
    }
    buffers.extend(parallel::map(frozen, |(name, (mut buffer, port))| {
        upload(contents, &mut buffer, &port.name, &port.ty)?;
        Ok((name, buffer.finish()))
    })?);
    Ok(())
}

/// Memory of all plans together: what they share counts once.
pub(crate) fn total_memory<'p>(plans: impl Iterator<Item = &'p Plan>, layout: &Layout) -> MemoryReport {
    let mut slots = SlotPool::new();
    let mut external: BTreeMap<String, (u64, bool)> = BTreeMap::new();
    let mut total = MemoryReport::default();
    for plan in plans {
        slots.reserve(plan);
        total.transfers += plan.memory.transfers;
        total.lower_bound = total.lower_bound.max(plan.memory.lower_bound);
        let ports = plan.inputs.iter().chain(&plan.outputs).map(|port| (port, false));
        for (port, is_weight) in ports.chain(plan.state.iter().map(|port| (port, true))) {
            let known = external.entry(buffer_name(plan, port)).or_insert((0, is_weight));
            known.0 = known.0.max(port.bind.offset + port.bind.bytes);
        }
    }
    for index in 0..layout.groups.len() {
        for flat in Flat::all(layout.moments) {
            external.remove(&flat.buffer(index));
        }
    }
    // Two windows; what comes back are some losses.
    total.transfers += 2 * StreamOptions::default().upload_bytes + READ_STAGING_BYTES;
    total.state = layout.total_bytes();
    total.slots = slots.bytes();
    total.weights = external.values().filter(|(_, is_weight)| *is_weight).map(|(bytes, _)| bytes).sum();
    total.ports = external.values().filter(|(_, is_weight)| !*is_weight).map(|(bytes, _)| bytes).sum();
    total
}

/// Name of the external buffer that a port lies in.
fn buffer_name(plan: &Plan, port: &Port) -> String {
    match &plan.buffers[port.bind.buffer.0 as usize].role {
        BufferRole::External(name) => name.clone(),
        BufferRole::Slot => port.name.clone(),
    }
}
