//! `dot_tiles{a_transposed, b_transposed, parts}(a, b)`: matrix product of packed operands.

use super::rule::{Class, Sample, arity};
use crate::grad::Backward;
use crate::tensor::Tensor;
use crate::types::{DType, TensorType, row_major_place};

op! {
    /// Product of matrices in tiles, as [`PackF16`](super::pack_f16::PackF16) makes them: `(…, M/E, K/E, E, E)` times
    /// `(…, K/E, N/E, E, E)` is `(…, M, N)`. A transposed operand holds the tiles of its transpose. With several `parts` the
    /// sums are cut and the result is `(parts, M, N)`: their sum is the product. Compilation makes it, behind autodiff.
    DotTiles = "dot_tiles" {
        /// Whether `a` holds the tiles of a matrix `(K, M)`.
        a_transposed: bool,
        /// Whether `b` holds the tiles of a matrix `(N, K)`.
        b_transposed: bool,
        /// Parts that the sums are cut into, all but the last of the same even number of tiles.
        parts: usize,
    },

    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, String> {
        let [a, b] = arity(args)?;
        let rank = a.rank();
        if a.dtype != DType::F16 || b.dtype != DType::F16 || rank < 4 || b.rank() != rank {
            return Err("takes matrices in tiles of 16-bit floats".into());
        }
        let edge = a.shape[rank - 1];
        if [a, b].iter().any(|ty| ty.shape[rank - 2..] != [edge; 2]) || a.shape[..rank - 4] != b.shape[..rank - 4] {
            return Err("takes tiles of one size and equal leading axes".into());
        }
        let ([m, k], [terms, n]) = (self.tiles(0, a), self.tiles(1, b));
        if k != terms {
            return Err(format!("{k} columns of tiles do not meet {terms} rows"));
        }
        if self.parts == 0 || self.parts > k || (self.parts > 1 && rank > 4) {
            return Err(format!("cannot cut sums over {k} tiles into {} parts", self.parts));
        }
        let leading = if self.parts > 1 { &[self.parts] } else { &a.shape[..rank - 4] };
        Ok(TensorType::f32([leading, &[m * edge, n * edge]].concat()))
    }

    fn eval(&self, args: &[&Tensor], ty: &TensorType) -> Tensor {
        let rank = args[0].ty.rank();
        let edge = args[0].ty.shape[rank - 1];
        let ([_, tiles], out) = (self.tiles(0, &args[0].ty), ty.rank());
        let length = edge * tiles.div_ceil(2 * self.parts) * 2;
        let element = |which: usize, matrix: usize, row: usize, column: usize| {
            let transposed = if which == 0 { self.a_transposed } else { self.b_transposed };
            let (row, column) = if transposed { (column, row) } else { (row, column) };
            let Tensor { ty, data } = args[which];
            let tile = (matrix * ty.shape[rank - 4] + row / edge) * ty.shape[rank - 3] + column / edge;
            data[(tile * edge + row % edge) * edge + column % edge]
        };
        Tensor::from_fn(ty, |index| {
            let leading = row_major_place(&index[..out - 2], &ty.shape[..out - 2]);
            let (part, matrix) = if self.parts > 1 { (leading, 0) } else { (0, leading) };
            let terms = part * length..((part + 1) * length).min(tiles * edge);
            let (row, column) = (index[out - 2], index[out - 1]);
            terms.map(|k| element(0, matrix, row, k) * element(1, matrix, k, column)).sum()
        })
    }

    fn grad(&self, _cx: &mut Backward<'_>) {}

    fn class(&self) -> Class {
        Class::Kernel
    }

    // Kernels of it need cooperative matrices: `tests/kernels/cooperative.rs` has them.
    fn samples() -> Vec<Sample> {
        Vec::new()
    }
}

impl DotTiles {
    /// Rows and columns in tiles of the `which`-th factor, as it is multiplied.
    pub(crate) fn tiles(&self, which: usize, ty: &TensorType) -> [usize; 2] {
        let [rows, columns] = [ty.shape[ty.rank() - 4], ty.shape[ty.rank() - 3]];
        if [self.a_transposed, self.b_transposed][which] { [columns, rows] } else { [rows, columns] }
    }
}
