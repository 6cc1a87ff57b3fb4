//! `cos(x)`: cosine of an angle in radians.

use super::rule::{Class, Gen, Sample, arity, same_shape};
use crate::grad::Backward;
use crate::tensor::Tensor;
use crate::types::{DType, TensorType};

op! {
    /// Cosine of an angle in radians.
    Cos = "cos" {},

    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, String> {
        arity::<1>(args)?;
        same_shape(args, DType::F32)
    }

    fn eval(&self, args: &[&Tensor], ty: &TensorType) -> Tensor {
        Tensor::map(args, ty, |x| x[0].cos())
    }

    // dx = -dy · sin(x)
    fn grad(&self, cx: &mut Backward<'_>) {
        cx.give(0, |cx| {
            let slope = cx.graph.sin(cx.args[0]);
            let product = cx.graph.mul(cx.dy, slope);
            cx.graph.neg(product)
        });
    }

    fn class(&self) -> Class {
        Class::Elementwise
    }

    fn wgsl(&self, args: &[&str]) -> String {
        format!("cos({})", args[0])
    }

    fn samples() -> Vec<Sample> {
        vec![Sample::new(Cos {}).arg(DType::F32, &[3, 5], Gen::Uniform(-3.0, 3.0))]
    }
}
