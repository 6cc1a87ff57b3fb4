//! Promises to wgpu and the C library that they cannot check. With `host_memory.rs` the crate's only `unsafe`.
#![allow(unsafe_code)]

use crate::device::Checks;

/// Compiles a module with as many of wgpu's run-time checks as `checks` asks for.
pub(crate) fn shader_module(
    device: &wgpu::Device,
    descriptor: wgpu::ShaderModuleDescriptor<'_>,
    checks: Checks,
) -> wgpu::ShaderModule {
    let runtime_checks = match checks {
        Checks::Full => return device.create_shader_module(descriptor),
        Checks::Bounds => wgpu::ShaderRuntimeChecks {
            bounds_checks: true,
            force_loop_bounding: false,
            int_div_checks: false,
            ..wgpu::ShaderRuntimeChecks::checked()
        },
        Checks::Off => wgpu::ShaderRuntimeChecks {
            bounds_checks: false,
            force_loop_bounding: false,
            int_div_checks: false,
            ..wgpu::ShaderRuntimeChecks::checked()
        },
    };
    // SAFETY: every module comes from this project's own kernels, never from the outside. Their loops count up to a bound
    // and their divisors are constants or sizes that the compiler keeps above zero. Without bounds checks it also matters
    // that each index is derived from sizes the plan was compiled for and that every binding holds the bytes its plan
    // declares, which `Executable::new` verifies; kernel tests run the same plans with all checks on.
    unsafe { device.create_shader_module_trusted(descriptor, runtime_checks) }
}

/// Permission to use features that wgpu still calls experimental (cooperative matrices).
pub(crate) fn experimental_features() -> wgpu::ExperimentalFeatures {
    // SAFETY: the token acknowledges that such features may contain bugs of wgpu. They are requested only where the caller
    // asks for them (`DeviceOptions::cooperative_matrix`), and plans use them only if a test of products finds them right
    // (`matrices.rs`).
    unsafe { wgpu::ExperimentalFeatures::enabled() }
}

/// Gives freed memory back to the system, which the C library of Linux keeps otherwise.
pub(crate) fn return_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: may be called at any time, from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Creates a cache of compiled pipelines from what an earlier run stored, or an empty one.
pub(crate) fn pipeline_cache(device: &wgpu::Device, content: Option<&[u8]>) -> wgpu::PipelineCache {
    let descriptor = wgpu::PipelineCacheDescriptor { label: None, data: content, fallback: true };
    // SAFETY: `content` is what `PipelineCache::get_data` returned in an earlier run, which its checksum shows; wgpu compares
    // adapter and driver version with its header and falls back to an empty cache if they differ.
    unsafe { device.create_pipeline_cache(&descriptor) }
}
