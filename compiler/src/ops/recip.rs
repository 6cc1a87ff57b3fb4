//! `recip(x)`: reciprocal.

use super::rule::{Class, Gen, Sample, arity, same_shape};
use crate::grad::Backward;
use crate::tensor::Tensor;
use crate::types::{DType, TensorType};

op! {
    /// Reciprocal.
    Recip = "recip" {},

    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, String> {
        arity::<1>(args)?;
        same_shape(args, DType::F32)
    }

    fn eval(&self, args: &[&Tensor], ty: &TensorType) -> Tensor {
        Tensor::map(args, ty, |x| 1.0 / x[0])
    }

    // dx = -dy / x²
    fn grad(&self, cx: &mut Backward<'_>) {
        cx.give(0, |cx| {
            let square = cx.graph.mul(cx.out, cx.out);
            let product = cx.graph.mul(cx.dy, square);
            cx.graph.neg(product)
        });
    }

    fn class(&self) -> Class {
        Class::Elementwise
    }

    fn wgsl(&self, args: &[&str]) -> String {
        format!("(F(1.0) / {})", args[0])
    }

    fn samples() -> Vec<Sample> {
        vec![Sample::new(Recip {}).arg(DType::F32, &[3, 5], Gen::Uniform(0.3, 3.0))]
    }
}
