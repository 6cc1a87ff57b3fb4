//! The variable half of a dispatch: parameter words and grid.

use crate::link::Linker;
use crate::{Requirements, Target};

/// What one dispatch of a kernel needs beside its buffers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Launch {
    /// The words of the uniform buffer at binding 0; as many as the kernel's [`param_words`](crate::Kernel::param_words).
    pub params: Vec<u32>,
    /// Workgroups along x, y and z; at least one each.
    pub groups: [u32; 3],
}

/// Folds `count` workgroups into a grid no dimension of which is over the target's limit.
///
/// The grid may hold a few workgroups more than `count`. A kernel recovers the flat number as `x + y * groups[0]` and
/// returns if it is not below `count`. With the limit at 65535, as everywhere, all counts below 2^32 - 2^17 fit.
pub(crate) fn fold(count: u32, target: &Target) -> [u32; 3] {
    let limit = target.max_workgroups_per_dimension.max(1);
    let rows = count.max(1).div_ceil(limit);
    [count.max(1).div_ceil(rows), rows, 1]
}

/// The entry point of a kernel for software devices, which calls `tile(id, lane)`.
pub(crate) fn entry(steals: bool) -> &'static str {
    if steals { include_str!("../lib/tiles_stolen.wgsl") } else { include_str!("../lib/tiles_own.wgsl") }
}

/// How such a kernel accesses memory, in cells of four floats: the alias `Cell`, and the functions `unpacked` and `packed`.
pub(crate) fn cells(linker: Linker, wide: bool) -> Linker {
    match wide {
        true => linker.alias("Cell", "vec2<u64>").part(include_str!("../lib/wide.wgsl")),
        false => linker.alias("Cell", "vec4<f32>").part(include_str!("../lib/plain.wgsl")),
    }
}

/// What it needs of the device.
pub(crate) fn requirements(wide: bool, steals: bool) -> Requirements {
    Requirements { int64: wide, subgroups: steals, counters: steals, ..Requirements::default() }
}

/// What the names of such kernels say about it.
pub(crate) fn suffix(steals: bool) -> &'static str {
    if steals { "" } else { "_fixed" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folded_grids_cover_the_count_and_respect_the_limit() {
        let target = Target::baseline();
        for count in [0, 1, 2, 65_535, 65_536, 65_537, 131_071, 10_000_019, 1 << 31] {
            let [x, y, z] = fold(count, &target);
            assert!(x <= 65_535 && y <= 65_535 && z == 1, "{count}");
            assert!(x * y >= count && x * y - count < y.max(2), "{count} -> {x} x {y}");
        }
    }
}
