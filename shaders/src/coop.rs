//! Matrix products on cooperative matrices, the tensor cores of wgpu: `f16` times `f16`, sums in `f32`.
//!
//! ```text
//! C[b, p, m, n] = sum_k A[b, m, k] * B[b, k, n]           k within part p
//! ```
//!
//! Operands are made of whole tiles, each in consecutive memory, as [`pack`](crate::pack) leaves them; C is dense. A long sum
//! over few results is cut into parts, or most of a device would have nothing to do: the caller adds the parts up.
//! There are no hooks, because what a tile's invocations hold of it is not theirs to know.

use crate::gemm::Form;
use crate::launch::fold;
use crate::link::{Const, Linker};
use crate::{Access, Kernel, Launch, Requirements, Target};

/// The compile-time half of a product on cooperative matrices.
///
/// Storage bindings: 1 A, 2 B, 3 C.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Spec {
    /// How A and B lie in memory.
    pub form: Form,
    /// Rows and columns of a tile: 8 or 16.
    pub edge: u32,
    /// Whether what C held before is added to the product.
    pub accumulate: bool,
}

/// The run-time half: extents in tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Problem {
    /// Matrices, one after the other in all operands.
    pub batch: u32,
    /// Rows of C.
    pub m: u32,
    /// Columns of C.
    pub n: u32,
    /// Length of the sums; even.
    pub k: u32,
    /// Parts that the sums are cut into; the last one may be shorter.
    pub parts: u32,
}

/// Workgroups that keep a large device busy.
const MANY: u32 = 256;
/// Tiles along the sums that are worth a part of their own.
const LONG: u32 = 16;

impl Problem {
    /// A product of one part or of as many as it takes to keep a device busy; none is empty. Only a single product is cut.
    pub fn new(batch: u32, [m, n, k]: [u32; 3]) -> Self {
        let whole = Self { batch, m, n, k, parts: 1 };
        let groups = whole.groups();
        if batch != 1 || 2 * groups > MANY {
            return whole;
        }
        whole.in_parts((MANY / groups).min(k / LONG))
    }

    /// The same product with its sums in this many parts, or in fewer where some would be empty.
    pub fn in_parts(self, parts: u32) -> Self {
        let parts = parts.clamp(1, self.k);
        Self { parts: self.k.div_ceil(Self { parts, ..self }.part()), ..self }
    }

    /// Tiles along the sums of all parts but the last; even.
    fn part(&self) -> u32 {
        self.k.div_ceil(2 * self.parts) * 2
    }

    /// Workgroups, each of which computes some tiles of C.
    fn groups(&self) -> u32 {
        let extents = [self.m.div_ceil(ROWS), self.n.div_ceil(COLUMNS), self.parts, self.batch];
        extents.into_iter().fold(1, u32::saturating_mul)
    }
}

/// Tiles of C that a workgroup computes.
const ROWS: u32 = 8;
const COLUMNS: u32 = 8;

/// The kernel for `spec` on `target`. Its text depends on the target's largest subgroup only.
pub fn kernel(spec: &Spec, target: &Target) -> Kernel {
    let Spec { form, edge, accumulate } = *spec;
    let invocations = invocations(target);
    // A load that ends in T takes rows of the tile from consecutive memory, the other one columns.
    let load = |operand: &str, tile: &str, transposed: bool| {
        let load = if transposed { "coopLoad" } else { "coopLoadT" };
        format!("fn load_{operand}(at: u32) -> {tile} {{\n    return {load}<{tile}>(&{operand}[at], EDGE);\n}}\n")
    };
    let wgsl = tiles(Linker::new(), edge)
        .constant("A_TRANSPOSED", Const::Bool(form.a_transposed()))
        .constant("B_TRANSPOSED", Const::Bool(form.b_transposed()))
        .constant("ACCUMULATE", Const::Bool(accumulate))
        .constant("INVOCATIONS", Const::U32(invocations))
        .part(&load("a", "Left", form.a_transposed()))
        .part(&load("b", "Right", form.b_transposed()))
        .part(include_str!("../wgsl/gemm_coop.wgsl"))
        .link();
    let suffix = if accumulate { "_accumulate" } else { "" };
    Kernel {
        name: format!("gemm_coop{edge}_{invocations}_{}{suffix}", form.name()),
        wgsl,
        bindings: vec![Access::Read, Access::Read, Access::ReadWrite],
        param_words: 8,
        workgroup: [invocations, 1, 1],
        requires: requirements(edge),
    }
}

/// Names for tiles of this many rows and columns.
pub(crate) fn tiles(linker: Linker, edge: u32) -> Linker {
    let tile = |scalar: &str, role: &str| format!("coop_mat{edge}x{edge}<{scalar}, {role}>");
    linker
        .enable("f16")
        .enable("wgpu_cooperative_matrix")
        .constant("EDGE", Const::U32(edge))
        .alias("Left", &tile("f16", "A"))
        .alias("Right", &tile("f16", "B"))
        .alias("Sums", &tile("f32", "C"))
}

/// What kernels with such tiles need of a device.
pub(crate) fn requirements(edge: u32) -> Requirements {
    Requirements { subgroups: true, f16: true, cooperative_matrix: Some(edge), ..Requirements::default() }
}

/// Parameters and grid of one dispatch of [`kernel`].
pub fn launch(problem: &Problem, target: &Target) -> Launch {
    let Problem { m, n, k, parts, .. } = *problem;
    let count = problem.groups();
    let groups = fold(count, target);
    let params = vec![m, n, k, problem.part(), parts, n.div_ceil(COLUMNS), count, groups[0]];
    Launch { params, groups }
}

/// A workgroup has four parts to compute, one a subgroup where a workgroup may be that large.
fn invocations(target: &Target) -> u32 {
    let lanes = target.subgroup.map_or(32, |(_, max)| max);
    (4 * lanes).min(target.max_workgroup_invocations).min(256)
}

pub(crate) fn variants(target: &Target) -> Vec<Kernel> {
    let mut kernels = Vec::new();
    for edge in [8, 16] {
        for form in Form::ALL {
            kernels.extend([false, true].map(|accumulate| kernel(&Spec { form, edge, accumulate }, target)));
        }
    }
    kernels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_long_sums_of_few_results_are_cut_and_no_part_is_empty() {
        assert_eq!(Problem::new(1, [64, 256, 256]).parts, 1);
        assert_eq!(Problem::new(32, [8, 8, 256]).parts, 1);
        assert_eq!(Problem::new(1, [64, 8, 256]).parts, 16);
        assert_eq!(Problem::new(1, [8, 8, 30]).parts, 1);
        for k in (2..600).step_by(2) {
            let problem = Problem::new(1, [3, 9, k]);
            let length = problem.part();
            assert!(length.is_multiple_of(2), "{k}: {problem:?}");
            assert!((problem.parts - 1) * length < k && problem.parts * length >= k, "{k}: {problem:?}");
            assert!(problem.parts == 1 || length >= LONG, "{k}: {problem:?}");
        }
    }
}
