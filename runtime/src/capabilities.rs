//! What an adapter can do, turned into plain data for the compiler.

use viral_shaders::{DeviceClass, Target, Tuning};

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
pub(crate) fn target(
    info: &wgpu::AdapterInfo,
    features: wgpu::Features,
    limits: &wgpu::Limits,
    shapes: &[CooperativeShape],
) -> Target {
    let cooperative_features =
        wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX | wgpu::Features::SHADER_F16 | wgpu::Features::SUBGROUP;
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
        cooperative_matrix: usable_edge(shapes).filter(|_| features.contains(cooperative_features) && is_trusted(info)),
        max_workgroup_invocations: limits.max_compute_invocations_per_workgroup,
        max_workgroups_per_dimension: limits.max_compute_workgroups_per_dimension,
        max_workgroup_bytes: limits.max_compute_workgroup_storage_size,
        max_storage_buffers: limits.max_storage_buffers_per_shader_stage,
        max_binding_bytes: limits.max_storage_buffer_binding_size.min(limits.max_buffer_size),
        max_buffer_bytes: limits.max_buffer_size,
        storage_align: limits.min_storage_buffer_offset_alignment,
        uniform_align: limits.min_uniform_buffer_offset_alignment,
        tuning: Tuning::default(),
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

/// Rows and columns of the largest square product that the kernels can use, among those that an adapter lists.
fn usable_edge(shapes: &[CooperativeShape]) -> Option<u32> {
    let is_square = |shape: &&CooperativeShape| shape.m == shape.n && shape.n == shape.k && matches!(shape.m, 8 | 16);
    let fits = |shape: &&CooperativeShape| shape.operands == "f16" && shape.accumulator == "f32";
    shapes.iter().filter(is_square).filter(fits).map(|shape| shape.m).max()
}

/// Whether an adapter's cooperative matrices are worth a try.
///
/// Mesa's driver for Intel computes wrong products on some chips and emulates them, slowly, on others; AMD's own drivers list
/// them for chips that have none. The drivers are named as they name themselves. The compiler of Mesa's software device has
/// them for vectors of eight lanes, and crashes with wider ones (26.1).
fn is_trusted(info: &wgpu::AdapterInfo) -> bool {
    const WRONG: [&str; 3] = ["Intel open-source Mesa driver", "AMD proprietary driver", "AMD open-source driver"];
    let crashes = info.device_type == wgpu::DeviceType::Cpu && info.subgroup_max_size != 8;
    !crashes && !WRONG.contains(&info.driver.as_str())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_square_of_16_bit_floats_is_used() {
        let shape = |m, n, operands: &str, accumulator: &str| CooperativeShape {
            m,
            n,
            k: m,
            operands: operands.to_owned(),
            accumulator: accumulator.to_owned(),
        };
        let mut shapes = vec![shape(16, 16, "f16", "f16"), shape(8, 8, "f32", "f32"), shape(16, 8, "f16", "f32")];
        assert_eq!(usable_edge(&shapes), None);
        shapes.push(shape(8, 8, "f16", "f32"));
        assert_eq!(usable_edge(&shapes), Some(8));
        shapes.push(shape(16, 16, "f16", "f32"));
        assert_eq!(usable_edge(&shapes), Some(16));
    }

    #[test]
    fn drivers_that_are_known_to_be_wrong_are_left_alone() {
        let info = |device_type, driver: &str, lanes: u32| wgpu::AdapterInfo {
            driver: driver.to_owned(),
            subgroup_max_size: lanes,
            ..wgpu::AdapterInfo::new(device_type, wgpu::Backend::Vulkan)
        };
        let (discrete, cpu) = (wgpu::DeviceType::DiscreteGpu, wgpu::DeviceType::Cpu);
        for (device_type, driver, lanes, trusted) in [
            (discrete, "NVIDIA", 32, true),
            (discrete, "radv", 64, true),
            (discrete, "Intel open-source Mesa driver", 32, false),
            (discrete, "AMD proprietary driver", 64, false),
            (cpu, "llvmpipe", 8, true),
            (cpu, "llvmpipe", 16, false),
        ] {
            assert_eq!(is_trusted(&info(device_type, driver, lanes)), trusted, "{driver} {lanes}");
        }
    }
}
