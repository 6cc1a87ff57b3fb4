//! Attention and its gradients: which pieces make which kernel, and how a problem becomes parameter words and a grid.
//!
//! ```text
//! out[b, t, h] = sum_s softmax_s(scale * q[b, t, h] . k[b, s, h / (H/G)]) * v[b, s, h / (H/G)]
//! ```
//!
//! All f32, on rows of E floats. Operands are strided, so that a permuted or sliced projection needs no copy; results are dense,
//! heads behind positions. No kernel stores anything of the size T x S.

use crate::launch::{self, fold};
use crate::link::{Const, Linker};
use crate::{Access, DeviceClass, Kernel, Launch, Requirements, Target};

/// What one launch computes. At least one of its results must be wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// The result, and the log-sum-exp of the scores. Storage bindings: q, k, then v and the result, then the log-sum-exp.
    Forward {
        /// Whether the result is wanted.
        out: bool,
        /// Whether the log-sum-exp is wanted.
        lse: bool,
    },
    /// The gradient of q. Storage bindings: q, k, v, log-sum-exp, delta, dy, dq.
    GradQuery,
    /// The gradients of k and v. Storage bindings: q, k, v, log-sum-exp, delta, dy, then dk, then dv.
    GradKey {
        /// Whether the gradient of k is wanted.
        dk: bool,
        /// Whether the gradient of v is wanted.
        dv: bool,
    },
}

/// DEPTH of `attention_lanes.wgsl`, rows of a block, and what fits workgroup memory more often; multiples of four.
const DEPTHS: [u32; 3] = [48, 40, 32];

/// Widest head that the kernels take, in floats; the width is a multiple of four.
pub const MAX_WIDTH: u32 = 128;

/// A strided operand (B, rows, heads, E). All numbers count floats and are multiples of four.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rows {
    /// Of the first element from the start of the binding.
    pub offset: u32,
    /// From one batch row to the next.
    pub batch: u32,
    /// From one position to the next.
    pub row: u32,
    /// From one head to the next.
    pub head: u32,
}

/// The run-time half of a launch. All sizes are at least 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Problem {
    /// B.
    pub batch: u32,
    /// T.
    pub queries: u32,
    /// S.
    pub keys: u32,
    /// H, heads of q.
    pub heads: u32,
    /// G, heads of k and v; divides H.
    pub groups: u32,
    /// Query t sees keys 0 ..= t + this: S - T under causality, S or more if all see all.
    pub ahead: u32,
    /// Factor on the scores.
    pub scale: f32,
    /// Queries.
    pub q: Rows,
    /// Keys.
    pub k: Rows,
    /// Values; ignored where the result is not wanted.
    pub v: Rows,
    /// Gradient of the result; ignored by the forward kernel.
    pub dy: Rows,
}

/// The tiling of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shape {
    /// Tiles of 64 rows in workgroup memory: GPUs.
    Tile,
    /// Three rows in the registers of each lane of one SIMD vector: software devices.
    Lanes {
        /// Width of the vector, which is the size of the workgroup.
        lanes: u32,
        /// Whether memory is accessed in words of 64 bits.
        wide: bool,
        /// Bytes of workgroup memory that the device has.
        workgroup_bytes: u32,
        /// Whether workgroups steal tiles.
        steals: bool,
    },
}

impl Op {
    /// The operands whose rows are multiplied.
    fn operands(self) -> &'static [&'static str] {
        match self {
            Self::Forward { .. } => &["q", "k", "v"],
            Self::GradQuery | Self::GradKey { .. } => &["q", "k", "v", "dy"],
        }
    }

    /// Results for which there is room, as sums of weighted rows.
    fn sums(self) -> u32 {
        match self {
            Self::Forward { .. } | Self::GradQuery => 1,
            Self::GradKey { dk, dv } => u32::from(dk) + u32::from(dv),
        }
    }
}

impl Rows {
    /// Densely stored rows of `heads` times `width` floats.
    pub fn dense(rows: u32, heads: u32, width: u32) -> Self {
        Self { offset: 0, batch: rows * heads * width, row: heads * width, head: width }
    }

    pub(crate) fn words(&self) -> [u32; 4] {
        [self.offset, self.batch, self.row, self.head].map(|floats| floats / 4)
    }
}

impl Shape {
    /// The shape for `target`.
    pub fn choose(target: &Target) -> Self {
        match target.class {
            DeviceClass::Cpu => Self::lanes(target),
            DeviceClass::Gpu => Self::Tile,
        }
    }

    /// The lanes shape for `target`.
    pub fn lanes(target: &Target) -> Self {
        Self::Lanes {
            lanes: target.lanes(),
            wide: target.int64,
            workgroup_bytes: target.max_workgroup_bytes,
            steals: target.steals(),
        }
    }

    /// Rows that one workgroup computes.
    fn rows(self) -> u32 {
        match self {
            Shape::Tile => 64,
            Shape::Lanes { lanes, .. } => 3 * lanes,
        }
    }
}

/// The kernel for heads of `width` floats on `target`. Its text depends on the class, the size of subgroups, 64-bit
/// integers and workgroup memory only.
pub fn kernel(op: Op, width: u32, target: &Target) -> Kernel {
    link(op, width, Shape::choose(target))
}

/// Parameters and grid of one dispatch of [`kernel`]`(op, .., target)`.
pub fn launch(op: Op, problem: &Problem, target: &Target) -> Launch {
    let (rows, heads) = match op {
        Op::Forward { .. } | Op::GradQuery => (problem.queries, problem.heads),
        Op::GradKey { .. } => (problem.keys, problem.groups),
    };
    let row_tiles = rows.div_ceil(Shape::choose(target).rows());
    let tiles = problem.batch.saturating_mul(heads).saturating_mul(row_tiles);
    let groups = fold(tiles, target);
    let Problem { queries, keys, heads, groups: key_heads, ahead, scale, .. } = *problem;
    let mut params = vec![queries, keys, heads, key_heads, ahead, scale.to_bits()];
    for operand in [problem.q, problem.k, problem.v, problem.dy] {
        params.extend(operand.words());
    }
    params.extend([row_tiles, tiles, groups[0]]);
    Launch { params, groups }
}

/// The kernel for heads of `width` floats in a given shape; [`kernel`] chooses the shape from the target.
pub fn link(op: Op, width: u32, shape: Shape) -> Kernel {
    debug_assert!(width.is_multiple_of(4) && width <= MAX_WIDTH, "heads of {width} floats");
    let Tiling { name, workgroup, body, linker, requires } = match shape {
        Shape::Tile => in_tiles(op),
        Shape::Lanes { lanes, wide, workgroup_bytes, steals } => {
            in_lanes(op, width, lanes, wide, workgroup_bytes, steals)
        }
    };
    let linker = linker.constant("CELLS", Const::U32(width / 4)).part(include_str!("../lib/attention_params.wgsl"));
    let (name, reads, writes, linker) = match op {
        Op::Forward { out, lse } => (
            format!("attention_{name}{}{}", given(out, "_out"), given(lse, "_lse")),
            if out { 3 } else { 2 },
            u32::from(out) + u32::from(lse),
            linker
                .constant("LSE_BINDING", Const::U32(if out { 5 } else { 3 }))
                .part(include_str!("../lib/attention_forward_params.wgsl"))
                .part(either(
                    out,
                    include_str!("../lib/attention_out.wgsl"),
                    include_str!("../lib/attention_out_none.wgsl"),
                ))
                .part(either(
                    lse,
                    include_str!("../lib/attention_lse.wgsl"),
                    include_str!("../lib/attention_lse_none.wgsl"),
                )),
        ),
        Op::GradQuery => {
            (format!("attention_grad_q_{name}"), 6, 1, linker.part(include_str!("../lib/attention_grad_params.wgsl")))
        }
        Op::GradKey { dk, dv } => (
            format!("attention_grad_kv_{name}{}{}", given(dk, "_dk"), given(dv, "_dv")),
            6,
            u32::from(dk) + u32::from(dv),
            linker
                .constant("DK_BINDING", Const::U32(7))
                .constant("DV_BINDING", Const::U32(if dk { 8 } else { 7 }))
                .part(include_str!("../lib/attention_grad_params.wgsl"))
                .part(either(
                    dk,
                    include_str!("../lib/attention_dk.wgsl"),
                    include_str!("../lib/attention_dk_none.wgsl"),
                ))
                .part(either(
                    dv,
                    include_str!("../lib/attention_dv.wgsl"),
                    include_str!("../lib/attention_dv_none.wgsl"),
                )),
        ),
    };
    let mut bindings = vec![Access::Read; reads];
    bindings.extend((0..writes).map(|_| Access::ReadWrite));
    Kernel {
        name: format!("{name}_{width}"),
        wgsl: linker.part(body).link(),
        bindings,
        param_words: PARAMS.len() as u32,
        workgroup: [workgroup, 1, 1],
        requires,
    }
}

/// What a kernel is by its shape: part of its name, its invocations, its body, and what that calls.
struct Tiling {
    name: String,
    workgroup: u32,
    body: &'static str,
    linker: Linker,
    requires: Requirements,
}

/// [`Shape::Tile`].
fn in_tiles(op: Op) -> Tiling {
    Tiling {
        name: "tile".to_owned(),
        workgroup: 256,
        body: match op {
            Op::Forward { .. } => include_str!("../wgsl/attention_tile.wgsl"),
            Op::GradQuery => include_str!("../wgsl/attention_grad_q_tile.wgsl"),
            Op::GradKey { .. } => include_str!("../wgsl/attention_grad_kv_tile.wgsl"),
        },
        linker: Linker::new().alias("Cell", "vec4<f32>").part(include_str!("../lib/attention_tile.wgsl")),
        requires: Requirements::default(),
    }
}

/// [`Shape::Lanes`].
fn in_lanes(op: Op, width: u32, lanes: u32, wide: bool, workgroup_bytes: u32, steals: bool) -> Tiling {
    let fits = |depth: u32| 12 * (depth + op.sums() * width) * lanes <= workgroup_bytes;
    let fitting = DEPTHS.into_iter().find(|&depth| fits(depth));
    let depth = fitting.unwrap_or(DEPTHS[0]);
    let counters = [("$c", width / 4), ("$w", depth / 4)];
    let operand = |name| include_str!("../lib/attention_lanes_operand.wgsl").replace("$x", name);
    let operands = op.operands().iter().map(|name| operand(name)).collect::<String>();
    let scratch = either(
        fitting.is_some(),
        include_str!("../lib/attention_scratch_shared.wgsl"),
        include_str!("../lib/attention_scratch_own.wgsl"),
    );
    let linker = launch::cells(Linker::new(), wide)
        .constant("LANES", Const::U32(lanes))
        .constant("DEPTH", Const::U32(depth))
        .constant("RESULTS", Const::U32(op.sums()))
        .part(either(
            wide,
            include_str!("../lib/attention_words_wide.wgsl"),
            include_str!("../lib/attention_words.wgsl"),
        ))
        .part(scratch)
        .unrolled(include_str!("../lib/attention_lanes.wgsl"), &counters)
        .unrolled(&operands, &counters)
        .part(launch::entry(steals));
    Tiling {
        name: format!(
            "lanes{lanes}{}{}{}",
            launch::suffix(steals),
            given(wide, "_wide"),
            given(fitting.is_none(), "_own")
        ),
        workgroup: lanes,
        body: match op {
            Op::Forward { .. } => include_str!("../wgsl/attention_lanes.wgsl"),
            Op::GradQuery => include_str!("../wgsl/attention_grad_q_lanes.wgsl"),
            Op::GradKey { .. } => include_str!("../wgsl/attention_grad_kv_lanes.wgsl"),
        },
        linker,
        requires: launch::requirements(wide, steals),
    }
}

/// One of two texts.
fn either(first: bool, one: &'static str, other: &'static str) -> &'static str {
    if first { one } else { other }
}

/// A text, or none.
fn given(wanted: bool, text: &'static str) -> &'static str {
    either(wanted, text, "")
}

/// Fields of `Params` in `attention_params.wgsl`, in the order in which [`launch`] writes them.
pub(crate) const PARAMS: [&str; 25] = [
    "queries",
    "keys",
    "heads",
    "groups",
    "ahead",
    "scale", //
    "q_offset",
    "q_batch",
    "q_row",
    "q_head", //
    "k_offset",
    "k_batch",
    "k_row",
    "k_head", //
    "v_offset",
    "v_batch",
    "v_row",
    "v_head", //
    "dy_offset",
    "dy_batch",
    "dy_row",
    "dy_head", //
    "row_tiles",
    "tiles",
    "grid_x",
];

/// Widths that the kernels are tested with: the narrowest, those of common models, and an odd one.
const WIDTHS: [u32; 5] = [4, 64, 68, 80, 128];

pub(crate) fn forward_variants(shape: Shape) -> Vec<Kernel> {
    let wanted = [(true, false), (true, true), (false, true)];
    let ops = wanted.map(|(out, lse)| Op::Forward { out, lse });
    WIDTHS.iter().flat_map(|&width| ops.map(|op| link(op, width, shape))).collect()
}

pub(crate) fn grad_q_variants(shape: Shape) -> Vec<Kernel> {
    WIDTHS.map(|width| link(Op::GradQuery, width, shape)).to_vec()
}

pub(crate) fn grad_kv_variants(shape: Shape) -> Vec<Kernel> {
    let wanted = [(true, false), (true, true), (false, true)];
    let ops = wanted.map(|(dk, dv)| Op::GradKey { dk, dv });
    WIDTHS.iter().flat_map(|&width| ops.map(|op| link(op, width, shape))).collect()
}
