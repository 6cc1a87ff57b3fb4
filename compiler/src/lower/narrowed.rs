//! Which values between kernels are kept in a storage type.

use std::collections::BTreeSet;

use super::cluster::{Clusters, Hints, Kind};
use super::stored_values;
use crate::compile::Options;
use crate::grad::is_gradient;
use crate::ir::{Graph, Value};
use crate::ops::{Class, Op};
use crate::passes::rebuild_with;
use crate::types::DType;

/// Rounds what kernels leave in memory for one another to a storage type, by explicit nodes: `widen(narrow(x))` stands for
/// `x` from there on. Everything else stays `f32`: leaves and outputs, sums within a kernel, what attention reads and
/// writes, vectors and numbers of single rows, and products on cooperative matrices, whose kernel would need another one to
/// round them.
///
/// Gradients are too small for `f16`: they are `bf16` then.
pub(crate) fn narrowed(graph: &Graph, options: &Options) -> Graph {
    let (to, target) = (options.activations, &options.target);
    let clusters = Clusters::new(graph, &Hints::default(), target.max_storage_buffers as usize - 1);
    let needs_f32 = read_as_f32(graph, &clusters);
    let outputs: BTreeSet<Value> = graph.outputs().iter().map(|&(_, value)| value).collect();
    let stored = stored_values(graph, &clusters);
    let generated = clusters.groups.iter().zip(&stored).filter(|(group, _)| group.kind != Kind::Single);
    let chosen: BTreeSet<Value> = generated
        .flat_map(|(_, stored)| stored)
        .copied()
        .filter(|value| {
            let ty = graph.ty(*value);
            let is_matrix = ty.rank() > 1 && ty.shape.last().is_some_and(|columns| columns.is_multiple_of(4));
            let is_exact =
                graph.name(*value).is_some_and(|name| options.exact.iter().any(|part| name.starts_with(part)));
            let is_raw = matches!(graph.node(*value).op, Op::DotTiles(_));
            ty.dtype == DType::F32
                && is_matrix
                && !is_exact
                && !is_raw
                && !outputs.contains(value)
                && !needs_f32.contains(value)
        })
        .collect();
    rebuild_with(graph, |result, value, node| {
        let new = result.push(node.op.clone(), &node.args);
        if !chosen.contains(&value) {
            return new;
        }
        let to = if to == DType::F16 && is_gradient(graph, value) { DType::BF16 } else { to };
        let narrow = result.narrow(new, to);
        result.widen(narrow)
    })
}

/// The values that hand-tuned kernels read which know `f32` alone.
fn read_as_f32(graph: &Graph, clusters: &Clusters) -> BTreeSet<Value> {
    let live = graph.live();
    let mut found = BTreeSet::new();
    for value in graph.values().filter(|value| live[value.index()]) {
        let node = graph.node(value);
        let decodes = matches!(node.op, Op::Dot(_) | Op::Gather(_) | Op::PackF16(_));
        if matches!(node.op.class(), Class::Kernel | Class::Composite) && !decodes {
            found.extend(clusters.roots(graph, value));
        }
    }
    found
}
