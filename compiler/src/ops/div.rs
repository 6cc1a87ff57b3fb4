//! `div(a, b)`: quotient of two tensors, element by element.

use super::rule::{Class, Gen, Sample, numeric_pair};
use crate::grad::Backward;
use crate::tensor::Tensor;
use crate::types::{DType, TensorType};

op! {
    /// Quotient of two tensors, element by element.
    Div = "div" {},

    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, String> {
        numeric_pair(args)
    }

    fn eval(&self, args: &[&Tensor], ty: &TensorType) -> Tensor {
        Tensor::map(args, ty, |x| x[0] / x[1])
    }

    // da = dy / b, db = -dy · (a / b) / b
    fn grad(&self, cx: &mut Backward<'_>) {
        cx.give(0, |cx| cx.graph.div(cx.dy, cx.args[1]));
        cx.give(1, |cx| {
            let product = cx.graph.mul(cx.dy, cx.out);
            let quotient = cx.graph.div(product, cx.args[1]);
            cx.graph.neg(quotient)
        });
    }

    fn class(&self) -> Class {
        Class::Elementwise
    }

    fn wgsl(&self, args: &[&str]) -> String {
        format!("({} / {})", args[0], args[1])
    }

    fn samples() -> Vec<Sample> {
        vec![Sample::new(Div {}).f32(&[2, 3, 5]).arg(DType::F32, &[2, 3, 5], Gen::Uniform(0.3, 2.0))]
    }
}
