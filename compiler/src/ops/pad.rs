//! `pad{axis, before, after}(x)`: zeros before and after one axis.

use super::rule::{Class, Sample, arity};
use crate::grad::Backward;
use crate::tensor::Tensor;
use crate::types::TensorType;

op! {
    /// Zeros before and after the elements of one axis.
    Pad = "pad" {
        /// The axis that grows.
        axis: usize,
        /// Zeros in front.
        before: usize,
        /// Zeros behind.
        after: usize,
    },

    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, String> {
        let [x] = arity(args)?;
        if self.axis >= x.rank() {
            return Err(format!("{x} has no axis {}", self.axis));
        }
        let mut shape = x.shape.clone();
        shape[self.axis] += self.before + self.after;
        Ok(TensorType::new(x.dtype, shape))
    }

    fn eval(&self, args: &[&Tensor], ty: &TensorType) -> Tensor {
        let inside = self.before..self.before + args[0].ty.shape[self.axis];
        Tensor::from_fn(ty, |index| {
            if !inside.contains(&index[self.axis]) {
                return 0.0;
            }
            let mut source = index.to_vec();
            source[self.axis] -= self.before;
            args[0].at(&source)
        })
    }

    // dx = the part of dy that came from x
    fn grad(&self, cx: &mut Backward<'_>) {
        cx.give(0, |cx| {
            let len = cx.graph.shape(cx.args[0])[self.axis];
            cx.graph.slice(cx.dy, self.axis, self.before, len)
        });
    }

    fn class(&self) -> Class {
        Class::View
    }

    fn samples() -> Vec<Sample> {
        vec![
            Sample::new(Pad { axis: 1, before: 2, after: 1 }).f32(&[4, 5]),
            Sample::new(Pad { axis: 0, before: 1, after: 0 }).f32(&[3, 8]),
        ]
    }
}
