//! `mul(a, b)`: product of two tensors, element by element.

use super::rule::{Class, Gen, Sample, numeric_pair};
use crate::grad::Backward;
use crate::tensor::Tensor;
use crate::types::{DType, TensorType};

op! {
    /// Product of two tensors, element by element.
    Mul = "mul" {},

    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, String> {
        numeric_pair(args)
    }

    fn eval(&self, args: &[&Tensor], ty: &TensorType) -> Tensor {
        Tensor::map(args, ty, |x| x[0] * x[1])
    }

    // da = dy · b, db = dy · a
    fn grad(&self, cx: &mut Backward<'_>) {
        cx.give(0, |cx| cx.graph.mul(cx.dy, cx.args[1]));
        cx.give(1, |cx| cx.graph.mul(cx.dy, cx.args[0]));
    }

    fn class(&self) -> Class {
        Class::Elementwise
    }

    fn wgsl(&self, args: &[&str]) -> String {
        format!("({} * {})", args[0], args[1])
    }

    fn samples() -> Vec<Sample> {
        vec![Sample::new(Mul {}).f32(&[2, 3, 5]).arg(DType::F32, &[2, 3, 5], Gen::Uniform(-1.0, 1.0))]
    }
}
