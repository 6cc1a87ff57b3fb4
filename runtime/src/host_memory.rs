//! Buffers of software devices in pages of 2 MiB.
//!
//! A software device's memory is the process's own. Mesa's takes it from a file in memory, which most systems give in pages of
//! 4 KiB, and wgpu fills it with zeros before the first use. Here such buffers lie in anonymous memory that the device imports
//! (`VK_EXT_external_memory_host`): the system hands it out in large pages where it has them, and zeroed. A step of training
//! then takes 8 % less processor time (`benches/results/products-tried.md`).
//!
//! Memory comes in blocks, which buffers fill from the front. A buffer that ends gives its pages back to the system at once,
//! its place in the block with the block's last buffer: programs keep their buffers for long.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::sync::{Arc, Mutex, PoisonError};

use ash::{ext, vk};
use memmap2::{Advice, MmapMut, UncheckedAdvice};
use wgpu::hal::api::Vulkan;

/// What buffers made here may be used for.
pub(crate) const USAGES: wgpu::BufferUsages =
    wgpu::BufferUsages::STORAGE.union(wgpu::BufferUsages::COPY_SRC).union(wgpu::BufferUsages::COPY_DST);

const EXTENSION: &CStr = ext::external_memory_host::NAME;
const HANDLE: vk::ExternalMemoryHandleTypeFlags = vk::ExternalMemoryHandleTypeFlags::HOST_ALLOCATION_EXT;
/// Bytes of a page that the system hands out at best, and of one that it hands out at least.
const LARGE_PAGE: u64 = 2 << 20;
const PAGE: u64 = 4 << 10;
/// Bytes of a block; a buffer that needs more has its own.
const BLOCK: u64 = 128 << 20;
/// Smaller buffers are wgpu's: they would waste most of a page.
const SMALLEST: u64 = 64 << 10;

/// Where the buffers of one device lie.
pub(crate) struct HostMemory {
    device: ash::Device,
    import: ext::external_memory_host::Device,
    /// Types of memory that host and device see alike, as bits.
    coherent: u32,
    /// The block with room at its end, and where that begins.
    last: Mutex<Option<(Arc<Block>, u64)>>,
}

/// Memory that the device has imported.
struct Block {
    device: ash::Device,
    memory: vk::DeviceMemory,
    pages: MmapMut,
}

/// A new buffer's memory, before anybody uses the buffer.
pub(crate) struct Pages {
    block: Arc<Block>,
    /// Of the buffer in the block, and its size.
    offset: u64,
    bytes: u64,
}

/// Opens `adapter` so that its buffers can lie in imported memory. None where it cannot do that, or not be opened.
pub(crate) fn request_device(
    adapter: &wgpu::Adapter,
    descriptor: &wgpu::DeviceDescriptor<'_>,
) -> Option<(wgpu::Device, wgpu::Queue, HostMemory)> {
    // SAFETY: the guard is used to open a device, and dropped.
    let hal = unsafe { adapter.as_hal::<Vulkan>() }?;
    if !hal.physical_device_capabilities().supports_extension(EXTENSION) {
        return None;
    }
    let (features, limits) = (descriptor.required_features, &descriptor.required_limits);
    let extend: Box<wgpu::hal::vulkan::CreateDeviceCallback<'_>> = Box::new(|to| to.extensions.push(EXTENSION));
    // SAFETY: features and limits are the adapter's own, as for `request_device`; the callback adds an extension that the
    // adapter supports and changes nothing else.
    let opened = unsafe { hal.open_with_callback(features, limits, &descriptor.memory_hints, Some(extend)) }.ok()?;
    let device = opened.device.raw_device().clone();
    let instance = hal.shared_instance().raw_instance();
    let import = ext::external_memory_host::Device::new(instance, &device);
    // SAFETY: the adapter's handle is its instance's.
    let memory = unsafe { instance.get_physical_device_memory_properties(hal.raw_physical_device()) };
    let coherent = memory.memory_types_as_slice().iter().enumerate().filter(|(_, one)| {
        one.property_flags.contains(vk::MemoryPropertyFlags::HOST_VISIBLE | vk::MemoryPropertyFlags::HOST_COHERENT)
    });
    let coherent = coherent.fold(0, |types, (index, _)| types | 1 << index);
    drop(hal);
    // SAFETY: `opened` was just made from this adapter, with the features of `descriptor`.
    let (raw, queue) = unsafe { adapter.create_device_from_hal(opened, descriptor) }.ok()?;
    Some((raw, queue, HostMemory { device, import, coherent, last: Mutex::default() }))
}

impl HostMemory {
    /// A buffer of `bytes` zeros for [`USAGES`] of `owner`, the device that came with this, and what may be written to before it
    /// is used. None where that is not to be had, or not worth it.
    pub(crate) fn buffer(&self, owner: &wgpu::Device, label: &str, bytes: u64) -> Option<(wgpu::Buffer, Pages)> {
        if bytes < SMALLEST {
            return None;
        }
        let mut external = vk::ExternalMemoryBufferCreateInfo::default().handle_types(HANDLE);
        let usage = vk::BufferUsageFlags::STORAGE_BUFFER
            | vk::BufferUsageFlags::TRANSFER_SRC
            | vk::BufferUsageFlags::TRANSFER_DST;
        let info = vk::BufferCreateInfo::default().size(bytes).usage(usage).push_next(&mut external);
        // SAFETY: the device lives, for its owner does; what `info` points to outlives the call.
        let buffer = unsafe { self.device.create_buffer(&info, None) }.ok()?;
        // SAFETY: the buffer was just made by this device.
        let needs = unsafe { self.device.get_buffer_memory_requirements(buffer) };
        let Some((block, offset)) = self.place(buffer, &needs) else {
            // SAFETY: nobody has seen the buffer.
            unsafe { self.device.destroy_buffer(buffer, None) };
            return None;
        };
        let device = self.device.clone();
        let pages = Pages { block: Arc::clone(&block), offset, bytes };
        let release = Box::new(move || {
            // SAFETY: wgpu calls this once nothing uses the buffer any more, and before it destroys the device.
            unsafe { device.destroy_buffer(buffer, None) };
            block.forget(offset, needs.size);
        });
        let descriptor =
            wgpu::BufferDescriptor { label: Some(label), size: bytes, usage: USAGES, mapped_at_creation: false };
        // SAFETY: the buffer stays until `release` is called, which destroys it.
        let hal = unsafe { wgpu::hal::vulkan::Buffer::from_raw_externally_owned(buffer, release) };
        // SAFETY: the buffer is of this device, as large as `descriptor` says and for the same uses, bound to memory that
        // stays as long, and zero: its part of the block was handed out once, as the system gave it.
        Some((unsafe { owner.create_buffer_from_hal::<Vulkan>(hal, &descriptor) }, pages))
    }

    /// Binds a new buffer to memory that it does not share: a block, and the offset in it.
    fn place(&self, buffer: vk::Buffer, needs: &vk::MemoryRequirements) -> Option<(Arc<Block>, u64)> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let room = last.take().filter(|(block, offset)| offset + needs.size <= block.pages.len() as u64);
        let (block, offset) = match room {
            Some(room) => room,
            None => (Arc::new(self.block(needs)?), 0),
        };
        // SAFETY: neither buffer nor memory is in use; the offset is a multiple of a page, which the alignment divides, and
        // the bytes from there on are in the block, whose memory is of a type that the first buffer in it could have. All
        // buffers here are made alike, so that what suits one suits the others.
        unsafe { self.device.bind_buffer_memory(buffer, block.memory, offset) }.ok()?;
        *last = Some((Arc::clone(&block), (offset + needs.size).next_multiple_of(PAGE)));
        Some((block, offset))
    }

    /// Imports memory for a buffer, and for others behind it.
    fn block(&self, needs: &vk::MemoryRequirements) -> Option<Block> {
        let bytes = needs.size.max(BLOCK).next_multiple_of(LARGE_PAGE);
        let pages = MmapMut::map_anon(usize::try_from(bytes).ok()?).ok()?;
        // Where there are no large ones, small pages do.
        let _ = pages.advise(Advice::HugePage);
        let start = pages.as_ptr().cast_mut().cast();
        let mut suits = vk::MemoryHostPointerPropertiesEXT::default();
        let ask = self.import.fp().get_memory_host_pointer_properties_ext;
        // SAFETY: `start` is the start of a mapping, and `suits` what the call fills.
        unsafe { ask(self.device.handle(), HANDLE, start, &mut suits) }.result().ok()?;
        let types = suits.memory_type_bits & needs.memory_type_bits & self.coherent;
        if types == 0 || needs.alignment > PAGE {
            return None;
        }
        let mut import = vk::ImportMemoryHostPointerInfoEXT::default().handle_type(HANDLE).host_pointer(start);
        let info = vk::MemoryAllocateInfo::default()
            .allocation_size(bytes)
            .memory_type_index(types.trailing_zeros())
            .push_next(&mut import);
        // SAFETY: start and size are those of a mapping, multiples of any page, which outlives the memory (`Block::drop`). Its
        // content is only ever touched by the device, and by `Pages` before the device knows of it.
        let memory = unsafe { self.device.allocate_memory(&info, None) }.ok()?;
        Some(Block { device: self.device.clone(), memory, pages })
    }
}

impl Pages {
    /// Copies `content` to byte `at` of the buffer and onwards; what does not fit is left out. The device sees it in all work that
    /// is submitted afterwards.
    pub(crate) fn write(&mut self, at: u64, content: &[u8]) {
        let room = self.bytes.saturating_sub(at).min(content.len() as u64) as usize;
        let start = self.block.pages.as_ptr().cast_mut();
        // SAFETY: the bytes are in the mapping, in a part of it that belongs to one buffer, which `self` is the only way to
        // write to: it is handed out once, with a buffer that nobody uses while it is there. `content` is not in the mapping,
        // which nobody borrows.
        unsafe { std::ptr::copy_nonoverlapping(content.as_ptr(), start.add((self.offset + at) as usize), room) };
    }
}

impl Block {
    /// Gives the pages back to the system that a buffer, now gone, had to itself.
    fn forget(&self, offset: u64, bytes: u64) {
        let pages = bytes.next_multiple_of(PAGE) as usize;
        // SAFETY: buffers begin on pages and share none, so that these held one that is gone; nobody will read them, for no
        // other buffer is placed there. Where the system refuses, they stay until the block goes.
        let _ = unsafe { self.pages.unchecked_advise_range(UncheckedAdvice::DontNeed, offset as usize, pages) };
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: the last buffer in it is gone, which held a handle to this block. The device is there: it outlives its buffers,
        // and `HostMemory`, the only other one with a handle, is dropped before it. The mapping ends after this.
        unsafe { self.device.free_memory(self.memory, None) };
    }
}
