//! Kernels of software devices, translated ahead of their first launch, side by side.
//!
//! Mesa's software device makes machine code of a kernel when it is launched first, on the thread of the queue: one kernel
//! after the other, whatever the number of cores. So other devices of the same adapter launch some of them, over no
//! workgroup at all. The driver keeps machine code in a cache on disk, where the first device finds it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use viral_shaders::{Access, Kernel};

use super::{Pipeline, Pipelines, param_bytes};
use crate::{Device, Error};

/// Kernels for which a second device is worth opening.
const MANY: usize = 8;
/// Most devices at a time, the first one included.
const MOST: usize = 4;

/// Translates kernels that `device` has pipelines of but has not launched yet. What goes wrong here goes wrong again, and is
/// reported, where a kernel is used.
pub(super) fn translate(device: &Device, kernels: &[&Kernel], pipelines: &[Arc<Pipeline>]) {
    let threads = thread::available_parallelism().map_or(1, |n| n.get()).min(MOST);
    if threads < 2 || kernels.len() < MANY {
        return;
    }
    // The longest first: they take the longest time.
    let mut queue: Vec<(&Kernel, &Pipeline)> = kernels.iter().copied().zip(pipelines.iter().map(Arc::as_ref)).collect();
    queue.sort_by_key(|(kernel, _)| std::cmp::Reverse(kernel.wgsl.len()));
    let next = AtomicUsize::new(0);
    let take = || queue.get(next.fetch_add(1, Ordering::Relaxed)).copied();
    thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|| -> Result<(), Error> {
                let other = device.another()?;
                while let Some((kernel, _)) = take() {
                    let pipeline = Pipelines::compile(None, &other, kernel)?;
                    launch(&other, kernel, &pipeline)?;
                }
                Ok(())
            });
        }
        while let Some((kernel, pipeline)) = take() {
            if launch(device, kernel, pipeline).is_err() {
                return;
            }
        }
    });
}

/// Launches a kernel over no workgroup, and waits.
fn launch(device: &Device, kernel: &Kernel, pipeline: &Pipeline) -> Result<(), Error> {
    let raw = device.raw();
    let buffer = |size, usage| {
        raw.create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false })
    };
    let params = buffer(param_bytes(kernel).max(16), wgpu::BufferUsages::UNIFORM);
    // What is read and what is written may not be one buffer.
    let [read, written] = [0, 1].map(|_| buffer(64, wgpu::BufferUsages::STORAGE));
    let params = wgpu::BindGroupEntry { binding: 0, resource: params.as_entire_binding() };
    let storage = kernel.bindings.iter().zip(1..).map(|(access, binding)| {
        let buffer = if *access == Access::Read { &read } else { &written };
        wgpu::BindGroupEntry { binding, resource: buffer.as_entire_binding() }
    });
    let params = (kernel.param_words > 0).then_some(params);
    let entries: Vec<_> = params.into_iter().chain(storage).collect();
    let bind_group =
        raw.create_bind_group(&wgpu::BindGroupDescriptor { label: None, layout: &pipeline.layout, entries: &entries });
    let mut encoder = raw.create_command_encoder(&Default::default());
    let mut pass = encoder.begin_compute_pass(&Default::default());
    pass.set_pipeline(&pipeline.raw);
    pass.set_bind_group(0, &bind_group, &[]);
    pass.dispatch_workgroups(0, 0, 0);
    drop(pass);
    device.submit(Some(encoder.finish()))?.wait()
}
