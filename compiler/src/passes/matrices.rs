//! Large products for cooperative matrices: their operands rounded to 16-bit floats, in whole tiles.
//!
//! ```text
//! a · b = slice(widen(pack(a)) · widen(pack(b)))            of (M, K) and (K, N), the slice where M or N is padded
//! ```
//!
//! What is packed is what lies in memory: of a transposed operand the matrix behind the transposition. So an input of several
//! products, in a linear layer's forward and backward pass, is packed once. A frozen matrix is packed again for every product, because a
//! copy that is kept from the forward to the backward pass would take half of what the frozen matrix itself takes; one that is
//! stored as 16-bit floats in whole tiles is read as it is.

use super::rebuild;
use crate::ir::{Graph, Node, Value};
use crate::ops::pack_f16::PackF16;
use crate::ops::{Class, Op};
use crate::types::DType;

/// Packs the operands of products whose rows, columns and terms are all at least `least`.
pub(super) fn apply(graph: &Graph, edge: usize, least: usize) -> Graph {
    let mut products = 0;
    rebuild(graph, |result, node| match node.op {
        Op::Dot(_) if is_large(result, node, least) => {
            products += 1;
            let [a, b] = [0, 1].map(|i| operand(result, node.args[i], edge, products));
            let mut product = result.dot(a, b);
            let rank = node.ty.rank();
            for axis in [rank - 1, rank - 2] {
                product = result.slice(product, axis, 0, node.ty.shape[axis]);
            }
            product
        }
        _ => result.push(node.op.clone(), &node.args),
    })
}

fn is_large(graph: &Graph, node: &Node, least: usize) -> bool {
    let terms = graph.shape(node.args[0]).last().copied().unwrap_or(0);
    let rank = node.ty.rank();
    terms.min(node.ty.shape[rank - 1]).min(node.ty.shape[rank - 2]) >= least
}

/// An operand of the `product`-th product, packed.
fn operand(graph: &mut Graph, value: Value, edge: usize, product: usize) -> Value {
    if let Op::Permute(permute) = &graph.node(value).op {
        let rank = permute.order.len();
        let turned: Vec<usize> = (0..rank - 2).chain([rank - 1, rank - 2]).collect();
        if permute.order == turned {
            let inner = operand(graph, graph.node(value).args[0], edge, product);
            return graph.transpose(inner);
        }
    }
    if in_tiles(graph, value, edge) {
        return value;
    }
    let source = if is_frozen(graph, value) { graph.tag(value, format!("product {product}")) } else { value };
    let packed = graph.push(PackF16 { edge }, &[source]);
    graph.widen(packed)
}

/// Whether a value is read from 16-bit floats that are whole tiles already.
fn in_tiles(graph: &Graph, value: Value, edge: usize) -> bool {
    let node = graph.node(value);
    let whole = node.ty.shape.iter().rev().take(2).all(|extent| extent.is_multiple_of(edge));
    let Op::Widen(_) = node.op else { return false };
    let stored = graph.node(node.args[0]);
    whole && stored.ty.dtype == DType::F16 && matches!(stored.op.class(), Class::Leaf | Class::Kernel)
}

/// Whether a value is a view of a tensor that stays the same while a plan runs.
fn is_frozen(graph: &Graph, value: Value) -> bool {
    let node = graph.node(value);
    match node.op.class() {
        Class::View => is_frozen(graph, node.args[0]),
        Class::Leaf => !matches!(node.op, Op::Input(_)),
        _ => false,
    }
}
