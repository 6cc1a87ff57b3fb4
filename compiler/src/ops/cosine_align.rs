//! `cosine_align(p, y)`: cosine of the angle between corresponding rows.

use super::rule::{Class, Sample, arity};
use crate::grad::Backward;
use crate::ir::{Graph, Value};
use crate::types::{DType, TensorType};

op! {
    /// `<p / max(|p|, 1e-12), y / max(|y|, 1e-12)>` per row: `p, y (n, d)`, result `(n)`.
    /// Reference: VIRAL, equation 5; the norm's floor is that of the common framework `normalize`.
    CosineAlign = "cosine_align" {},

    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, String> {
        let [p, y] = arity(args)?;
        if p.dtype != DType::F32 || p.rank() != 2 || p != y {
            return Err("takes two equal f32[n,d]".into());
        }
        Ok(TensorType::f32([p.shape[0]]))
    }

    // With u = p/|p|, v = y/|y| and c = <u, v>:  dp = dy · (v - c·u) / |p|,  dy symmetrically
    fn grad(&self, cx: &mut Backward<'_>) {
        let (p, y) = (cx.args[0], cx.args[1]);
        for (position, x, other) in [(0, p, y), (1, y, p)] {
            cx.give(position, |cx| {
                let graph = &mut *cx.graph;
                let rows = graph.shape(x)[0];
                let (unit, inverse, clamped) = normalised(graph, x);
                let (other, ..) = normalised(graph, other);
                let product = graph.mul(unit, other);
                let cosine = graph.sum(product, &[1]);
                // Below the floor the norm is a constant, and only the first term is left.
                let zero = graph.zeros_like(cosine);
                let cosine = graph.select(clamped, zero, cosine);
                let along = graph.mul(unit, cosine);
                let across = graph.sub(other, along);
                let dy = graph.reshape(cx.dy, &[rows, 1]);
                let factor = graph.mul(dy, inverse);
                graph.mul(across, factor)
            });
        }
    }

    fn class(&self) -> Class {
        Class::Composite
    }

    fn expand(&self, graph: &mut Graph, args: &[Value]) -> Option<Value> {
        let rows = graph.shape(args[0])[0];
        let (u, ..) = normalised(graph, args[0]);
        let (v, ..) = normalised(graph, args[1]);
        let product = graph.mul(u, v);
        let cosine = graph.sum(product, &[1]);
        Some(graph.reshape(cosine, &[rows]))
    }

    fn samples() -> Vec<Sample> {
        vec![Sample::new(CosineAlign {}).f32(&[5, 12]).f32(&[5, 12])]
    }
}

/// `(x / max(|x|, floor) (n, d), 1 / max(|x|, floor) (n, 1), whether |x| is below the floor (n, 1))`
pub(super) fn normalised(graph: &mut Graph, x: Value) -> (Value, Value, Value) {
    let square = graph.mul(x, x);
    let sum = graph.sum(square, &[1]);
    let norm = graph.sqrt(sum);
    let shape = graph.shape(norm).to_vec();
    let floor = graph.constant(DType::F32, 1e-12, &shape);
    let clamped = graph.less(norm, floor);
    let norm = graph.maximum(norm, floor);
    let inverse = graph.recip(norm);
    (graph.mul(x, inverse), inverse, clamped)
}
