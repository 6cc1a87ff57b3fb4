//! `equal(a, b)`: whether two elements are equal.

use super::rule::{Class, Gen, Sample, numeric_pair};
use crate::grad::Backward;
use crate::tensor::Tensor;
use crate::types::{DType, TensorType};

op! {
    /// Whether two elements are equal.
    Equal = "equal" {},

    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, String> {
        Ok(TensorType::new(DType::Bool, numeric_pair(args)?.shape))
    }

    fn eval(&self, args: &[&Tensor], ty: &TensorType) -> Tensor {
        Tensor::map(args, ty, |x| f64::from(u8::from(x[0] == x[1])))
    }

    fn grad(&self, _cx: &mut Backward<'_>) {}

    fn class(&self) -> Class {
        Class::Elementwise
    }

    fn wgsl(&self, args: &[&str]) -> String {
        format!("({} == {})", args[0], args[1])
    }

    fn samples() -> Vec<Sample> {
        let integers = Sample::new(Equal {}).arg(DType::U32, &[4, 7], Gen::Index(3)).arg(DType::U32, &[4, 7], Gen::Index(3));
        vec![Sample::new(Equal {}).f32(&[3, 5]).f32(&[3, 5]), integers]
    }
}
