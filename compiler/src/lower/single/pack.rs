//! Operands of products on cooperative matrices.

use viral_shaders::{Target, pack};

use super::super::Step;
use super::super::body::Obstacle;
use super::Context;
use super::dot::Batch;
use crate::ir::Value;

impl Context<'_> {
    /// Rounds `x`, a strided view in any storage, into dense tiles.
    pub(super) fn pack(&self, x: Value, target: &Target) -> Result<Step, Obstacle> {
        let shape = self.graph.shape(x);
        let rank = shape.len();
        let (root, at) = self.strided(x, shape)?;
        let batch = Batch::new(&shape[..rank - 2], [&at; 3]).ok_or(Obstacle::NeedsMemory(x))?;
        if at.offset < 0 || at.terms.iter().any(|&term| term < 0) {
            return Err(Obstacle::NeedsMemory(x));
        }
        let packed = self.graph.shape(self.value);
        let edge = packed[packed.len() - 1] as u32;
        let problem = pack::Problem {
            batch: batch.extents,
            rows: shape[rank - 2] as u32,
            columns: shape[rank - 1] as u32,
            edge,
            offset: at.offset as u32,
            row_stride: at.terms[rank - 2] as u32,
            column_stride: at.terms[rank - 1] as u32,
            batch_strides: batch.strides[0],
            scales: self.graph.ty(root).scales(),
        };
        let source = self.graph.ty(root).dtype.storage().unwrap_or_default();
        let launch = pack::launch(&problem, target);
        let operations = self.graph.ty(self.value).len() as u64;
        Ok(self.step(pack::kernel(source, problem.vec4(), edge), launch, vec![root], false, operations))
    }
}
