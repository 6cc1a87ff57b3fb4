//! `reshape{shape}(x)`: the same elements in the same order under another shape.

use super::rule::{Class, Sample, arity};
use crate::grad::Backward;
use crate::tensor::Tensor;
use crate::types::TensorType;

op! {
    /// The same elements in row-major order under another shape.
    Reshape = "reshape" {
        /// The new shape.
        shape: Vec<usize>,
    },

    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, String> {
        let [x] = arity(args)?;
        if x.len() != self.shape.iter().product() {
            return Err(format!("{x} does not have as many elements as {:?}", self.shape));
        }
        Ok(TensorType::new(x.dtype, self.shape.clone()))
    }

    fn eval(&self, args: &[&Tensor], ty: &TensorType) -> Tensor {
        Tensor { ty: ty.clone(), data: args[0].data.clone() }
    }

    // dx = reshape(dy)
    fn grad(&self, cx: &mut Backward<'_>) {
        cx.give(0, |cx| {
            let shape = cx.graph.shape(cx.args[0]).to_vec();
            cx.graph.reshape(cx.dy, &shape)
        });
    }

    fn class(&self) -> Class {
        Class::View
    }

    fn samples() -> Vec<Sample> {
        let to = |shape: &[usize]| Sample::new(Reshape { shape: shape.to_vec() });
        vec![to(&[3, 4]).f32(&[12]), to(&[6, 2]).f32(&[3, 4]), to(&[2, 1, 6]).f32(&[4, 3])]
    }
}
