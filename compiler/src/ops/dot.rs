//! `dot(a, b)`: batched matrix product.

use super::rule::{Class, Sample, arity};
use crate::grad::Backward;
use crate::tensor::Tensor;
use crate::types::{DType, TensorType};

op! {
    /// Matrix product over the last two axes: `(…, M, K) · (…, K, N) = (…, M, N)`, with equal leading axes.
    Dot = "dot" {},

    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, String> {
        let [a, b] = arity(args)?;
        let rank = a.rank();
        if a.dtype != DType::F32 || b.dtype != DType::F32 {
            return Err("multiplies reals".into());
        }
        if rank < 2 || b.rank() != rank || a.shape[..rank - 2] != b.shape[..rank - 2] {
            return Err("takes matrices with equal leading axes".into());
        }
        if a.shape[rank - 1] != b.shape[rank - 2] {
            return Err(format!("{} columns do not meet {} rows", a.shape[rank - 1], b.shape[rank - 2]));
        }
        let mut shape = a.shape.clone();
        shape[rank - 1] = b.shape[rank - 1];
        Ok(TensorType::f32(shape))
    }

    fn eval(&self, args: &[&Tensor], ty: &TensorType) -> Tensor {
        let rank = ty.rank();
        let (m, n, k) = (ty.shape[rank - 2], ty.shape[rank - 1], args[0].ty.shape[rank - 1]);
        let mut data = vec![0.0; ty.len()];
        for (batch, c) in data.chunks_exact_mut((m * n).max(1)).enumerate() {
            let (a, b) = (&args[0].data[batch * m * k..], &args[1].data[batch * k * n..]);
            for i in 0..m {
                for p in 0..k {
                    for j in 0..n {
                        c[i * n + j] += a[i * k + p] * b[p * n + j];
                    }
                }
            }
        }
        Tensor { ty: ty.clone(), data }
    }

    // da = dy · bᵀ, db = aᵀ · dy
    fn grad(&self, cx: &mut Backward<'_>) {
        cx.give(0, |cx| {
            let bt = cx.graph.transpose(cx.args[1]);
            cx.graph.dot(cx.dy, bt)
        });
        cx.give(1, |cx| {
            let at = cx.graph.transpose(cx.args[0]);
            cx.graph.dot(at, cx.dy)
        });
    }

    fn class(&self) -> Class {
        Class::Kernel
    }

    fn by_rows(&self, args: &[&TensorType]) -> Option<Vec<usize>> {
        (args[0].rank() == 2).then(|| vec![0])
    }

    fn samples() -> Vec<Sample> {
        vec![
            Sample::new(Dot {}).f32(&[5, 7]).f32(&[7, 3]),
            Sample::new(Dot {}).f32(&[8, 12]).f32(&[12, 16]),
            Sample::new(Dot {}).f32(&[2, 3, 4, 5]).f32(&[2, 3, 5, 6]),
            Sample::new(Dot {}).f32(&[1, 70]).f32(&[70, 66]),
        ]
    }
}
