//! Reductions in kernel form: one contiguous block of axes, and enough independent results to fill a device.
//!
//! A sum over `n` elements with few results is cut into `sum(sum(x[chunks, length]))`; the order of additions is fixed by
//! the shapes alone, so results have the same bits on every run.

use crate::ir::{Graph, Node, Value};
use crate::ops::{Op, reduce_max::ReduceMax, sum::Sum};

/// A reduction with at least this many elements per result is cut, if it has few results.
const LONG: usize = 2048;
/// Results that are enough work for a device.
const ENOUGH_RESULTS: usize = 4096;
/// Elements of one piece.
const PIECE: usize = 256;

pub(super) fn rule(graph: &mut Graph, node: &Node) -> Value {
    match &node.op {
        Op::Sum(op) => reduce(graph, node, &op.axes, true),
        Op::ReduceMax(op) => reduce(graph, node, &op.axes, false),
        _ => graph.push(node.op.clone(), &node.args),
    }
}

fn reduce(graph: &mut Graph, node: &Node, axes: &[usize], is_sum: bool) -> Value {
    let mut x = node.args[0];
    let shape = graph.shape(x).to_vec();
    // Axes of extent 1 have nothing to reduce; neighbours reduce together; blocks go from the back.
    let mut blocks: Vec<(usize, usize)> = Vec::new();
    for &axis in axes.iter().filter(|&&axis| shape[axis] != 1) {
        match blocks.last_mut() {
            Some((_, end)) if (*end..axis).all(|between| shape[between] == 1) => *end = axis + 1,
            _ => blocks.push((axis, axis + 1)),
        }
    }
    for (start, end) in blocks.into_iter().rev() {
        x = reduce_block(graph, x, start, end, is_sum);
    }
    graph.reshape(x, &node.ty.shape)
}

/// Reduces axes `start..end`, which keep extent 1.
fn reduce_block(graph: &mut Graph, x: Value, start: usize, end: usize, is_sum: bool) -> Value {
    let shape = graph.shape(x).to_vec();
    let (outer, n, inner): (usize, usize, usize) =
        (shape[..start].iter().product(), shape[start..end].iter().product(), shape[end..].iter().product());
    let mut result_shape = shape.clone();
    result_shape[start..end].fill(1);
    if is_sum && n >= LONG && outer * inner < ENOUGH_RESULTS {
        let pieces = n.div_ceil(PIECE);
        let flat = graph.reshape(x, &[outer, n, inner]);
        let padded = graph.pad(flat, 1, 0, pieces * PIECE - n);
        let cut = graph.reshape(padded, &[outer * pieces, PIECE, inner]);
        let partial = reduce_block(graph, cut, 1, 2, true);
        let partial = graph.reshape(partial, &[outer, pieces, inner]);
        let total = reduce_block(graph, partial, 1, 2, true);
        return graph.reshape(total, &result_shape);
    }
    let op: Op = match is_sum {
        true => Sum { axes: vec![1] }.into(),
        false => ReduceMax { axes: vec![1] }.into(),
    };
    // Kernels see (outer, n) or (outer, n, inner).
    let canonical = if inner == 1 { vec![outer, n] } else { vec![outer, n, inner] };
    let flat = graph.reshape(x, &canonical);
    let reduced = graph.push(op, &[flat]);
    graph.reshape(reduced, &result_shape)
}
