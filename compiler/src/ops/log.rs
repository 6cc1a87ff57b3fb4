//! `log(x)`: natural logarithm.

use super::rule::{Class, Gen, Sample, arity, same_shape};
use crate::grad::Backward;
use crate::tensor::Tensor;
use crate::types::{DType, TensorType};

op! {
    /// Natural logarithm.
    Log = "log" {},

    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, String> {
        arity::<1>(args)?;
        same_shape(args, DType::F32)
    }

    fn eval(&self, args: &[&Tensor], ty: &TensorType) -> Tensor {
        Tensor::map(args, ty, |x| x[0].ln())
    }

    // dx = dy / x
    fn grad(&self, cx: &mut Backward<'_>) {
        cx.give(0, |cx| cx.graph.div(cx.dy, cx.args[0]));
    }

    fn class(&self) -> Class {
        Class::Elementwise
    }

    fn wgsl(&self, args: &[&str]) -> String {
        format!("log({})", args[0])
    }

    fn samples() -> Vec<Sample> {
        vec![Sample::new(Log {}).arg(DType::F32, &[3, 5], Gen::Uniform(0.1, 3.0))]
    }
}
