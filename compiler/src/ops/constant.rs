//! `constant`: one number in every element.

use super::attr::Real;
use super::rule::{Class, Sample, arity};
use crate::grad::Backward;
use crate::tensor::Tensor;
use crate::types::{DType, TensorType};

op! {
    /// A tensor filled with one number.
    Constant = "constant" {
        /// The number.
        value: Real,
        /// Element type.
        dtype: DType,
        /// Extent of each axis.
        shape: Vec<usize>,
    },

    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, String> {
        arity::<0>(args)?;
        if self.dtype == DType::F32 && !(self.value.get() as f32).is_finite() {
            return Err("WGSL has no literals for infinities and NaN".into());
        }
        Ok(TensorType::new(self.dtype, self.shape.clone()))
    }

    fn eval(&self, _args: &[&Tensor], ty: &TensorType) -> Tensor {
        Tensor { ty: ty.clone(), data: vec![self.value.get(); ty.len()] }
    }

    fn grad(&self, _cx: &mut Backward<'_>) {}

    fn class(&self) -> Class {
        Class::Index
    }

    fn samples() -> Vec<Sample> {
        vec![Sample::new(Constant { value: Real::new(0.75), dtype: DType::F32, shape: vec![2, 3] })]
    }
}
