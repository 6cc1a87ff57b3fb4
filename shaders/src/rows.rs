//! Kernels that move whole rows of a matrix along a list of row numbers: embedding look-up and its relatives.

use crate::launch::fold;
use crate::link::Linker;
use crate::storage::Storage;
use crate::{Access, Kernel, Launch, Requirements, Target};

/// What is done with the rows. `rows` is the height of the matrix that `index` points into; an index at or beyond it
/// points nowhere (`u32::MAX` marks padding).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// `out[i, :] = table[index[i], :]`, 0 where the index points nowhere. Storage bindings: index, table, out.
    Gather,
    /// `out[index[i], :] = src[i, :]` for indices that are all different; rows that no index names keep their value.
    /// Storage bindings: index, src, out.
    Scatter,
    /// `out[r, :] = sum over i with index[i] == r of src[i, :]`, in the order of `i`; every row is written. Storage
    /// bindings: index, src, out.
    ScatterAdd,
}

/// Sizes of one dispatch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Problem {
    /// Height of the matrix that the indices point into: the table (gather) or the output (scatter).
    pub rows: u32,
    /// Number of indices.
    pub count: u32,
    /// Elements in a row.
    pub width: u32,
    /// The word of the source at which its scales begin, where its storage has any.
    pub scales: u32,
}

impl Op {
    /// Every operation.
    pub const ALL: [Op; 3] = [Op::Gather, Op::Scatter, Op::ScatterAdd];

    /// The kernel's name, which is also the name of its file.
    pub const fn name(self) -> &'static str {
        match self {
            Op::Gather => "gather_rows",
            Op::Scatter => "scatter_rows",
            Op::ScatterAdd => "scatter_add_rows",
        }
    }
}

impl Problem {
    /// Whether the vec4 form of the kernels may be used: the width is a multiple of four.
    pub fn vec4(&self) -> bool {
        self.width.is_multiple_of(4)
    }
}

/// The kernel for `op` on a source of this storage; `vec4` moves four elements at a time and needs [`Problem::vec4`].
pub fn kernel(op: Op, source: Storage, vec4: bool) -> Kernel {
    let body = match op {
        Op::Gather => include_str!("../wgsl/gather_rows.wgsl"),
        Op::Scatter => include_str!("../wgsl/scatter_rows.wgsl"),
        Op::ScatterAdd => include_str!("../wgsl/scatter_add_rows.wgsl"),
    };
    let (cell, suffix) = if vec4 { ("vec4<f32>", "vec4") } else { ("f32", "scalar") };
    let value = match vec4 {
        true => source.four("source", "at", "p.scales"),
        false => source.element("source", false, "at", "p.scales"),
    };
    let load = format!(
        "@group(0) @binding(2) var<storage, read> source: array<{}>;\n\n\
         fn load_source(at: u32) -> Cell {{\n    return {value};\n}}\n",
        source.word(vec4),
    );
    let stored = if source == Storage::F32 { String::new() } else { format!("_{}", source.name()) };
    let linker = Linker::new().alias("Cell", cell).part(include_str!("../lib/rows_params.wgsl")).part(&load);
    Kernel {
        name: format!("{}_{suffix}{stored}", op.name()),
        wgsl: linker.part(Storage::functions(&load)).part(body).link(),
        bindings: vec![Access::Read, Access::Read, Access::ReadWrite],
        param_words: 5,
        workgroup: [64, 1, 1],
        requires: Requirements::default(),
    }
}

/// Parameters and grid of one dispatch of [`kernel`].
pub fn launch(op: Op, vec4: bool, problem: &Problem, target: &Target) -> Launch {
    debug_assert!(!vec4 || problem.vec4(), "width {} is not a multiple of four", problem.width);
    let groups = fold(if op == Op::ScatterAdd { problem.rows } else { problem.count }, target);
    let cells = if vec4 { problem.width / 4 } else { problem.width };
    Launch { params: vec![problem.rows, problem.count, cells, problem.scales, groups[0]], groups }
}

pub(crate) fn variants(op: Op) -> Vec<Kernel> {
    let sources: &[Storage] = if op == Op::Gather { &Storage::WEIGHTS } else { &[Storage::F32] };
    sources.iter().flat_map(|&source| [true, false].map(|vec4| kernel(op, source, vec4))).collect()
}
