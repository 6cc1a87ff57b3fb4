//! `expand{shape}(x)`: repeats axes of extent 1.

use super::rule::{Class, Sample, arity};
use crate::grad::Backward;
use crate::tensor::Tensor;
use crate::types::TensorType;

op! {
    /// Repeats axes of extent 1 to the given shape, which has the same number of axes.
    Expand = "expand" {
        /// The new shape.
        shape: Vec<usize>,
    },

    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, String> {
        let [x] = arity(args)?;
        let fits = x.rank() == self.shape.len() && x.shape.iter().zip(&self.shape).all(|(&from, &to)| from == to || from == 1);
        if !fits {
            return Err(format!("{x} cannot be repeated to {:?}", self.shape));
        }
        Ok(TensorType::new(x.dtype, self.shape.clone()))
    }

    fn eval(&self, args: &[&Tensor], ty: &TensorType) -> Tensor {
        let from = &args[0].ty.shape;
        Tensor::from_fn(ty, |index| {
            let source: Vec<usize> = index.iter().zip(from).map(|(&i, &n)| if n == 1 { 0 } else { i }).collect();
            args[0].at(&source)
        })
    }

    // dx = sum of dy over the repeated axes
    fn grad(&self, cx: &mut Backward<'_>) {
        cx.give(0, |cx| {
            let from = cx.graph.shape(cx.args[0]);
            let axes: Vec<usize> = (0..from.len()).filter(|&a| from[a] == 1 && self.shape[a] != 1).collect();
            cx.graph.sum(cx.dy, &axes)
        });
    }

    fn class(&self) -> Class {
        Class::View
    }

    fn samples() -> Vec<Sample> {
        let to = |shape: &[usize]| Sample::new(Expand { shape: shape.to_vec() });
        vec![to(&[3, 5]).f32(&[1, 5]), to(&[3, 5]).f32(&[3, 1]), to(&[2, 3, 4]).f32(&[1, 3, 1])]
    }
}
