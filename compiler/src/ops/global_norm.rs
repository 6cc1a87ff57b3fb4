//! `global_norm(x, …)`: one Euclidean norm over many tensors.

use super::rule::{Class, Sample};
use crate::grad::Backward;
use crate::ir::{Graph, Value};
use crate::types::{DType, TensorType};

op! {
    /// Square root of the sum of squares of all elements of all arguments, as a scalar.
    GlobalNorm = "global_norm" {},

    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, String> {
        if args.is_empty() || args.iter().any(|t| t.dtype != DType::F32) {
            return Err("takes at least one tensor of reals".into());
        }
        Ok(TensorType::f32([]))
    }

    // dx = dy · x / norm
    fn grad(&self, cx: &mut Backward<'_>) {
        for position in 0..cx.args.len() {
            cx.give(position, |cx| {
                let factor = cx.graph.div(cx.dy, cx.out);
                cx.graph.mul(cx.args[position], factor)
            });
        }
    }

    fn class(&self) -> Class {
        Class::Composite
    }

    fn expand(&self, graph: &mut Graph, args: &[Value]) -> Option<Value> {
        let mut total = None;
        for &x in args {
            let square = graph.mul(x, x);
            let sum = graph.sum_all(square);
            total = Some(total.map_or(sum, |t| graph.add(t, sum)));
        }
        total.map(|t| graph.sqrt(t))
    }

    fn samples() -> Vec<Sample> {
        vec![Sample::new(GlobalNorm {}).f32(&[700]).f32(&[3, 5])]
    }
}
