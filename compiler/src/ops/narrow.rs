//! `narrow{to}(x)`: reals as a storage type holds them.

use super::rule::{Class, Gen, Sample, arity};
use crate::grad::Backward;
use crate::storage;
use crate::tensor::Tensor;
use crate::types::{DType, TensorType};

op! {
    /// The nearest numbers that a storage type without scales has, to be kept in less memory. Passes put it between
    /// computations; autodiff treats the result as a constant.
    Narrow = "narrow" {
        /// Storage type of the result.
        to: DType,
    },

    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, String> {
        let [x] = arity(args)?;
        if x.dtype != DType::F32 {
            return Err(format!("takes f32, not {}", x.dtype));
        }
        if !self.to.is_storage() || self.to.has_scales() {
            return Err(format!("{} is no storage type without scales", self.to));
        }
        if !x.shape.last().is_some_and(|columns| columns.is_multiple_of(4)) {
            return Err("a work item stores four neighbours of a row, whose length must be a multiple of four".into());
        }
        Ok(TensorType::new(self.to, x.shape.clone()))
    }

    fn eval(&self, args: &[&Tensor], ty: &TensorType) -> Tensor {
        Tensor::map(args, ty, |x| f64::from(storage::round(self.to, x[0] as f32)))
    }

    fn grad(&self, _cx: &mut Backward<'_>) {}

    fn class(&self) -> Class {
        Class::Elementwise
    }

    fn wgsl(&self, args: &[&str]) -> String {
        format!("rounded_{}({})", self.to, args[0])
    }

    fn samples() -> Vec<Sample> {
        let sample = |to| Sample::new(Narrow { to }).arg(DType::F32, &[3, 8], Gen::Uniform(-2.0, 2.0));
        let unit = |to, low| Sample::new(Narrow { to }).arg(DType::F32, &[3, 8], Gen::Uniform(low, 1.0));
        vec![sample(DType::BF16), sample(DType::F16), unit(DType::F8S, -1.0), unit(DType::F8U, 0.0)]
    }
}
