//! Hand-tuned kernels: views of their operands become offsets and strides, so that a transposed, permuted or repeated
//! operand costs no copy.

use viral_shaders::gemm::{self, Epilogue, Form, Operand, Problem, Spec};
use viral_shaders::{Kernel, Launch, Target, rows};

use super::affine::{Affine, Place, Trouble};
use super::body::Obstacle;
use super::cluster::Clusters;
use super::views::through_view;
use super::{Memory, Step};
use crate::ir::{Graph, Value};
use crate::ops::{Class, Op};

/// Lowers one value of a kernel operation.
pub(crate) fn lower(
    graph: &Graph,
    clusters: &Clusters,
    value: Value,
    memory: &Memory,
    target: &Target,
) -> Result<Step, Obstacle> {
    let node = graph.node(value);
    let cx = Context { graph, clusters, memory, value };
    let step = match &node.op {
        Op::Dot(_) => cx.dot(node.args[0], node.args[1], target),
        Op::Gather(_) => cx.rows(rows::Op::Gather, node.args[0], node.args[1], target),
        Op::Scatter(op) if op.unique => cx.rows(rows::Op::Scatter, node.args[0], node.args[1], target),
        Op::Scatter(_) => cx.rows(rows::Op::ScatterAdd, node.args[0], node.args[1], target),
        other => unreachable!("{other} has no hand-tuned kernel"),
    }?;
    // These kernels read and write through different bindings, which a device allows for different buffers only.
    match step.reads.iter().any(|&read| memory.share_buffer(read, value)) {
        true => Err(Obstacle::SetAside(value)),
        false => Ok(step),
    }
}

struct Context<'g> {
    graph: &'g Graph,
    clusters: &'g Clusters,
    memory: &'g Memory,
    value: Value,
}

impl Context<'_> {
    /// `C = A·B` with strided operands.
    fn dot(&self, a: Value, b: Value, target: &Target) -> Result<Step, Obstacle> {
        let shape = self.graph.shape(self.value);
        let rank = shape.len();
        let (m, n) = (shape[rank - 2], shape[rank - 1]);
        let k = self.graph.shape(a)[rank - 1];
        let (a_root, a_at) = self.strided(a, self.graph.shape(a))?;
        let (b_root, b_at) = self.strided(b, self.graph.shape(b))?;
        let c_at = Affine::row_major(shape, 0..rank);
        let (a_transposed, a_row) = orientation(&a_at, m, k).ok_or(Obstacle::NeedsMemory(a))?;
        let (b_transposed, b_row) = orientation(&b_at, k, n).ok_or(Obstacle::NeedsMemory(b))?;
        let batch = Batch::new(&shape[..rank - 2], [&a_at, &b_at, &c_at]).ok_or(Obstacle::NeedsMemory(b))?;
        let operand = |at: &Affine, row: i64, which: usize| Operand {
            offset: at.offset as u32,
            row_stride: row as u32,
            batch_strides: batch.strides[which],
        };
        let form = match (a_transposed, b_transposed) {
            (false, false) => Form::NN,
            (false, true) => Form::NT,
            (true, false) => Form::TN,
            (true, true) => Form::TT,
        };
        let c = operand(&c_at, n as i64, 2);
        let problem = Problem {
            batch: batch.extents,
            m: m as u32,
            n: n as u32,
            k: k as u32,
            alpha: 1.0,
            a: operand(&a_at, a_row, 0),
            b: operand(&b_at, b_row, 1),
            c,
            d: c,
        };
        let spec = Spec::fit(form, Epilogue::None, &problem);
        let launch = gemm::launch(&spec, &problem, target);
        let flops = 2 * self.graph.ty(self.value).len() as u64 * k as u64;
        Ok(self.step(gemm::kernel(&spec, target), launch, vec![a_root, b_root], false, flops))
    }

    /// A kernel that moves rows of `x` to or from where `index` says.
    fn rows(&self, op: rows::Op, x: Value, index: Value, target: &Target) -> Result<Step, Obstacle> {
        let (x_root, index_root) = (self.dense(x)?, self.dense(index)?);
        let tall = if op == rows::Op::Gather { x } else { self.value };
        let problem = rows::Problem {
            rows: self.graph.shape(tall)[0] as u32,
            count: self.graph.shape(index)[0] as u32,
            width: self.graph.shape(self.value)[1] as u32,
        };
        let vec4 = problem.vec4();
        let launch = rows::launch(op, vec4, &problem, target);
        let needs_zeros = op == rows::Op::Scatter;
        Ok(self.step(rows::kernel(op, vec4), launch, vec![index_root, x_root], needs_zeros, 0))
    }

    fn step(&self, kernel: Kernel, launch: Launch, reads: Vec<Value>, clear: bool, flops: u64) -> Step {
        let value = self.value;
        let mut bindings: Vec<Value> = reads.iter().map(|&read| self.memory.of(read)).collect();
        bindings.push(self.memory.of(value));
        let traffic = reads.iter().chain([&value]).map(|&v| self.graph.ty(v).bytes()).sum();
        Step {
            kernel,
            params: launch.params,
            groups: launch.groups,
            bindings,
            reads,
            writes: vec![value],
            clears: if clear { vec![value] } else { Vec::new() },
            label: self.graph.name(value).unwrap_or("").to_owned(),
            flops,
            traffic,
        }
    }

    /// The value in memory behind a chain of views, and where its elements are for each index of `dims`.
    fn strided(&self, value: Value, dims: &[usize]) -> Result<(Value, Affine), Obstacle> {
        let rank = dims.len();
        let mut place = Place::Coords((0..rank).map(|dim| Affine::dim(rank, dim, 1)).collect());
        let mut at = value;
        while !self.clusters.is_materialised(self.graph, at) {
            if self.graph.node(at).op.class() != Class::View {
                return Err(Obstacle::NeedsMemory(value));
            }
            match through_view(self.graph, at, &place, dims) {
                Ok((inner, None)) => place = inner,
                Ok((_, Some(_))) | Err(Trouble::Split { .. } | Trouble::Opaque) => {
                    return Err(Obstacle::NeedsMemory(value));
                }
            }
            at = self.graph.node(at).args[0];
        }
        Ok((at, place.linear(self.graph.shape(at), rank)))
    }

    /// The value in memory that holds the elements of `value` in its own order.
    fn dense(&self, value: Value) -> Result<Value, Obstacle> {
        let dims = self.graph.shape(value);
        let (root, at) = self.strided(value, dims)?;
        let same =
            self.graph.ty(root).len() == self.graph.ty(value).len() && at == Affine::row_major(dims, 0..dims.len());
        if same { Ok(root) } else { Err(Obstacle::NeedsMemory(value)) }
    }
}

/// Whether a matrix of `(rows, columns)` is stored transposed, and the distance between its stored rows; `None` where
/// neither direction is contiguous.
fn orientation(at: &Affine, rows: usize, columns: usize) -> Option<(bool, i64)> {
    let rank = at.terms.len();
    let (row, column) = (at.terms[rank - 2], at.terms[rank - 1]);
    if column == 1 || columns == 1 {
        Some((false, row))
    } else if row == 1 || rows == 1 {
        Some((true, column))
    } else {
        None
    }
}

/// Leading axes of a product, joined to at most three.
struct Batch {
    extents: [u32; 3],
    /// Of A, B and C.
    strides: [[u32; 3]; 3],
}

impl Batch {
    fn new(extents: &[usize], operands: [&Affine; 3]) -> Option<Self> {
        // (extent, stride of each operand), innermost last.
        let mut joined: Vec<(i64, [i64; 3])> = Vec::new();
        for (axis, &extent) in extents.iter().enumerate().filter(|(_, extent)| **extent != 1) {
            let strides = operands.map(|at| at.terms[axis]);
            let extent = extent as i64;
            match joined.last_mut() {
                Some((outer, outer_strides)) if (0..3).all(|i| outer_strides[i] == strides[i] * extent) => {
                    *outer *= extent;
                    *outer_strides = strides;
                }
                _ => joined.push((extent, strides)),
            }
        }
        if joined.len() > 3 {
            return None;
        }
        while joined.len() < 3 {
            joined.insert(0, (1, [0; 3]));
        }
        let stride = |which: usize| [0, 1, 2].map(|axis: usize| joined[axis].1[which] as u32);
        Some(Self {
            extents: [0, 1, 2].map(|axis: usize| joined[axis].0 as u32),
            strides: [stride(0), stride(1), stride(2)],
        })
    }
}
