//! Expansion of composites.

use super::rebuild;
use crate::compile::Options;
use crate::ir::{Graph, Node};
use crate::ops::Class;
use crate::tunables;
use crate::types::TensorType;

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
    options.fused && node.op.has_kernel(&types(graph, node), options) && tunables::is_fused(graph, node, options)
}

/// Whether a composite that has a kernel is better off with it: where cooperative matrices would not compute its products.
pub(crate) fn is_fused_by_rule(graph: &Graph, node: &Node, options: &Options) -> bool {
    let has_matrices = options.cooperative.is_some() && options.target.cooperative_matrix.is_some();
    !(has_matrices && could_be_products(graph, node, options))
}

/// Whether a composite that has a kernel could also be products that are large enough, of tensors that fit the device.
pub(crate) fn could_be_products(graph: &Graph, node: &Node, options: &Options) -> bool {
    let types = types(graph, node);
    let limit = options.target.max_binding_bytes.min(MOST_BYTES);
    node.op.has_kernel(&types, options) && node.op.on_matrices(&types).is_some_and(|bytes| bytes <= limit)
}

fn types<'g>(graph: &'g Graph, node: &Node) -> Vec<&'g TensorType> {
    node.args.iter().map(|&arg| graph.ty(arg)).collect()
}
