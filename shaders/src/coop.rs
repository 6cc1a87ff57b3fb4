//! Matrix products on cooperative matrices, the tensor cores of wgpu: `f16` times `f16`, sums in `f32`.
//!
//! The formula and the parameter words are those of [`gemm`](crate::gemm), but for its factor, which is 1. Operands are whole tiles: extents that are not
//! multiples of the device's tile are filled up with zeros by [`pack`](crate::pack), which also rounds what is no `f16` yet.
//! There are no hooks, because what a tile's invocations hold of it is not theirs to know.

use crate::gemm::{self, Form, Operand, Problem};
use crate::link::{Const, Linker};
use crate::storage::Storage;
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

impl Spec {
    /// The spec for a product that the target can compute on cooperative matrices; `None` for one that it cannot: the
    /// operands are no 16-bit floats, something follows the product, or it is not made of whole, aligned tiles.
    pub fn fit(spec: &gemm::Spec, problem: &Problem, target: &Target) -> Option<Self> {
        let edge = target.cooperative_matrix.filter(|_| target.f16 && target.subgroup.is_some())?;
        let aligned = |operand: &Operand, unit: u32| {
            let distances = [operand.offset, operand.row_stride].into_iter().chain(operand.batch_strides);
            distances.into_iter().all(|distance| distance.is_multiple_of(unit))
        };
        let fits = spec.storage == [Storage::F16; 2]
            && spec.hook.is_none()
            && problem.alpha == 1.0
            && [problem.m, problem.n, problem.k].iter().all(|extent| extent.is_multiple_of(edge))
            && aligned(&problem.a, 8)
            && aligned(&problem.b, 8)
            && aligned(&problem.c, 4);
        fits.then_some(Self { form: spec.form, edge, accumulate: spec.accumulate })
    }
}

/// The kernel for `spec` on `target`. Its text depends on the target's largest subgroup only.
pub fn kernel(spec: &Spec, target: &Target) -> Kernel {
    let Spec { form, edge, accumulate } = *spec;
    let invocations = invocations(target);
    let tile = |scalar: &str, role: &str| format!("coop_mat{edge}x{edge}<{scalar}, {role}>");
    // A load that ends in T takes rows of the tile from consecutive memory, the other one columns.
    let load = |operand: &str, tile: &str, transposed: bool| {
        let load = if transposed { "coopLoad" } else { "coopLoadT" };
        format!(
            "fn load_{operand}(at: u32) -> {tile} {{\n    \
             return {load}<{tile}>(&{operand}[at], p.{operand}_row);\n}}\n"
        )
    };
    let wgsl = Linker::new()
        .enable("f16")
        .enable("wgpu_cooperative_matrix")
        .constant("A_TRANSPOSED", Const::Bool(form.a_transposed()))
        .constant("B_TRANSPOSED", Const::Bool(form.b_transposed()))
        .constant("C_TRANSPOSED", Const::Bool(false))
        .constant("ACCUMULATE", Const::Bool(accumulate))
        .constant("CELL", Const::U32(1))
        .constant("EDGE", Const::U32(edge))
        .constant("INVOCATIONS", Const::U32(invocations))
        .alias("Left", &tile("f16", "A"))
        .alias("Right", &tile("f16", "B"))
        .alias("Sums", &tile("f32", "C"))
        .part(&gemm::params_struct(0))
        .part(include_str!("../lib/gemm_params.wgsl"))
        .part(&load("a", "Left", form.a_transposed()))
        .part(&load("b", "Right", form.b_transposed()))
        .part(include_str!("../wgsl/gemm_coop.wgsl"))
        .link();
    let suffix = if accumulate { "_accumulate" } else { "" };
    Kernel {
        name: format!("gemm_coop{edge}_{invocations}_{}{suffix}", form.name()),
        wgsl,
        bindings: vec![Access::Read, Access::Read, Access::ReadWrite],
        param_words: gemm::PARAMS.len() as u32,
        workgroup: [invocations, 1, 1],
        requires: Requirements {
            subgroups: true,
            f16: true,
            cooperative_matrix: Some(edge),
            ..Requirements::default()
        },
    }
}

/// Parameters and grid of one dispatch of [`kernel`]`(spec, target)`.
pub fn launch(spec: &Spec, problem: &Problem, target: &Target) -> Launch {
    gemm::launch_tiles(problem, 1, [8 * spec.edge, 4 * spec.edge], target)
}

/// A workgroup has four parts to compute, one a subgroup where a workgroup may be that large.
fn invocations(target: &Target) -> u32 {
    let lanes = target.subgroup.map_or(32, |(_, max)| max);
    (PARTS * lanes).min(target.max_workgroup_invocations).min(256)
}

/// Parts of a workgroup's block that a subgroup computes at a time.
const PARTS: u32 = 4;

pub(crate) fn variants(target: &Target) -> Vec<Kernel> {
    let mut kernels = Vec::new();
    for edge in [8, 16] {
        for form in Form::ALL {
            kernels.extend([false, true].map(|accumulate| kernel(&Spec { form, edge, accumulate }, target)));
        }
    }
    kernels
}
