//! `max{axes}(x)`: largest element along axes.

use super::rule::{Class, Sample};
use super::sum::{reduce, reduced_type};
use crate::grad::Backward;
use crate::tensor::Tensor;
use crate::types::{DType, TensorType};

op! {
    /// Largest element along the given axes, which keep extent 1.
    ReduceMax = "max" {
        /// Ascending axes.
        axes: Vec<usize>,
    },

    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, String> {
        reduced_type(&self.axes, args)
    }

    fn eval(&self, args: &[&Tensor], ty: &TensorType) -> Tensor {
        reduce(args[0], ty, f64::NEG_INFINITY, f64::max)
    }

    // dx = dy / (number of largest elements) where x is the largest
    fn grad(&self, cx: &mut Backward<'_>) {
        cx.give(0, |cx| {
            let (x, shape) = (cx.args[0], cx.graph.shape(cx.args[0]).to_vec());
            let largest = cx.graph.expand(cx.out, &shape);
            let is_largest = cx.graph.equal(x, largest);
            let indicator = cx.graph.cast(is_largest, DType::F32);
            let count = cx.graph.sum(indicator, &self.axes);
            let share = cx.graph.div(cx.dy, count);
            let share = cx.graph.expand(share, &shape);
            cx.graph.mul(share, indicator)
        });
    }

    fn class(&self) -> Class {
        Class::Reduction
    }

    fn samples() -> Vec<Sample> {
        let max = |axes: &[usize]| Sample::new(ReduceMax { axes: axes.to_vec() });
        vec![max(&[1]).f32(&[3, 37]), max(&[0]).f32(&[37, 5])]
    }
}
