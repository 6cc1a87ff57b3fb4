//! `pack_f16{edge}(x)`: matrices rounded to 16-bit floats, in whole tiles.

use viral_shaders::pack;

use super::rule::{Class, Gen, Sample, arity};
use crate::grad::Backward;
use crate::storage;
use crate::tensor::Tensor;
use crate::types::{DType, TensorType};

op! {
    /// The nearest 16-bit floats, filled up with zeros to an even number of tiles each way: `(…, R, C)` becomes
    /// `(…, R/E, C/E, E, E)`, what cooperative matrices multiply, two steps at a time. Finite numbers beyond ±65504 become that
    /// number. Compilation makes it, behind autodiff.
    PackF16 = "pack_f16" {
        /// Rows and columns of a tile: 8 or 16.
        edge: usize,
    },

    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, String> {
        let [x] = arity(args)?;
        if x.dtype != DType::F32 || x.rank() < 2 {
            return Err("takes matrices of reals".into());
        }
        if !matches!(self.edge, 8 | 16) {
            return Err(format!("no tiles of {} rows", self.edge));
        }
        let (leading, matrix) = x.shape.split_at(x.rank() - 2);
        let tiles = [0, 1].map(|axis| pack::tiles(matrix[axis] as u32, self.edge as u32) as usize);
        Ok(TensorType::new(DType::F16, [leading, &tiles, &[self.edge; 2]].concat()))
    }

    fn eval(&self, args: &[&Tensor], ty: &TensorType) -> Tensor {
        let rounded = |x: f64| f64::from(storage::round(DType::F16, x as f32));
        Tensor::from_fn(ty, |index| {
            let (leading, [i, j, row, column]) = index.split_last_chunk().unwrap_or((&[], &[0; 4]));
            let at = [leading, &[i * self.edge + row, j * self.edge + column]].concat();
            let is_inside = at.iter().zip(&args[0].ty.shape).all(|(i, extent)| i < extent);
            if is_inside { rounded(args[0].at(&at)) } else { 0.0 }
        })
    }

    fn grad(&self, _cx: &mut Backward<'_>) {}

    fn class(&self) -> Class {
        Class::Kernel
    }

    fn samples() -> Vec<Sample> {
        // Beyond the range of 16-bit floats, and where they have few digits.
        let sample = |edge, shape: &[usize], most: f64| {
            Sample::new(PackF16 { edge }).arg(DType::F32, shape, Gen::Uniform(-most, most))
        };
        vec![
            sample(8, &[5, 7], 70_000.0),
            sample(16, &[2, 3, 12, 20], 1.0),
            sample(8, &[9, 8], 1e-4),
            sample(8, &[1, 16], 3e-7),
        ]
    }
}
