//! `permute{order}(x)`: reorders axes.

use super::rule::{Class, Sample, arity};
use crate::grad::Backward;
use crate::tensor::Tensor;
use crate::types::TensorType;

op! {
    /// Axis `i` of the result is axis `order[i]` of the argument.
    Permute = "permute" {
        /// A permutation of the axes.
        order: Vec<usize>,
    },

    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, String> {
        let [x] = arity(args)?;
        let mut sorted = self.order.clone();
        sorted.sort_unstable();
        if !sorted.into_iter().eq(0..x.rank()) {
            return Err(format!("{:?} is not a permutation of the axes of {x}", self.order));
        }
        Ok(TensorType::new(x.dtype, self.order.iter().map(|&a| x.shape[a]).collect::<Vec<_>>()))
    }

    fn eval(&self, args: &[&Tensor], ty: &TensorType) -> Tensor {
        let mut source = vec![0; self.order.len()];
        Tensor::from_fn(ty, |index| {
            for (i, &axis) in self.order.iter().enumerate() {
                source[axis] = index[i];
            }
            args[0].at(&source)
        })
    }

    // dx = dy with the inverse permutation
    fn grad(&self, cx: &mut Backward<'_>) {
        cx.give(0, |cx| {
            let mut inverse = vec![0; self.order.len()];
            for (i, &axis) in self.order.iter().enumerate() {
                inverse[axis] = i;
            }
            cx.graph.permute(cx.dy, &inverse)
        });
    }

    fn class(&self) -> Class {
        Class::View
    }

    fn samples() -> Vec<Sample> {
        vec![
            Sample::new(Permute { order: vec![1, 0] }).f32(&[3, 5]),
            Sample::new(Permute { order: vec![0, 2, 1, 3] }).f32(&[2, 3, 5, 4]),
            Sample::new(Permute { order: vec![2, 0, 1] }).f32(&[3, 4, 8]),
        ]
    }
}
