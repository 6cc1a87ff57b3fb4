//! Expansion of composites.

use crate::ir::{Graph, Node, Value};
use crate::ops::Class;

/// A composite becomes its expansion; expansions may contain composites and are expanded in turn.
pub(super) fn rule(graph: &mut Graph, node: &Node) -> Value {
    if node.op.class() != Class::Composite {
        return graph.push(node.op.clone(), &node.args);
    }
    match node.op.expand(graph, &node.args) {
        Some(value) => value,
        None => graph.push(node.op.clone(), &node.args),
    }
}
