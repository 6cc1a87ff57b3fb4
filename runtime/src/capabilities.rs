//! What an adapter can do, turned into plain data for the compiler.

use viral_shaders::{DeviceClass, Target};

/// A cooperative matrix product that the adapter lists: `(m, k) × (k, n)`, operands and accumulator of the named types.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CooperativeShape {
    /// Rows of the left operand and the accumulator.
    pub m: u32,
    /// Columns of the right operand and the accumulator.
    pub n: u32,
    /// Columns of the left operand.
    pub k: u32,
    /// Element type of both operands.
    pub operands: String,
    /// Element type of the accumulator.
    pub accumulator: String,
}

/// The optional features this crate asks for where the adapter has them.
pub(crate) fn wanted_features() -> wgpu::Features {
    wgpu::Features::SHADER_F16
        | wgpu::Features::SHADER_INT64
        | wgpu::Features::SUBGROUP
        | wgpu::Features::TIMESTAMP_QUERY
        | wgpu::Features::PIPELINE_CACHE
}

/// The target of a device with these features and limits.
pub(crate) fn target(info: &wgpu::AdapterInfo, features: wgpu::Features, limits: &wgpu::Limits) -> Target {
    Target {
        class: match info.device_type {
            wgpu::DeviceType::Cpu => DeviceClass::Cpu,
            wgpu::DeviceType::Other
            | wgpu::DeviceType::IntegratedGpu
            | wgpu::DeviceType::DiscreteGpu
            | wgpu::DeviceType::VirtualGpu => DeviceClass::Gpu,
        },
        subgroup: features
            .contains(wgpu::Features::SUBGROUP)
            .then_some((info.subgroup_min_size, info.subgroup_max_size)),
        f16: features.contains(wgpu::Features::SHADER_F16),
        int64: features.contains(wgpu::Features::SHADER_INT64),
        max_workgroup_invocations: limits.max_compute_invocations_per_workgroup,
        max_workgroups_per_dimension: limits.max_compute_workgroups_per_dimension,
        max_workgroup_bytes: limits.max_compute_workgroup_storage_size,
        max_storage_buffers: limits.max_storage_buffers_per_shader_stage,
        max_binding_bytes: limits.max_storage_buffer_binding_size.min(limits.max_buffer_size),
        max_buffer_bytes: limits.max_buffer_size,
        storage_align: limits.min_storage_buffer_offset_alignment,
        uniform_align: limits.min_uniform_buffer_offset_alignment,
    }
}

/// What the adapter lacks of the baseline that every kernel relies on, if anything.
pub(crate) fn unsuitable(adapter: &wgpu::Adapter, target: &Target) -> Option<String> {
    let flags = adapter.get_downlevel_capabilities().flags;
    if !flags.contains(wgpu::DownlevelFlags::COMPUTE_SHADERS) {
        return Some("it has no compute shaders".to_owned());
    }
    let baseline = Target::baseline();
    let too_small =
        |what: &str, have: u64, need: u64| (have < need).then(|| format!("{what} is {have}, {need} is needed"));
    too_small("storage buffers of a kernel", target.max_storage_buffers.into(), baseline.max_storage_buffers.into())
        .or_else(|| {
            too_small(
                "invocations of a workgroup",
                target.max_workgroup_invocations.into(),
                baseline.max_workgroup_invocations.into(),
            )
        })
        .or_else(|| {
            too_small(
                "bytes of workgroup memory",
                target.max_workgroup_bytes.into(),
                baseline.max_workgroup_bytes.into(),
            )
        })
        .or_else(|| too_small("bytes of a storage binding", target.max_binding_bytes, baseline.max_binding_bytes))
}

/// The cooperative matrix products that the adapter lists.
pub(crate) fn cooperative_shapes(adapter: &wgpu::Adapter) -> Vec<CooperativeShape> {
    let name = |scalar: wgpu::CooperativeScalarType| format!("{scalar:?}").to_lowercase();
    let shape = |p: wgpu::CooperativeMatrixProperties| CooperativeShape {
        m: p.m_size,
        n: p.n_size,
        k: p.k_size,
        operands: name(p.ab_type),
        accumulator: name(p.cr_type),
    };
    adapter.cooperative_matrix_properties().into_iter().map(shape).collect()
}
