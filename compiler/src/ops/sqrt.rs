//! `sqrt(x)`: square root.

use super::rule::{Class, Gen, Sample, arity, same_shape};
use crate::grad::Backward;
use crate::tensor::Tensor;
use crate::types::{DType, TensorType};

op! {
    /// Square root.
    Sqrt = "sqrt" {},

    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, String> {
        arity::<1>(args)?;
        same_shape(args, DType::F32)
    }

    fn eval(&self, args: &[&Tensor], ty: &TensorType) -> Tensor {
        Tensor::map(args, ty, |x| x[0].sqrt())
    }

    // dx = dy / (2 · sqrt(x))
    fn grad(&self, cx: &mut Backward<'_>) {
        cx.give(0, |cx| {
            let half = cx.graph.scale(cx.dy, 0.5);
            cx.graph.div(half, cx.out)
        });
    }

    fn class(&self) -> Class {
        Class::Elementwise
    }

    fn wgsl(&self, args: &[&str]) -> String {
        format!("sqrt({})", args[0])
    }

    fn samples() -> Vec<Sample> {
        vec![Sample::new(Sqrt {}).arg(DType::F32, &[3, 5], Gen::Uniform(0.1, 3.0))]
    }
}
