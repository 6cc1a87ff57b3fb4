//! `stop_gradient(x)`: the argument, as a constant to differentiation.

use super::rule::{Class, Sample, arity};
use crate::grad::Backward;
use crate::tensor::Tensor;
use crate::types::TensorType;

op! {
    /// The argument; autodiff treats the result as a constant.
    StopGradient = "stop_gradient" {},

    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, String> {
        let [x] = arity(args)?;
        Ok(x.clone())
    }

    fn eval(&self, args: &[&Tensor], _ty: &TensorType) -> Tensor {
        args[0].clone()
    }

    fn grad(&self, _cx: &mut Backward<'_>) {}

    fn class(&self) -> Class {
        Class::View
    }

    fn samples() -> Vec<Sample> {
        vec![Sample::new(StopGradient {}).f32(&[3, 5])]
    }
}
