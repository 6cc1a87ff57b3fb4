//! Kernels of software devices, translated ahead of their first launch, side by side.
//!
//! Mesa's software device makes machine code of a kernel when it is launched first, on the thread of the queue: one kernel
//! after the other, whatever the number of cores. So other devices of the same adapter launch some of them, over no
//! workgroup at all. The driver keeps machine code in a cache on disk, where the first device finds it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use viral_compiler::plan::{Bind, BufferDecl, BufferId, BufferRole, Command, Dispatch, KernelId, Plan};
use viral_shaders::Kernel;

use super::param_bytes;
use crate::{Device, Error, Executable, SlotPool};

/// Kernels for which a second device is worth opening.
const MANY: usize = 8;
/// Most devices at a time, the first one included.
const MOST: usize = 4;

/// Translates kernels that `device` has pipelines of but has not launched yet. What goes wrong here goes wrong again, and is
/// reported, where a kernel is used.
pub(super) fn translate(device: &Device, kernels: &[&Kernel]) {
    let threads = thread::available_parallelism().map_or(1, |n| n.get()).min(MOST);
    if threads < 2 || kernels.len() < MANY {
        return;
    }
    // The longest first: they take the longest time.
    let mut queue = kernels.to_vec();
    queue.sort_by_key(|kernel| std::cmp::Reverse(kernel.wgsl.len()));
    let next = AtomicUsize::new(0);
    let work = |device: &Device| -> Result<(), Error> {
        while let Some(kernel) = queue.get(next.fetch_add(1, Ordering::Relaxed)) {
            launch(device, kernel)?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|| work(&device.another()?));
        }
        let _ = work(device);
    });
}

/// Launches a kernel over no workgroup, and waits.
fn launch(device: &Device, kernel: &Kernel) -> Result<(), Error> {
    const BYTES: u64 = 64;
    let buffers = 0..kernel.bindings.len() as u32;
    let dispatch = Dispatch {
        kernel: KernelId(0),
        binds: buffers.clone().map(|i| Bind { buffer: BufferId(i), offset: 0, bytes: BYTES }).collect(),
        params_offset: 0,
        groups: [0; 3],
        label: String::new(),
        flops: 0,
        traffic: 0,
    };
    let plan = Plan {
        buffers: buffers.map(|_| BufferDecl { role: BufferRole::Slot, bytes: BYTES }).collect(),
        kernels: vec![kernel.clone()],
        commands: vec![Command::Dispatch(dispatch)],
        params: vec![0; param_bytes(kernel) as usize],
        ..Plan::default()
    };
    Executable::new(device, &plan, &|_| None, &mut SlotPool::new())?.run()?.wait()
}
