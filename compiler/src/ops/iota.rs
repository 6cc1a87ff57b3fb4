//! `iota`: the index along one axis.

use super::rule::{Class, Sample, arity};
use crate::grad::Backward;
use crate::tensor::Tensor;
use crate::types::TensorType;

op! {
    /// A `u32` tensor whose elements are their own index along `axis`.
    Iota = "iota" {
        /// Extent of each axis.
        shape: Vec<usize>,
        /// The axis that is counted.
        axis: usize,
    },

    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, String> {
        arity::<0>(args)?;
        if self.axis >= self.shape.len() {
            return Err(format!("there is no axis {}", self.axis));
        }
        Ok(TensorType::u32(self.shape.clone()))
    }

    fn eval(&self, _args: &[&Tensor], ty: &TensorType) -> Tensor {
        Tensor::from_fn(ty, |index| index[self.axis] as f64)
    }

    fn grad(&self, _cx: &mut Backward<'_>) {}

    fn class(&self) -> Class {
        Class::Index
    }

    fn samples() -> Vec<Sample> {
        vec![Sample::new(Iota { shape: vec![3, 5], axis: 0 }), Sample::new(Iota { shape: vec![3, 5], axis: 1 })]
    }
}
