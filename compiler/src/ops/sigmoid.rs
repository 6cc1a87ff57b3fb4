//! `sigmoid(x)`: logistic function, `1 / (1 + exp(-x))`.

use super::rule::{Class, Gen, Sample, arity, same_shape};
use crate::grad::Backward;
use crate::tensor::Tensor;
use crate::types::{DType, TensorType};

op! {
    /// Logistic function, `1 / (1 + exp(-x))`.
    Sigmoid = "sigmoid" {},

    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, String> {
        arity::<1>(args)?;
        same_shape(args, DType::F32)
    }

    fn eval(&self, args: &[&Tensor], ty: &TensorType) -> Tensor {
        Tensor::map(args, ty, |x| 1.0 / (1.0 + (-x[0]).exp()))
    }

    // dx = dy · y · (1 - y)
    fn grad(&self, cx: &mut Backward<'_>) {
        cx.give(0, |cx| {
            let rest = cx.graph.one_minus(cx.out);
            let slope = cx.graph.mul(cx.out, rest);
            cx.graph.mul(cx.dy, slope)
        });
    }

    fn class(&self) -> Class {
        Class::Elementwise
    }

    fn wgsl(&self, args: &[&str]) -> String {
        // The clamp keeps exp finite: WGSL lets compilers assume that there are no infinities.
        format!("(F(1.0) / (F(1.0) + exp(-max({}, F(-80.0)))))", args[0])
    }

    fn samples() -> Vec<Sample> {
        vec![Sample::new(Sigmoid {}).arg(DType::F32, &[3, 5], Gen::Uniform(-3.0, 3.0))]
    }
}
