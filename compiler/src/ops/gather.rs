//! `gather{unique}(table, index)`: rows of a table.

use super::rule::{Class, Gen, Sample, arity};
use crate::grad::Backward;
use crate::tensor::Tensor;
use crate::types::{DType, TensorType};

op! {
    /// Row `i` of the result is row `index[i]` of the table; an index beyond the table gives a row of zeros, which is how
    /// padding is written. `(R, D), (n) -> (n, D)`.
    Gather = "gather" {
        /// The caller promises that no row is asked for twice, which makes the gradient a plain scatter.
        unique: bool,
    },

    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, String> {
        let [table, index] = arity(args)?;
        if table.dtype != DType::F32 || table.rank() != 2 || index.dtype != DType::U32 || index.rank() != 1 {
            return Err("takes f32[R,D] and u32[n]".into());
        }
        Ok(TensorType::f32([index.shape[0], table.shape[1]]))
    }

    fn eval(&self, args: &[&Tensor], ty: &TensorType) -> Tensor {
        let rows = args[0].ty.shape[0] as f64;
        Tensor::from_fn(ty, |at| {
            let row = args[1].data[at[0]];
            if row < rows { args[0].at(&[row as usize, at[1]]) } else { 0.0 }
        })
    }

    // d_table[r] = sum of dy[i] over all i with index[i] = r
    fn grad(&self, cx: &mut Backward<'_>) {
        cx.give(0, |cx| {
            let rows = cx.graph.shape(cx.args[0])[0];
            cx.graph.scatter(cx.dy, cx.args[1], rows, self.unique)
        });
    }

    fn class(&self) -> Class {
        Class::Kernel
    }

    fn samples() -> Vec<Sample> {
        vec![
            Sample::new(Gather { unique: false }).f32(&[5, 3]).arg(DType::U32, &[9], Gen::Index(7)),
            Sample::new(Gather { unique: false }).f32(&[5, 8]).arg(DType::U32, &[9], Gen::Index(6)),
            Sample::new(Gather { unique: true }).f32(&[8, 4]).arg(DType::U32, &[6], Gen::Distinct(9)),
        ]
    }
}
