//! Frozen tensors in storage types.

use std::collections::{BTreeMap, BTreeSet};

use super::rebuild;
use crate::ir::{Graph, Leaf, LeafKind, Value};
use crate::ops::weight::Weight;
use crate::ops::{Class, Op};
use crate::types::DType;

/// The frozen matrices of a graph that products and gathers read, which decode what they load: those that are worth a
/// storage type.
pub fn tables(graph: &Graph) -> impl Iterator<Item = Leaf<'_>> {
    let mut read: BTreeSet<Value> = BTreeSet::new();
    for value in graph.values() {
        let node = graph.node(value);
        if matches!(node.op, Op::Dot(_) | Op::LoraLinear(_) | Op::Gather(_)) {
            read.extend(node.args.iter().map(|&arg| behind_views(graph, arg)));
        }
    }
    let is_table = move |leaf: &Leaf<'_>| leaf.kind == LeafKind::Weight && read.contains(&leaf.value);
    graph.leaves().filter(is_table)
}

fn behind_views(graph: &Graph, mut value: Value) -> Value {
    while graph.node(value).op.class() == Class::View {
        value = graph.node(value).args[0];
    }
    value
}

/// Makes each weight that `types` names one of that storage type, where its shape allows it, and reads it through
/// [`widen`](crate::ops::widen::Widen): nothing else changes, so a graph is built without a thought to how its weights
/// are stored.
pub(super) fn apply(graph: &Graph, types: &BTreeMap<String, DType>) -> Graph {
    rebuild(graph, |result, node| {
        if let Op::Weight(weight) = &node.op
            && let Some(&dtype) = types.get(&weight.name)
            && dtype.is_storage()
            && dtype.can_store(&weight.shape)
        {
            let stored = result.push(Weight { dtype, ..weight.clone() }, &[]);
            return result.widen(stored);
        }
        result.push(node.op.clone(), &node.args)
    })
}
