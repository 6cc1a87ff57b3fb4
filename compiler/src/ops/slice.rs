//! `slice{axis, start, len}(x)`: a range of one axis.

use super::rule::{Class, Sample, arity};
use crate::grad::Backward;
use crate::tensor::Tensor;
use crate::types::TensorType;

op! {
    /// Indices `start..start + len` of one axis.
    Slice = "slice" {
        /// The axis that is cut.
        axis: usize,
        /// First index kept.
        start: usize,
        /// Number of indices kept.
        len: usize,
    },

    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, String> {
        let [x] = arity(args)?;
        let extent = x.shape.get(self.axis).copied().unwrap_or(0);
        if self.axis >= x.rank() || self.start.checked_add(self.len).is_none_or(|end| end > extent) {
            return Err(format!("{x} has no {} indices from {} on along axis {}", self.len, self.start, self.axis));
        }
        let mut shape = x.shape.clone();
        shape[self.axis] = self.len;
        Ok(TensorType::new(x.dtype, shape))
    }

    fn eval(&self, args: &[&Tensor], ty: &TensorType) -> Tensor {
        Tensor::from_fn(ty, |index| {
            let mut source = index.to_vec();
            source[self.axis] += self.start;
            args[0].at(&source)
        })
    }

    // dx = dy, with zeros where x was cut away
    fn grad(&self, cx: &mut Backward<'_>) {
        cx.give(0, |cx| {
            let extent = cx.graph.shape(cx.args[0])[self.axis];
            cx.graph.pad(cx.dy, self.axis, self.start, extent - self.start - self.len)
        });
    }

    fn class(&self) -> Class {
        Class::View
    }

    fn samples() -> Vec<Sample> {
        vec![
            Sample::new(Slice { axis: 1, start: 2, len: 3 }).f32(&[4, 7]),
            Sample::new(Slice { axis: 0, start: 1, len: 2 }).f32(&[4, 8]),
        ]
    }
}
