//! `widen(x)`: what a storage type holds, as `f32`.

use super::rule::{Class, Gen, Sample, arity};
use crate::grad::Backward;
use crate::tensor::Tensor;
use crate::types::{DType, TensorType};

op! {
    /// The numbers that a tensor of a storage type holds, as `f32`. Kernels decode as they load, so it costs nothing by
    /// itself; autodiff treats the result as a constant.
    Widen = "widen" {},

    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, String> {
        let [x] = arity(args)?;
        if !x.dtype.is_storage() {
            return Err(format!("{} is no storage type", x.dtype));
        }
        if !x.dtype.can_store(&x.shape) {
            return Err(format!("rows of {} are made of whole blocks of {}", x.dtype, DType::BLOCK));
        }
        Ok(TensorType::f32(x.shape.clone()))
    }

    fn eval(&self, args: &[&Tensor], ty: &TensorType) -> Tensor {
        Tensor::new(ty.clone(), args[0].data.clone())
    }

    fn grad(&self, _cx: &mut Backward<'_>) {}

    fn class(&self) -> Class {
        Class::View
    }

    fn samples() -> Vec<Sample> {
        let sample = |dtype, shape: &[usize]| Sample::new(Widen {}).arg(dtype, shape, Gen::Uniform(-2.0, 2.0));
        vec![
            sample(DType::BF16, &[3, 5]),
            sample(DType::BF16, &[6, 8]),
            sample(DType::F16, &[3, 5]),
            sample(DType::F16, &[6, 8]),
            sample(DType::Q8, &[3, 128]),
            sample(DType::NF4, &[3, 128]),
            Sample::new(Widen {}).arg(DType::F8S, &[3, 5], Gen::Uniform(-1.0, 1.0)),
            Sample::new(Widen {}).arg(DType::F8U, &[6, 8], Gen::Uniform(0.0, 1.0)),
        ]
    }
}
