//! Expansion of composites.

use super::rebuild;
use crate::ir::Graph;
use crate::ops::Class;

/// Replaces composites by their expansions until none is left: an expansion may contain composites.
pub(super) fn expand(graph: &Graph) -> Graph {
    let mut graph = graph.clone();
    loop {
        let mut expanded = false;
        graph = rebuild(&graph, |graph, node| {
            let expansion = match node.op.class() {
                Class::Composite => node.op.expand(graph, &node.args),
                _ => None,
            };
            expanded |= expansion.is_some();
            expansion.unwrap_or_else(|| graph.push(node.op.clone(), &node.args))
        });
        if !expanded {
            return graph;
        }
    }
}
