//! `uniform(counter, key)`: random numbers as a pure function of a counter.

use super::rule::{Class, Gen, Sample, arity, same_shape};
use crate::grad::Backward;
use crate::tensor::Tensor;
use crate::types::{DType, TensorType};

op! {
    /// Uniform reals in [0, 1) from a counter and a key: two rounds of the PCG output permutation over 32 bits.
    /// The same counter and key give the same number on every device.
    /// Reference: M. Jarzynski and M. Olano, Hash Functions for GPU Rendering, JCGT 9(3), 2020.
    Uniform = "uniform" {},

    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, String> {
        arity::<2>(args)?;
        Ok(TensorType::f32(same_shape(args, DType::U32)?.shape))
    }

    fn eval(&self, args: &[&Tensor], ty: &TensorType) -> Tensor {
        Tensor::map(args, ty, |x| {
            let bits = pcg(pcg(x[0] as u32).wrapping_add(x[1] as u32));
            f64::from(bits >> 8) / f64::from(1u32 << 24)
        })
    }

    fn grad(&self, _cx: &mut Backward<'_>) {}

    fn class(&self) -> Class {
        Class::Elementwise
    }

    fn wgsl(&self, args: &[&str]) -> String {
        format!("uniform01({}, {})", args[0], args[1])
    }

    fn samples() -> Vec<Sample> {
        vec![Sample::new(Uniform {}).arg(DType::U32, &[5, 8], Gen::Index(1000)).arg(DType::U32, &[5, 8], Gen::Index(7))]
    }
}

fn pcg(x: u32) -> u32 {
    let state = x.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
    let word = ((state >> ((state >> 28) + 4)) ^ state).wrapping_mul(277_803_737);
    (word >> 22) ^ word
}
