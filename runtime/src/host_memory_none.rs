//! What stands for `host_memory.rs` where there is no such memory: nothing is ever placed in it.

/// What buffers made here would be used for.
pub(crate) const USAGES: wgpu::BufferUsages = wgpu::BufferUsages::empty();

/// Memory that does not exist.
pub(crate) enum HostMemory {}

/// A part of it.
pub(crate) enum Pages {}

/// Leaves it to wgpu.
pub(crate) fn request_device(
    _: &wgpu::Adapter,
    _: &wgpu::DeviceDescriptor<'_>,
) -> Option<(wgpu::Device, wgpu::Queue, HostMemory)> {
    None
}

impl HostMemory {
    /// Cannot be called.
    pub(crate) fn buffer(&self, _: &wgpu::Device, _: &str, _: u64) -> Option<(wgpu::Buffer, Pages)> {
        match *self {}
    }
}

impl Pages {
    /// Cannot be called.
    pub(crate) fn write(&mut self, _: u64, _: &[u8]) {
        match *self {}
    }
}
