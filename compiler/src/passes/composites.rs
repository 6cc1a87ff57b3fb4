//! Expansion of composites.

use super::rebuild;
use crate::ir::Graph;
use crate::ops::Class;

/// Replaces composites by their expansions until none is left, or where `fused` none without a kernel of its own: an
/// expansion may contain composites.
pub(super) fn expand(graph: &Graph, fused: bool) -> Graph {
    let mut graph = graph.clone();
    loop {
        let mut expanded = false;
        graph = rebuild(&graph, |graph, node| {
            let has_kernel = |graph: &Graph| {
                let types: Vec<_> = node.args.iter().map(|&arg| graph.ty(arg)).collect();
                fused && node.op.has_kernel(&types)
            };
            let expansion = match node.op.class() {
                Class::Composite if !has_kernel(graph) => node.op.expand(graph, &node.args),
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
