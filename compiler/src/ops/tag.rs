//! `tag{label}(x)`: the argument under a label that passes may look for.

use super::rule::{Class, Sample, arity};
use crate::grad::Backward;
use crate::tensor::Tensor;
use crate::types::TensorType;

op! {
    /// The argument. The label marks a value for a pass, for example the input of a block that may be recomputed.
    Tag = "tag" {
        /// What the value is to the pass.
        label: String,
    },

    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, String> {
        let [x] = arity(args)?;
        Ok(x.clone())
    }

    fn eval(&self, args: &[&Tensor], _ty: &TensorType) -> Tensor {
        args[0].clone()
    }

    // dx = dy
    fn grad(&self, cx: &mut Backward<'_>) {
        cx.give(0, |cx| cx.dy);
    }

    fn class(&self) -> Class {
        Class::View
    }

    fn samples() -> Vec<Sample> {
        vec![Sample::new(Tag { label: "block".into() }).f32(&[3, 5])]
    }
}
