//! Directional local rules, one line of algebra each. None assumes that values are finite.

use super::remat::RECOMPUTE;
use crate::ir::{Graph, Node, Value};
use crate::ops::Op;
use crate::types::DType;

/// The simplest value that equals the node.
pub(super) fn rule(graph: &mut Graph, node: &Node) -> Value {
    simpler(graph, node).unwrap_or_else(|| graph.push(node.op.clone(), &node.args))
}

fn simpler(graph: &mut Graph, node: &Node) -> Option<Value> {
    let arg = |i: usize| node.args[i];
    let inner = |graph: &Graph, i: usize| graph.node(node.args[i]).clone();
    match &node.op {
        // stop_gradient(x) = x,  tag(x) = x: autodiff is done. A second computation stays apart from the first.
        Op::Tag(tag) if tag.label == RECOMPUTE => None,
        Op::StopGradient(_) | Op::Tag(_) => Some(arg(0)),
        // x + 0 = x,  0 + x = x
        Op::Add(_) if is_constant(graph, arg(1), 0.0) => Some(arg(0)),
        Op::Add(_) if is_constant(graph, arg(0), 0.0) => Some(arg(1)),
        // x + (-y) = x - y
        Op::Add(_) => match inner(graph, 1) {
            Node { op: Op::Neg(_), args, .. } => Some(graph.sub(arg(0), args[0])),
            _ => None,
        },
        // x - 0 = x
        Op::Sub(_) if is_constant(graph, arg(1), 0.0) => Some(arg(0)),
        // x · 1 = x,  1 · x = x
        Op::Mul(_) if is_constant(graph, arg(1), 1.0) => Some(arg(0)),
        Op::Mul(_) if is_constant(graph, arg(0), 1.0) => Some(arg(1)),
        // (x · a) · b = x · (a·b) for numbers a, b
        Op::Mul(_) => {
            let outer = constant(graph, arg(1))?;
            let Node { op: Op::Mul(_), args, .. } = inner(graph, 0) else { return None };
            let product = constant(graph, args[1])? * outer;
            // A product that f32 cannot hold would overflow or vanish for every x.
            let exact = node.ty.dtype == DType::F32 && ((product as f32).is_normal() || product == 0.0);
            exact.then(|| graph.scale(args[0], product))
        }
        // x / 1 = x
        Op::Div(_) if is_constant(graph, arg(1), 1.0) => Some(arg(0)),
        // -(-x) = x
        Op::Neg(_) => match inner(graph, 0) {
            Node { op: Op::Neg(_), args, .. } => Some(args[0]),
            _ => None,
        },
        // A view of a number is the number.
        Op::Reshape(_) | Op::Permute(_) | Op::Expand(_) | Op::Slice(_) if constant(graph, arg(0)).is_some() => {
            constant(graph, arg(0)).map(|number| graph.constant(node.ty.dtype, number, &node.ty.shape))
        }
        // reshape(reshape(x)) = reshape(x)
        Op::Reshape(_) => match inner(graph, 0) {
            Node { op: Op::Reshape(_), args, .. } => Some(graph.reshape(args[0], &node.ty.shape)),
            _ => (graph.shape(arg(0)) == node.ty.shape).then_some(arg(0)),
        },
        // permute(permute(x)) = permute(x)
        Op::Permute(outer) => match inner(graph, 0) {
            Node { op: Op::Permute(first), args, .. } => {
                let order: Vec<usize> = outer.order.iter().map(|&axis| first.order[axis]).collect();
                Some(graph.permute(args[0], &order))
            }
            _ => outer.order.iter().copied().eq(0..outer.order.len()).then_some(arg(0)),
        },
        // expand(expand(x)) = expand(x)
        Op::Expand(_) => match inner(graph, 0) {
            Node { op: Op::Expand(_), args, .. } => Some(graph.expand(args[0], &node.ty.shape)),
            _ => (graph.shape(arg(0)) == node.ty.shape).then_some(arg(0)),
        },
        // slice(pad(x)) = x where the slice is just what was padded
        Op::Slice(slice) => match inner(graph, 0) {
            Node { op: Op::Pad(pad), args, .. } => {
                let exact =
                    pad.axis == slice.axis && pad.before == slice.start && graph.shape(args[0]) == node.ty.shape;
                exact.then_some(args[0])
            }
            _ => (graph.shape(arg(0)) == node.ty.shape).then_some(arg(0)),
        },
        // pad(0) = 0
        Op::Pad(_) if is_constant(graph, arg(0), 0.0) => Some(graph.constant(node.ty.dtype, 0.0, &node.ty.shape)),
        // A reduction over axes of extent 1 changes nothing.
        Op::Sum(_) | Op::ReduceMax(_) => (graph.shape(arg(0)) == node.ty.shape).then_some(arg(0)),
        _ => None,
    }
}

/// The number that fills a value, if it is one.
fn constant(graph: &Graph, value: Value) -> Option<f64> {
    match &graph.node(value).op {
        Op::Constant(constant) => Some(constant.value.get()),
        _ => None,
    }
}

fn is_constant(graph: &Graph, value: Value, number: f64) -> bool {
    constant(graph, value) == Some(number)
}
