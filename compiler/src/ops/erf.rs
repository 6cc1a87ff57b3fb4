//! `erf(x)`: error function.

use super::rule::{Class, Gen, Sample, arity, same_shape};
use crate::grad::Backward;
use crate::tensor::Tensor;
use crate::types::{DType, TensorType};

op! {
    /// Error function.
    Erf = "erf" {},

    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, String> {
        arity::<1>(args)?;
        same_shape(args, DType::F32)
    }

    fn eval(&self, args: &[&Tensor], ty: &TensorType) -> Tensor {
        Tensor::map(args, ty, |x| erf(x[0]))
    }

    // dx = dy · 2/sqrt(pi) · exp(-x²)
    fn grad(&self, cx: &mut Backward<'_>) {
        cx.give(0, |cx| {
            let square = cx.graph.mul(cx.args[0], cx.args[0]);
            let negative = cx.graph.neg(square);
            let bell = cx.graph.exp(negative);
            let slope = cx.graph.scale(bell, std::f64::consts::FRAC_2_SQRT_PI);
            cx.graph.mul(cx.dy, slope)
        });
    }

    fn class(&self) -> Class {
        Class::Elementwise
    }

    fn wgsl(&self, args: &[&str]) -> String {
        format!("erf({})", args[0])
    }

    fn samples() -> Vec<Sample> {
        vec![Sample::new(Erf {}).arg(DType::F32, &[3, 5], Gen::Uniform(-3.0, 3.0))]
    }
}

/// Error function in f64: a Taylor series near zero, a continued fraction in the tails; relative error below 1e-14.
fn erf(x: f64) -> f64 {
    let t = x.abs();
    let value = if t < 3.0 {
        // erf(t) = 2/sqrt(pi) · exp(-t²) · sum of 2^n t^(2n+1) / (1·3·…·(2n+1))
        let (mut term, mut sum, mut n) = (t, t, 0.0);
        while term > sum * 1e-17 {
            n += 1.0;
            term *= 2.0 * t * t / (2.0 * n + 1.0);
            sum += term;
        }
        std::f64::consts::FRAC_2_SQRT_PI * (-t * t).exp() * sum
    } else {
        let fraction = (1..=60).rev().fold(t, |tail, n| t + f64::from(n) / 2.0 / tail);
        1.0 - (-t * t).exp() / (fraction * std::f64::consts::PI.sqrt())
    };
    value.copysign(x)
}
