//! `select(condition, a, b)`: choice between two tensors.

use super::rule::{Class, Gen, Sample, arity};
use crate::grad::Backward;
use crate::tensor::Tensor;
use crate::types::{DType, TensorType};

op! {
    /// `a` where the condition holds, `b` elsewhere. The side that is not chosen may hold anything, NaN included.
    Select = "select" {},

    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, String> {
        let [condition, a, b] = arity(args)?;
        if condition.dtype != DType::Bool || a != b || condition.shape != a.shape {
            return Err("takes a truth value and two equal types, all of one shape".into());
        }
        Ok(a.clone())
    }

    fn eval(&self, args: &[&Tensor], ty: &TensorType) -> Tensor {
        Tensor::map(args, ty, |x| if x[0] != 0.0 { x[1] } else { x[2] })
    }

    // da = dy where the condition holds, db = dy where it does not
    fn grad(&self, cx: &mut Backward<'_>) {
        cx.give(1, |cx| {
            let zero = cx.graph.zeros_like(cx.dy);
            cx.graph.select(cx.args[0], cx.dy, zero)
        });
        cx.give(2, |cx| {
            let zero = cx.graph.zeros_like(cx.dy);
            cx.graph.select(cx.args[0], zero, cx.dy)
        });
    }

    fn class(&self) -> Class {
        Class::Elementwise
    }

    fn wgsl(&self, args: &[&str]) -> String {
        format!("select({}, {}, {})", args[2], args[1], args[0])
    }

    fn samples() -> Vec<Sample> {
        vec![Sample::new(Select {}).arg(DType::Bool, &[3, 5], Gen::Bool).f32(&[3, 5]).f32(&[3, 5])]
    }
}
