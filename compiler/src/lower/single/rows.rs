//! Whole rows, moved along a list of row numbers.

use viral_shaders::{Storage, Target, rows};

use super::super::Step;
use super::super::body::Obstacle;
use super::Context;
use crate::ir::Value;

impl Context<'_> {
    /// A kernel that moves rows of `x` to or from where `index` says.
    pub(super) fn rows(&self, op: rows::Op, x: Value, index: Value, target: &Target) -> Result<Step, Obstacle> {
        let (x_root, index_root) = (self.dense(x)?, self.dense(index)?);
        let source = self.graph.ty(x_root).dtype.storage().unwrap_or_default();
        // Only tables are read in other types: what is scattered is computed.
        if source != Storage::F32 && op != rows::Op::Gather {
            return Err(Obstacle::NeedsMemory(x));
        }
        let tall = if op == rows::Op::Gather { x } else { self.value };
        let problem = rows::Problem {
            rows: self.graph.shape(tall)[0] as u32,
            count: self.graph.shape(index)[0] as u32,
            width: self.graph.shape(self.value)[1] as u32,
            scales: self.graph.ty(x_root).scales(),
        };
        let vec4 = problem.vec4();
        let launch = rows::launch(op, vec4, &problem, target);
        let needs_zeros = op == rows::Op::Scatter;
        Ok(self.step(rows::kernel(op, source, vec4), launch, vec![index_root, x_root], needs_zeros, 0))
    }
}
