//! `tanh(x)`: hyperbolic tangent.

use super::rule::{Class, Gen, Sample, arity, same_shape};
use crate::grad::Backward;
use crate::tensor::Tensor;
use crate::types::{DType, TensorType};

op! {
    /// Hyperbolic tangent.
    Tanh = "tanh" {},

    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, String> {
        arity::<1>(args)?;
        same_shape(args, DType::F32)
    }

    fn eval(&self, args: &[&Tensor], ty: &TensorType) -> Tensor {
        Tensor::map(args, ty, |x| x[0].tanh())
    }

    // dx = dy · (1 - tanh²(x))
    fn grad(&self, cx: &mut Backward<'_>) {
        cx.give(0, |cx| {
            let square = cx.graph.mul(cx.out, cx.out);
            let slope = cx.graph.one_minus(square);
            cx.graph.mul(cx.dy, slope)
        });
    }

    fn class(&self) -> Class {
        Class::Elementwise
    }

    fn wgsl(&self, args: &[&str]) -> String {
        format!("tanh(clamp({}, F(-20.0), F(20.0)))", args[0])
    }

    fn samples() -> Vec<Sample> {
        vec![Sample::new(Tanh {}).arg(DType::F32, &[3, 5], Gen::Uniform(-3.0, 3.0))]
    }
}
