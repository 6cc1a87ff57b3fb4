//! What a device can do, as plain data: the only thing kernel selection and code generation may depend on.

use crate::Tuning;

/// Broad shape of the hardware; it decides which tiling a kernel uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeviceClass {
    /// A software device (lavapipe, SwiftShader): few cores, wide SIMD, no cheap workgroup memory.
    Cpu,
    /// Anything with hardware threads and on-chip workgroup memory.
    Gpu,
}

/// Limits and features of the device a graph is compiled for.
///
/// [`Target::baseline`] is what every WebGPU implementation must offer; a plan compiled for it runs everywhere.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// Broad shape of the hardware.
    pub class: DeviceClass,
    /// Smallest and largest subgroup size, where the device has subgroup operations.
    pub subgroup: Option<(u32, u32)>,
    /// `enable f16` is available.
    pub f16: bool,
    /// 64-bit integers (`u64`) are available.
    pub int64: bool,
    /// Rows and columns of the cooperative matrices that multiply 16-bit floats and add up 32-bit ones, where there are any.
    pub cooperative_matrix: Option<u32>,
    /// Invocations of one workgroup.
    pub max_workgroup_invocations: u32,
    /// Workgroups along one dimension of a dispatch.
    pub max_workgroups_per_dimension: u32,
    /// Bytes of workgroup memory.
    pub max_workgroup_bytes: u32,
    /// Storage buffers that one kernel may bind.
    pub max_storage_buffers: u32,
    /// Bytes of one storage binding.
    pub max_binding_bytes: u64,
    /// Bytes of one buffer.
    pub max_buffer_bytes: u64,
    /// Alignment of storage-buffer binding offsets, in bytes.
    pub storage_align: u32,
    /// Alignment of uniform-buffer binding offsets, in bytes.
    pub uniform_align: u32,
    /// What was measured to be faster on it than what rules choose; empty unless somebody asked for a measurement.
    pub tuning: Tuning,
}

impl Target {
    /// The default limits of WebGPU: what a kernel may always rely on.
    pub fn baseline() -> Self {
        Self {
            class: DeviceClass::Gpu,
            subgroup: None,
            f16: false,
            int64: false,
            cooperative_matrix: None,
            max_workgroup_invocations: 256,
            max_workgroups_per_dimension: 65_535,
            max_workgroup_bytes: 16 * 1024,
            max_storage_buffers: 8,
            max_binding_bytes: 128 << 20,
            max_buffer_bytes: 256 << 20,
            storage_align: 256,
            uniform_align: 256,
            tuning: Tuning::default(),
        }
    }

    /// Invocations of one workgroup of a kernel for software devices: as many as SIMD vectors have lanes, or 8 where that is
    /// not known.
    pub(crate) fn lanes(&self) -> u32 {
        self.fixed_subgroup().unwrap_or(8).clamp(4, 64)
    }

    /// Whether workgroups of [`Target::lanes`] invocations are one subgroup of a software device, and can steal tiles.
    pub(crate) fn steals(&self) -> bool {
        self.class == DeviceClass::Cpu && self.fixed_subgroup() == Some(self.lanes())
    }

    /// The subgroup size, where it is one fixed number.
    pub fn fixed_subgroup(&self) -> Option<u32> {
        self.subgroup.and_then(|(min, max)| (min == max).then_some(min))
    }
}
