//! Matrix products.

use viral_shaders::Target;
use viral_shaders::gemm::{self, Form, Operand, Problem, Spec};

use super::super::Step;
use super::super::affine::Affine;
use super::super::body::Obstacle;
use super::Context;
use crate::ir::Value;

impl Context<'_> {
    /// `C = A·B` with strided operands.
    pub(super) fn dot(&self, a: Value, b: Value, target: &Target) -> Result<Step, Obstacle> {
        let shape = self.graph.shape(self.value);
        let rank = shape.len();
        let (m, n) = (shape[rank - 2], shape[rank - 1]);
        let k = self.graph.shape(a)[rank - 1];
        let (a_root, a_at) = self.strided(a, self.graph.shape(a))?;
        let (b_root, b_at) = self.strided(b, self.graph.shape(b))?;
        let c_at = Affine::row_major(shape, 0..rank);
        let (a_transposed, a_row) = orientation(&a_at, m, k).ok_or(Obstacle::NeedsMemory(a))?;
        let (b_transposed, b_row) = orientation(&b_at, k, n).ok_or(Obstacle::NeedsMemory(b))?;
        let batch = Batch::new(&shape[..rank - 2], [&a_at, &b_at, &c_at]).ok_or(Obstacle::NeedsMemory(b))?;
        let operand = |at: &Affine, row: i64, which: usize| Operand {
            offset: at.offset as u32,
            row_stride: row as u32,
            batch_strides: batch.strides[which],
        };
        let form = match (a_transposed, b_transposed) {
            (false, false) => Form::NN,
            (false, true) => Form::NT,
            (true, false) => Form::TN,
            (true, true) => Form::TT,
        };
        let problem = Problem {
            batch: batch.extents,
            m: m as u32,
            n: n as u32,
            k: k as u32,
            alpha: 1.0,
            a: operand(&a_at, a_row, 0),
            b: operand(&b_at, b_row, 1),
            c: operand(&c_at, n as i64, 2),
        };
        let spec = Spec::fit(form, &problem);
        let launch = gemm::launch(&spec, &problem, target);
        let flops = 2 * self.graph.ty(self.value).len() as u64 * k as u64;
        Ok(self.step(gemm::kernel(&spec, target), launch, vec![a_root, b_root], false, flops))
    }
}

/// Whether a matrix of `(rows, columns)` is stored transposed, and the distance between its stored rows; `None` where
/// neither direction is contiguous.
fn orientation(at: &Affine, rows: usize, columns: usize) -> Option<(bool, i64)> {
    let rank = at.terms.len();
    let (row, column) = (at.terms[rank - 2], at.terms[rank - 1]);
    if column == 1 || columns == 1 {
        Some((false, row))
    } else if row == 1 || rows == 1 {
        Some((true, column))
    } else {
        None
    }
}

/// Leading axes of a product, joined to at most three.
struct Batch {
    extents: [u32; 3],
    /// Of A, B and C.
    strides: [[u32; 3]; 3],
}

impl Batch {
    fn new(extents: &[usize], operands: [&Affine; 3]) -> Option<Self> {
        // (extent, stride of each operand), innermost last.
        let mut joined: Vec<(i64, [i64; 3])> = Vec::new();
        for (axis, &extent) in extents.iter().enumerate().filter(|(_, extent)| **extent != 1) {
            let strides = operands.map(|at| at.terms[axis]);
            let extent = extent as i64;
            match joined.last_mut() {
                Some((outer, outer_strides)) if (0..3).all(|i| outer_strides[i] == strides[i] * extent) => {
                    *outer *= extent;
                    *outer_strides = strides;
                }
                _ => joined.push((extent, strides)),
            }
        }
        if joined.len() > 3 {
            return None;
        }
        while joined.len() < 3 {
            joined.insert(0, (1, [0; 3]));
        }
        let stride = |which: usize| [0, 1, 2].map(|axis: usize| joined[axis].1[which] as u32);
        Some(Self {
            extents: [0, 1, 2].map(|axis: usize| joined[axis].0 as u32),
            strides: [stride(0), stride(1), stride(2)],
        })
    }
}
