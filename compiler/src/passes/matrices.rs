//! Large products for cooperative matrices: their operands rounded to 16-bit floats, in whole tiles.
//!
//! ```text
//! a · b = slice(pack(a) · pack(b))            of (M, K) and (K, N), the slice where M or N is padded
//! ```
//!
//! What is packed is what lies in memory: of a transposed operand the matrix behind the transposition. So an input of several
//! products, in a linear layer's forward and backward pass, is packed once. A leaf that is no input is packed again for every
//! product, because copies that live from the forward to the backward pass would be a second, 16-bit model in memory.

use viral_shaders::coop::Problem;

use super::parts::added_up;
use super::rebuild;
use crate::compile::Options;
use crate::ir::{Graph, Node, Value};
use crate::ops::dot_tiles::DotTiles;
use crate::ops::pack_f16::PackF16;
use crate::ops::{Class, Op};
use crate::tunables::{self, Way};

/// Packs the operands of products whose rows, columns and terms are all at least `least`, or that were measured to be faster.
pub(super) fn apply(graph: &Graph, edge: usize, least: usize, options: &Options) -> Graph {
    let mut products = 0;
    rebuild(graph, |result, node| {
        let way = match node.op {
            Op::Dot(_) => tunables::way(result, node, least, options),
            _ => Way::Ordinary,
        };
        if let Way::Matrices { parts } = way {
            products += 1;
            let [(a, a_transposed), (b, b_transposed)] = [0, 1].map(|i| operand(result, node.args[i], edge, products));
            let op = DotTiles { a_transposed, b_transposed, parts: 1 };
            let mut product = product(result, op, parts, a, b);
            let rank = node.ty.rank();
            for axis in [rank - 1, rank - 2] {
                product = result.slice(product, axis, 0, node.ty.shape[axis]);
            }
            return product;
        }
        result.push(node.op.clone(), &node.args)
    })
}

/// Whether rows, columns and terms of a product are all at least `least`.
pub(crate) fn is_large(graph: &Graph, node: &Node, least: usize) -> bool {
    let terms = graph.shape(node.args[0]).last().copied().unwrap_or(0);
    let rank = node.ty.rank();
    terms.min(node.ty.shape[rank - 1]).min(node.ty.shape[rank - 2]) >= least
}

/// The product, as the sum of that many parts; 0 leaves that to the rule.
fn product(graph: &mut Graph, op: DotTiles, parts: u32, a: Value, b: Value) -> Value {
    let leading: usize = graph.shape(a).iter().rev().skip(4).product();
    let ([m, k], [_, n]) = (op.tiles(0, graph.ty(a)), op.tiles(1, graph.ty(b)));
    let by_rule = Problem::new(leading as u32, [m, n, k].map(|tiles| tiles as u32));
    let parts = (if parts == 0 { by_rule } else { by_rule.in_parts(parts) }).parts as usize;
    let is_single = graph.ty(a).rank() == 4;
    if parts == 1 || !is_single {
        return graph.push(op, &[a, b]);
    }
    let products = graph.push(DotTiles { parts, ..op }, &[a, b]);
    let shape = graph.shape(products)[1..].to_vec();
    added_up(graph, products, &shape)
}

/// An operand of the `product`-th product in tiles, and whether they are those of its transpose.
fn operand(graph: &mut Graph, value: Value, edge: usize, product: usize) -> (Value, bool) {
    if let Op::Permute(permute) = &graph.node(value).op {
        let rank = permute.order.len();
        let turned: Vec<usize> = (0..rank - 2).chain([rank - 1, rank - 2]).collect();
        if permute.order == turned {
            let (inner, transposed) = operand(graph, graph.node(value).args[0], edge, product);
            return (inner, !transposed);
        }
    }
    let source = if is_frozen(graph, value) { graph.tag(value, format!("product {product}")) } else { value };
    (graph.push(PackF16 { edge }, &[source]), false)
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
