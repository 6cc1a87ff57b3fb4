//! Operands for [`coop`](crate::coop): rounded to 16-bit floats, filled up with zeros to pairs of tiles, and tile after tile, so that
//! one lies in consecutive memory: an H200 multiplies three times as fast then as out of long rows.
//!
//! Rounding is to the nearest, ties to even. Finite numbers beyond ±65504 become that number, so that no product is lost to an
//! infinity that was not there before; infinities and what is not a number stay, so that a guard sees them. Below 2⁻¹⁴
//! precision is lost, and from 2⁻²⁵ on everything.

use crate::launch::fold;
use crate::link::{Const, Linker};
use crate::storage::Storage;
use crate::{Access, Kernel, Launch, Requirements, Target};

/// One matrix, or a batch of them, as it is read. All numbers but the last count elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Problem {
    /// Extents of b0, b1, b2.
    pub batch: [u32; 3],
    /// Rows that are read.
    pub rows: u32,
    /// Columns that are read.
    pub columns: u32,
    /// Rows and columns of a tile: 8 or 16.
    pub edge: u32,
    /// Of the first element from the start of the binding.
    pub offset: u32,
    /// From one row to the next.
    pub row_stride: u32,
    /// From one column to the next.
    pub column_stride: u32,
    /// From one matrix to the next along b0, b1, b2.
    pub batch_strides: [u32; 3],
    /// The word of the binding at which the scales begin, where the storage has any.
    pub scales: u32,
}

impl Problem {
    /// Whether four neighbours can be read at a time: columns follow each other, and all else is a multiple of four.
    pub fn vec4(&self) -> bool {
        let distances = [self.columns, self.offset, self.row_stride].into_iter().chain(self.batch_strides);
        self.column_stride == 1 && distances.into_iter().all(|distance| distance.is_multiple_of(4))
    }
}

/// The kernel for a source of this storage and tiles of `edge` rows and columns. Storage bindings: 1 the source, 2 the result.
pub fn kernel(source: Storage, vec4: bool, edge: u32) -> Kernel {
    let value = if vec4 {
        source.four("x", "at >> 2u", "p.scales")
    } else {
        // Beyond the last column the last element is read once more, and not used.
        let at = |i: u32| format!("at + p.column * min({i}u, p.columns - 1u - column)");
        let element = |i: u32| source.element("x", false, &at(i), "p.scales");
        format!("vec4<f32>({}, {}, {}, {})", element(0), element(1), element(2), element(3))
    };
    let load = format!(
        "@group(0) @binding(1) var<storage, read> x: array<{}>;\n\n\
         fn load_x(at: u32, column: u32) -> vec4<f32> {{\n    return {value};\n}}\n",
        source.word(vec4),
    );
    let linker = Linker::new().constant("EDGE", Const::U32(edge)).alias("F", "vec4<f32>").alias("U", "vec4<u32>");
    let linker = linker.part(&load).part(Storage::functions(&load)).part(crate::ROUND);
    let linker = linker.part(include_str!("../wgsl/pack_f16.wgsl"));
    Kernel {
        name: format!("pack_f16_{edge}_{}_{}", if vec4 { "vec4" } else { "scalar" }, source.name()),
        wgsl: linker.link(),
        bindings: vec![Access::Read, Access::ReadWrite],
        param_words: 15,
        workgroup: [8 * edge, 1, 1],
        requires: Requirements::default(),
    }
}

/// Tiles that an extent fills up: an even number, because [`coop`](crate::coop) takes two steps along its sums at a time.
pub fn tiles(extent: u32, edge: u32) -> u32 {
    extent.div_ceil(2 * edge) * 2
}

/// Parameters and grid of one dispatch of [`kernel`].
pub fn launch(problem: &Problem, target: &Target) -> Launch {
    let [row_tiles, column_tiles] = [problem.rows, problem.columns].map(|extent| tiles(extent, problem.edge));
    let [batch0, batch1, batch2] = problem.batch;
    let blocks = (column_tiles * problem.edge).div_ceil(64);
    let count = [row_tiles, blocks, batch0, batch1, batch2].into_iter().fold(1, u32::saturating_mul);
    let groups = fold(count, target);
    let mut params = vec![problem.rows, problem.columns, row_tiles, column_tiles];
    params.extend([problem.offset, problem.row_stride, problem.column_stride]);
    params.extend(problem.batch_strides);
    params.extend([batch1, batch2, problem.scales, count, groups[0]]);
    Launch { params, groups }
}

pub(crate) fn variants() -> Vec<Kernel> {
    let of = |source| [(true, 8), (true, 16), (false, 8), (false, 16)].map(|(vec4, edge)| kernel(source, vec4, edge));
    Storage::WEIGHTS.into_iter().flat_map(of).collect()
}
