//! Kernels that do one thing as fast as the device can: what others are measured against.

use crate::launch::fold;
use crate::link::{Const, Linker};
use crate::{Access, DeviceClass, Kernel, Launch, Requirements, Target, coop};

/// Floating-point operations of one invocation in one round of [`Probe::Fma`].
const FLOPS_PER_ROUND: u64 = 8 * 6 * 4 * 2;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Probe {
    /// Multiply-adds in registers. Storage binding: out, 16 bytes an invocation.
    Fma,
    /// Products of cooperative matrices in registers, where a target has them. Storage bindings: operands, out.
    Coop,
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
    pub const ALL: [Probe; 3] = [Probe::Fma, Probe::Coop, Probe::Copy];

    /// The kernel's name, which is also the name of its file.
    pub const fn name(self) -> &'static str {
        match self {
            Probe::Fma => "probe_fma",
            Probe::Coop => "probe_coop",
            Probe::Copy => "probe_copy",
        }
    }

    /// The kernel with workgroups of `lanes` invocations; `edge` is that of cooperative matrices.
    pub fn kernel(self, lanes: u32, edge: u32) -> Kernel {
        let (body, bindings, param_words) = match self {
            Probe::Fma => (include_str!("../wgsl/probe_fma.wgsl"), vec![Access::ReadWrite], 3),
            Probe::Coop => (include_str!("../wgsl/probe_coop.wgsl"), vec![Access::ReadWrite; 2], 2),
            Probe::Copy => (include_str!("../wgsl/probe_copy.wgsl"), vec![Access::Read, Access::ReadWrite], 2),
        };
        let linker = Linker::new().constant("LANES", Const::U32(lanes));
        let (linker, requires) = match self {
            Probe::Coop => (coop::tiles(linker, edge), coop::requirements(edge)),
            Probe::Fma | Probe::Copy => (linker, Requirements::default()),
        };
        Kernel {
            name: format!("{}_{lanes}", self.name()),
            wgsl: linker.part(body).link(),
            bindings,
            param_words,
            workgroup: [lanes, 1, 1],
            requires,
        }
    }

    /// What to measure on a target, in every form that may be its fastest; each takes some milliseconds there.
    pub fn measures(self, target: &Target) -> Vec<Measure> {
        match (self, target.cooperative_matrix) {
            (Probe::Coop, None) => Vec::new(),
            (_, edge) => workgroups(target).into_iter().map(|lanes| self.measure(lanes, edge, target)).collect(),
        }
    }

    fn measure(self, lanes: u32, edge: Option<u32>, target: &Target) -> Measure {
        let edge = edge.unwrap_or(EDGE);
        let kernel = self.kernel(lanes, edge);
        match self {
            Probe::Coop => {
                let (groups, rounds) = match target.class {
                    DeviceClass::Cpu => (8, 32),
                    DeviceClass::Gpu => (1 << 12, 1 << 10),
                };
                let launch = Launch { params: vec![rounds, 0], groups: [groups, 1, 1] };
                // As many subgroups as there are at least: a larger one computes no more.
                let subgroups = u64::from(groups * (lanes / target.subgroup.map_or(lanes, |(_, most)| most)).max(1));
                let flops = subgroups * u64::from(rounds) * 16 * u64::from(edge).pow(3);
                Measure { kernel, launch, bytes: 8 * 4 * u64::from(edge * edge), flops, traffic: 0 }
            }
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

/// Edge of cooperative matrices where a target has none.
const EDGE: u32 = 16;

/// Sizes of workgroups worth trying: one vector on software devices, several on hardware.
fn workgroups(target: &Target) -> Vec<u32> {
    match target.class {
        DeviceClass::Cpu => vec![target.fixed_subgroup().unwrap_or(8), 64],
        DeviceClass::Gpu => vec![64, 256],
    }
}

pub(crate) fn variants(probe: Probe, target: &Target) -> Vec<Kernel> {
    workgroups(target).into_iter().map(|lanes| probe.kernel(lanes, EDGE)).collect()
}
