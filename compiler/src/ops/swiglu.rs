//! `swiglu(gate, up)`: gated activation.

use super::rule::{Class, Sample, arity, same_shape};
use crate::grad::Backward;
use crate::ir::{Graph, Value};
use crate::types::{DType, TensorType};

op! {
    /// `gate · sigmoid(gate) · up`. Reference: N. Shazeer, GLU Variants Improve Transformer, 2020.
    SwiGlu = "swiglu" {},

    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, String> {
        arity::<2>(args)?;
        same_shape(args, DType::F32)
    }

    // With s = sigmoid(gate):  dgate = dy · up · s · (1 + gate · (1 - s)),   dup = dy · gate · s
    fn grad(&self, cx: &mut Backward<'_>) {
        let (gate, up) = (cx.args[0], cx.args[1]);
        let s = cx.graph.sigmoid(gate);
        cx.give(0, |cx| {
            let rest = cx.graph.one_minus(s);
            let slope = cx.graph.mul(gate, rest);
            let slope = cx.graph.offset(slope, 1.0);
            let slope = cx.graph.mul(slope, s);
            let through = cx.graph.mul(cx.dy, up);
            cx.graph.mul(through, slope)
        });
        cx.give(1, |cx| {
            let silu = cx.graph.mul(gate, s);
            cx.graph.mul(cx.dy, silu)
        });
    }

    fn class(&self) -> Class {
        Class::Composite
    }

    fn by_rows(&self, _args: &[&TensorType]) -> Option<Vec<usize>> {
        Some(vec![0, 1])
    }

    fn expand(&self, graph: &mut Graph, args: &[Value]) -> Option<Value> {
        let silu = graph.silu(args[0]);
        Some(graph.mul(silu, args[1]))
    }

    fn samples() -> Vec<Sample> {
        vec![Sample::new(SwiGlu {}).f32(&[3, 20]).f32(&[3, 20])]
    }
}
