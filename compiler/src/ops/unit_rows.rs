//! `unit_rows(x)`: every row scaled to Euclidean norm 1.

use super::cosine_align::normalised;
use super::rule::{Class, Sample, arity};
use crate::grad::Backward;
use crate::ir::{Graph, Value};
use crate::types::{DType, TensorType};

op! {
    /// `x / max(|x|, 1e-12)` per row: `x (n, d)`, result `(n, d)`; the floor is that of the common framework `normalize`.
    /// A row of zeros stays, and its gradient is finite.
    UnitRows = "unit_rows" {},

    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, String> {
        let [x] = arity(args)?;
        if x.dtype != DType::F32 || x.rank() != 2 {
            return Err("takes f32[n,d]".into());
        }
        Ok(x.clone())
    }

    // With u = x/|x|:  dx = (dy - <u, dy>·u) / |x|
    fn grad(&self, cx: &mut Backward<'_>) {
        let x = cx.args[0];
        cx.give(0, |cx| {
            let graph = &mut *cx.graph;
            let (unit, inverse, clamped) = normalised(graph, x);
            let product = graph.mul(unit, cx.dy);
            let cosine = graph.sum(product, &[1]);
            // Below the floor the norm is a constant, and only the first term is left.
            let zero = graph.zeros_like(cosine);
            let cosine = graph.select(clamped, zero, cosine);
            let along = graph.mul(unit, cosine);
            let across = graph.sub(cx.dy, along);
            graph.mul(across, inverse)
        });
    }

    fn class(&self) -> Class {
        Class::Composite
    }

    fn by_rows(&self, _args: &[&TensorType]) -> Option<Vec<usize>> {
        Some(vec![0])
    }

    fn expand(&self, graph: &mut Graph, args: &[Value]) -> Option<Value> {
        Some(normalised(graph, args[0]).0)
    }

    fn samples() -> Vec<Sample> {
        vec![Sample::new(UnitRows {}).f32(&[5, 12]), Sample::new(UnitRows {}).f32(&[3, 70])]
    }
}
