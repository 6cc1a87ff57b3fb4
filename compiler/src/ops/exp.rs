//! `exp(x)`: natural exponential.

use super::rule::{Class, Gen, Sample, arity, same_shape};
use crate::grad::Backward;
use crate::tensor::Tensor;
use crate::types::{DType, TensorType};

op! {
    /// Natural exponential.
    Exp = "exp" {},

    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, String> {
        arity::<1>(args)?;
        same_shape(args, DType::F32)
    }

    fn eval(&self, args: &[&Tensor], ty: &TensorType) -> Tensor {
        Tensor::map(args, ty, |x| x[0].exp())
    }

    // dx = dy · exp(x)
    fn grad(&self, cx: &mut Backward<'_>) {
        cx.give(0, |cx| cx.graph.mul(cx.dy, cx.out));
    }

    fn class(&self) -> Class {
        Class::Elementwise
    }

    fn wgsl(&self, args: &[&str]) -> String {
        format!("exp({})", args[0])
    }

    fn samples() -> Vec<Sample> {
        vec![Sample::new(Exp {}).arg(DType::F32, &[3, 5], Gen::Uniform(-1.0, 1.0))]
    }
}
