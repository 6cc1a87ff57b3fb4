//! `state`: a tensor that persists and may be replaced.

use super::rule::{Class, Sample, arity};
use crate::grad::Backward;
use crate::tensor::Tensor;
use crate::types::{DType, TensorType};

op! {
    /// A tensor that persists between replays and that an output may replace, such as an optimiser's moment.
    State = "state" {
        /// Unique name.
        name: String,
        /// Element type.
        dtype: DType,
        /// Extent of each axis.
        shape: Vec<usize>,
    },

    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, String> {
        arity::<0>(args)?;
        Ok(TensorType::new(self.dtype, self.shape.clone()))
    }

    fn eval(&self, _args: &[&Tensor], _ty: &TensorType) -> Tensor {
        unreachable!("the interpreter takes leaves from its caller")
    }

    fn grad(&self, _cx: &mut Backward<'_>) {}

    fn class(&self) -> Class {
        Class::Leaf
    }

    fn samples() -> Vec<Sample> {
        Vec::new()
    }
}
