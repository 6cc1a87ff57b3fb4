//! `sum{axes}(x)`: sum over axes.

use super::rule::{Class, Sample, arity};
use crate::grad::Backward;
use crate::tensor::{Tensor, for_each_index};
use crate::types::{DType, TensorType, row_major_strides};

op! {
    /// Sum over the given axes, which keep extent 1.
    Sum = "sum" {
        /// Ascending axes.
        axes: Vec<usize>,
    },

    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, String> {
        reduced_type(&self.axes, args)
    }

    fn eval(&self, args: &[&Tensor], ty: &TensorType) -> Tensor {
        reduce(args[0], ty, 0.0, |acc, x| acc + x)
    }

    // dx = dy, repeated along the axes
    fn grad(&self, cx: &mut Backward<'_>) {
        cx.give(0, |cx| {
            let shape = cx.graph.shape(cx.args[0]).to_vec();
            cx.graph.expand(cx.dy, &shape)
        });
    }

    fn class(&self) -> Class {
        Class::Reduction
    }

    fn samples() -> Vec<Sample> {
        let sum = |axes: &[usize]| Sample::new(Sum { axes: axes.to_vec() });
        vec![
            sum(&[1]).f32(&[3, 37]),
            sum(&[0]).f32(&[37, 5]),
            sum(&[1]).f32(&[2, 9, 4]),
            sum(&[0, 2]).f32(&[3, 2, 5]),
            sum(&[0, 1]).f32(&[33, 7]),
            sum(&[0]).f32(&[1300, 3]),
            // Long enough to be cut into pieces.
            sum(&[0]).f32(&[5000]),
            sum(&[1]).f32(&[2, 2500, 3]),
        ]
    }
}

/// Type rule of reductions.
pub(super) fn reduced_type(axes: &[usize], args: &[&TensorType]) -> Result<TensorType, String> {
    let [x] = arity(args)?;
    if x.dtype != DType::F32 {
        return Err("reduces reals".into());
    }
    if axes.is_empty() || axes.windows(2).any(|w| w[0] >= w[1]) || axes.iter().any(|&a| a >= x.rank()) {
        return Err(format!("axes {axes:?} are not an ascending list of axes of {x}"));
    }
    let mut shape = x.shape.clone();
    for &axis in axes {
        shape[axis] = 1;
    }
    Ok(TensorType::f32(shape))
}

/// Folds the axes that have extent 1 in the result.
pub(super) fn reduce(x: &Tensor, ty: &TensorType, start: f64, fold: impl Fn(f64, f64) -> f64) -> Tensor {
    let mut result = Tensor { ty: ty.clone(), data: vec![start; ty.len()] };
    let strides = row_major_strides(&ty.shape);
    let mut position = 0;
    for_each_index(&x.ty.shape, |index| {
        let target: usize = index.iter().zip(&strides).zip(&ty.shape).map(|((i, s), n)| if *n == 1 { 0 } else { i * s }).sum();
        result.data[target] = fold(result.data[target], x.data[position]);
        position += 1;
    });
    result
}
