//! Plans that measure what a device can do at best: the roof above all other kernels.

use viral_shaders::Target;
use viral_shaders::probe::{Measure, Probe};

use crate::plan::{Bind, BufferDecl, BufferId, BufferRole, Command, Dispatch, KernelId, MemoryReport, Plan};

/// Plans of one launch each; the fastest of them shows the most multiply-adds that kernels in WGSL get out of the device.
pub fn arithmetic(target: &Target) -> Vec<Plan> {
    Probe::Fma.measures(target).into_iter().map(plan).collect()
}

/// As [`arithmetic`], of 16-bit floats on cooperative matrices; none where the device has none.
pub fn matrices(target: &Target) -> Vec<Plan> {
    Probe::Coop.measures(target).into_iter().map(plan).collect()
}

/// Plans of one launch each; the fastest of them shows the most bytes that a copy moves a second, reads and writes together.
pub fn bandwidth(target: &Target) -> Vec<Plan> {
    Probe::Copy.measures(target).into_iter().map(plan).collect()
}

fn plan(measure: Measure) -> Plan {
    let buffers: Vec<BufferDecl> =
        measure.kernel.bindings.iter().map(|_| BufferDecl { role: BufferRole::Slot, bytes: measure.bytes }).collect();
    let whole = |index: usize| Bind { buffer: BufferId(index as u32), offset: 0, bytes: measure.bytes };
    let dispatch = Dispatch {
        kernel: KernelId(0),
        binds: (0..buffers.len()).map(whole).collect(),
        params_offset: 0,
        groups: measure.launch.groups,
        label: measure.kernel.name.clone(),
        flops: measure.flops,
        traffic: measure.traffic,
    };
    let slots = measure.bytes * buffers.len() as u64;
    Plan {
        buffers,
        kernels: vec![measure.kernel],
        commands: vec![Command::Dispatch(dispatch)],
        params: measure.launch.params.iter().flat_map(|word| word.to_le_bytes()).collect(),
        memory: MemoryReport { slots, ..MemoryReport::default() },
        ..Plan::default()
    }
}
