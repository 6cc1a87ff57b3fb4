//! Hand-tuned kernels: views of their operands become offsets and strides, so that a transposed, permuted or repeated
//! operand costs no copy.

mod attention;
mod dot;
mod pack;
mod rope;
mod rows;

pub(crate) use dot::{Tiled, takes_epilogue};

use viral_shaders::{Kernel, Launch, Target, rows as row_kernels};

use super::affine::{Affine, Place, Trouble};
use super::body::Obstacle;
use super::cluster::{Clusters, Group};
use super::views::through_view;
use super::{Memory, Step};
use crate::ir::{Graph, Value};
use crate::ops::{Class, Op};

/// Lowers the group of a kernel operation. `stored` are the members that others read.
pub(crate) fn lower(
    graph: &Graph,
    clusters: &Clusters,
    group: &Group,
    stored: &[Value],
    memory: &Memory,
    target: &Target,
) -> Result<Step, Obstacle> {
    let value = group.members[0];
    let node = graph.node(value);
    let cx = Context { graph, clusters, memory, value };
    let step = match &node.op {
        Op::Dot(_) => cx.product(group, stored, target),
        Op::DotTiles(op) => cx.product_of_tiles(op, group, stored, target),
        Op::PackF16(_) => cx.pack(node.args[0], target),
        Op::Gather(_) => cx.rows(row_kernels::Op::Gather, node.args[0], node.args[1], target),
        Op::Scatter(op) if op.unique => cx.rows(row_kernels::Op::Scatter, node.args[0], node.args[1], target),
        Op::Scatter(_) => cx.rows(row_kernels::Op::ScatterAdd, node.args[0], node.args[1], target),
        Op::Rope(op) => cx.rope(&node.args, op.inverse, target),
        Op::Attention(op) => cx.attention(stored, op.causal, op.scale.get(), target),
        Op::AttentionLse(op) => cx.attention(stored, op.causal, op.scale.get(), target),
        Op::AttentionGrad(op) => cx.attention_grad(stored, op.causal, op.scale.get(), target),
        other => unreachable!("{other} has no hand-tuned kernel"),
    }?;
    // These kernels read and write through different bindings, which a device allows for different buffers only.
    let overlaps = |&written: &Value| step.reads.iter().any(|&read| memory.share_buffer(read, written));
    match step.writes.iter().find(|written| overlaps(written)) {
        Some(_) if group.members.len() > 1 => Err(Obstacle::NeedsGroup(group.members[group.members.len() - 1])),
        Some(&written) => Err(Obstacle::SetAside(written)),
        None => Ok(step),
    }
}

struct Context<'g> {
    graph: &'g Graph,
    clusters: &'g Clusters,
    memory: &'g Memory,
    value: Value,
}

impl Context<'_> {
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
            birth: value,
            label: self.graph.name(value).unwrap_or("").to_owned(),
            flops,
            traffic,
            product: None,
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
                // Once what is padded lies in memory, every view of it is strided: a convolution has nine.
                Ok((_, Some(_))) => return Err(Obstacle::NeedsMemory(at)),
                Err(Trouble::Split { .. } | Trouble::Opaque) => return Err(Obstacle::NeedsMemory(value)),
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
