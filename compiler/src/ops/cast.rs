//! `cast(x)`: change of element type.

use super::rule::{Class, Gen, Sample, arity};
use crate::grad::Backward;
use crate::tensor::Tensor;
use crate::types::{DType, TensorType};

op! {
    /// The same numbers in another element type; truth values become 0 and 1, reals are truncated towards zero.
    Cast = "cast" {
        /// Element type of the result.
        to: DType,
    },

    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, String> {
        let [x] = arity(args)?;
        if self.to == DType::Bool {
            return Err("a cast to bool is written as a comparison".into());
        }
        if self.to.is_storage() || x.dtype.is_storage() {
            return Err("storage types are read by `widen`".into());
        }
        Ok(TensorType::new(self.to, x.shape.clone()))
    }

    fn eval(&self, args: &[&Tensor], ty: &TensorType) -> Tensor {
        let integer = self.to != DType::F32;
        Tensor::map(args, ty, |x| if integer { x[0].trunc() } else { x[0] })
    }

    fn grad(&self, _cx: &mut Backward<'_>) {}

    fn class(&self) -> Class {
        Class::Elementwise
    }

    fn wgsl(&self, args: &[&str]) -> String {
        let alias = match self.to {
            DType::I32 => "I",
            DType::U32 | DType::Bool => "U",
            _ => "F",
        };
        format!("{alias}({})", args[0])
    }

    fn samples() -> Vec<Sample> {
        vec![
            Sample::new(Cast { to: DType::F32 }).arg(DType::U32, &[3, 5], Gen::Index(9)),
            Sample::new(Cast { to: DType::F32 }).arg(DType::Bool, &[3, 4], Gen::Bool),
            Sample::new(Cast { to: DType::U32 }).arg(DType::F32, &[3, 5], Gen::Uniform(0.0, 9.0)),
        ]
    }
}
