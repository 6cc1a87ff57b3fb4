//! `neg(x)`: negation.

use super::rule::{Class, Gen, Sample, arity, same_shape};
use crate::grad::Backward;
use crate::tensor::Tensor;
use crate::types::{DType, TensorType};

op! {
    /// Negation.
    Neg = "neg" {},

    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, String> {
        arity::<1>(args)?;
        same_shape(args, DType::F32)
    }

    fn eval(&self, args: &[&Tensor], ty: &TensorType) -> Tensor {
        Tensor::map(args, ty, |x| -x[0])
    }

    // dx = -dy
    fn grad(&self, cx: &mut Backward<'_>) {
        cx.give(0, |cx| cx.graph.neg(cx.dy));
    }

    fn class(&self) -> Class {
        Class::Elementwise
    }

    fn wgsl(&self, args: &[&str]) -> String {
        format!("(-{})", args[0])
    }

    fn samples() -> Vec<Sample> {
        vec![Sample::new(Neg {}).arg(DType::F32, &[3, 5], Gen::Uniform(-1.0, 1.0))]
    }
}
