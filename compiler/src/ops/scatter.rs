//! `scatter{rows, unique}(x, index)`: rows added into a table of zeros.

use super::rule::{Class, Gen, Sample, arity};
use crate::grad::Backward;
use crate::tensor::Tensor;
use crate::types::{DType, TensorType};

op! {
    /// Adds row `i` of `x` to row `index[i]` of a table of zeros; an index beyond the table is skipped.
    /// `(n, D), (n) -> (rows, D)`. Rows are added in ascending `i`, so the result has the same bits every time.
    Scatter = "scatter" {
        /// Rows of the table.
        rows: usize,
        /// The caller promises that no row is written twice.
        unique: bool,
    },

    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, String> {
        let [x, index] = arity(args)?;
        if x.dtype != DType::F32 || x.rank() != 2 || index.dtype != DType::U32 || index.shape != x.shape[..1] {
            return Err("takes f32[n,D] and u32[n]".into());
        }
        Ok(TensorType::f32([self.rows, x.shape[1]]))
    }

    fn eval(&self, args: &[&Tensor], ty: &TensorType) -> Tensor {
        let width = ty.shape[1];
        let mut result = Tensor { ty: ty.clone(), data: vec![0.0; ty.len()] };
        for (i, &row) in args[1].data.iter().enumerate().filter(|(_, row)| **row < self.rows as f64) {
            for column in 0..width {
                result.data[row as usize * width + column] += args[0].data[i * width + column];
            }
        }
        result
    }

    // dx[i] = dy[index[i]]
    fn grad(&self, cx: &mut Backward<'_>) {
        cx.give(0, |cx| cx.graph.gather(cx.dy, cx.args[1], self.unique));
    }

    fn class(&self) -> Class {
        Class::Kernel
    }

    fn samples() -> Vec<Sample> {
        vec![
            Sample::new(Scatter { rows: 5, unique: false }).f32(&[9, 3]).arg(DType::U32, &[9], Gen::Index(7)),
            Sample::new(Scatter { rows: 9, unique: true }).f32(&[6, 8]).arg(DType::U32, &[6], Gen::Distinct(11)),
        ]
    }
}
