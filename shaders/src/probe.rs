//! Kernels that do one thing as fast as the device can: what others are measured against.

use crate::launch::fold;
use crate::link::{Const, Linker};
use crate::{Access, DeviceClass, Kernel, Launch, Requirements, Target};

/// Floating-point operations of one invocation in one round of [`Probe::Fma`].
const FLOPS_PER_ROUND: u64 = 8 * 6 * 4 * 2;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Probe {
    /// Multiply-adds in registers. Storage binding: out, 16 bytes an invocation.
    Fma,
    /// A copy. Storage bindings: source, out.
    Copy,
}

/// A kernel, how to launch it, and the work that it then does.
#[derive(Clone, Debug)]
pub struct Measure {
    /// The kernel.
    pub kernel: Kernel,
    /// Parameters and grid.
    pub launch: Launch,
    /// Bytes of each storage binding.
    pub bytes: u64,
    /// Floating-point operations.
    pub flops: u64,
    /// Bytes read and written.
    pub traffic: u64,
}

impl Probe {
    /// Every probe.
    pub const ALL: [Probe; 2] = [Probe::Fma, Probe::Copy];

    /// The kernel's name, which is also the name of its file.
    pub const fn name(self) -> &'static str {
        match self {
            Probe::Fma => "probe_fma",
            Probe::Copy => "probe_copy",
        }
    }

    /// The kernel with workgroups of `lanes` invocations.
    pub fn kernel(self, lanes: u32) -> Kernel {
        let (body, bindings, param_words) = match self {
            Probe::Fma => (include_str!("../wgsl/probe_fma.wgsl"), vec![Access::ReadWrite], 3),
            Probe::Copy => (include_str!("../wgsl/probe_copy.wgsl"), vec![Access::Read, Access::ReadWrite], 2),
        };
        Kernel {
            name: format!("{}_{lanes}", self.name()),
            wgsl: Linker::new().constant("LANES", Const::U32(lanes)).part(body).link(),
            bindings,
            param_words,
            workgroup: [lanes, 1, 1],
            requires: Requirements::default(),
        }
    }

    /// What to measure on a target, in every form that may be its fastest; each takes some milliseconds there.
    pub fn measures(self, target: &Target) -> Vec<Measure> {
        workgroups(target).into_iter().map(|lanes| self.measure(lanes, target)).collect()
    }

    fn measure(self, lanes: u32, target: &Target) -> Measure {
        let kernel = self.kernel(lanes);
        match self {
            Probe::Fma => {
                let (invocations, rounds) = match target.class {
                    DeviceClass::Cpu => (1 << 13, 1 << 8),
                    DeviceClass::Gpu => (1 << 20, 1 << 8),
                };
                let params = vec![rounds, 0.5f32.to_bits(), 0.5f32.to_bits()];
                let launch = Launch { params, groups: [invocations / lanes, 1, 1] };
                let flops = u64::from(invocations) * u64::from(rounds) * FLOPS_PER_ROUND;
                Measure { kernel, launch, bytes: u64::from(invocations) * 16, flops, traffic: 0 }
            }
            Probe::Copy => {
                // Far more than caches hold, within what the baseline may bind.
                let bytes = target.max_binding_bytes.min(128 << 20);
                let count = (bytes / 16) as u32;
                let groups = fold(count / (lanes * 4), target);
                let launch = Launch { params: vec![count, groups[0]], groups };
                Measure { kernel, launch, bytes, flops: 0, traffic: 2 * bytes }
            }
        }
    }
}

/// Sizes of workgroups worth trying: one vector on software devices, several on hardware.
fn workgroups(target: &Target) -> Vec<u32> {
    match target.class {
        DeviceClass::Cpu => vec![target.fixed_subgroup().unwrap_or(8), 64],
        DeviceClass::Gpu => vec![64, 256],
    }
}

pub(crate) fn variants(probe: Probe, target: &Target) -> Vec<Kernel> {
    workgroups(target).into_iter().map(|lanes| probe.kernel(lanes)).collect()
}
