//! Expansion of composites.

use super::rebuild;
use crate::compile::Options;
use crate::ir::{Graph, Node};
use crate::ops::Class;

/// Bytes of a tensor that an expansion may have which a kernel would not need.
const MOST_BYTES: u64 = 1 << 30;

/// Replaces composites by their expansions until none is left but those with a kernel of their own that is worth having: an
/// expansion may contain composites.
pub(super) fn expand(graph: &Graph, options: &Options) -> Graph {
    let mut graph = graph.clone();
    loop {
        let mut expanded = false;
        graph = rebuild(&graph, |graph, node| {
            let expansion = match node.op.class() {
                Class::Composite if !is_kernel(graph, node, options) => node.op.expand(graph, &node.args),
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

/// Whether a composite is computed by a kernel of its own.
fn is_kernel(graph: &Graph, node: &Node, options: &Options) -> bool {
    let types: Vec<_> = node.args.iter().map(|&arg| graph.ty(arg)).collect();
    let limit = options.target.max_binding_bytes.min(MOST_BYTES);
    let has_matrices = options.cooperative.is_some() && options.target.cooperative_matrix.is_some();
    let is_worth_products = || node.op.on_matrices(&types).is_some_and(|bytes| bytes <= limit);
    options.fused && node.op.has_kernel(&types) && !(has_matrices && is_worth_products())
}
