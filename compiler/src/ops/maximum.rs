//! `maximum(a, b)`: larger of two elements.

use super::rule::{Class, Gen, Sample, numeric_pair};
use crate::grad::Backward;
use crate::tensor::Tensor;
use crate::types::{DType, TensorType};

op! {
    /// Larger of two elements.
    Maximum = "maximum" {},

    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, String> {
        numeric_pair(args)
    }

    fn eval(&self, args: &[&Tensor], ty: &TensorType) -> Tensor {
        Tensor::map(args, ty, |x| x[0].max(x[1]))
    }

    // da = dy where a >= b, db = dy where a < b
    fn grad(&self, cx: &mut Backward<'_>) {
        cx.give(0, |cx| {
            let smaller = cx.graph.less(cx.args[0], cx.args[1]);
            let zero = cx.graph.zeros_like(cx.dy);
            cx.graph.select(smaller, zero, cx.dy)
        });
        cx.give(1, |cx| {
            let smaller = cx.graph.less(cx.args[0], cx.args[1]);
            let zero = cx.graph.zeros_like(cx.dy);
            cx.graph.select(smaller, cx.dy, zero)
        });
    }

    fn class(&self) -> Class {
        Class::Elementwise
    }

    fn wgsl(&self, args: &[&str]) -> String {
        format!("max({}, {})", args[0], args[1])
    }

    fn samples() -> Vec<Sample> {
        vec![Sample::new(Maximum {}).f32(&[2, 3, 5]).arg(DType::F32, &[2, 3, 5], Gen::Uniform(-1.0, 1.0))]
    }
}
