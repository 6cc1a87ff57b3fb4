//! Rotary position embedding.

use viral_shaders::{Target, rope};

use super::super::Step;
use super::super::body::Obstacle;
use super::Context;
use crate::ir::Value;

impl Context<'_> {
    /// Heads of `args[0]`, turned by the angles of their positions.
    pub(super) fn rope(&self, args: &[Value], inverse: bool, target: &Target) -> Result<Step, Obstacle> {
        let (x_root, x) = self.heads(args[0])?;
        let (cos, sin) = (self.dense(args[1])?, self.dense(args[2])?);
        let [batch, positions, heads, width] = [0, 1, 2, 3].map(|axis: usize| self.graph.shape(args[0])[axis] as u32);
        let problem = rope::Problem { batch, positions, heads, width, x, inverse };
        let launch = rope::launch(&problem, target);
        let operations = 3 * self.graph.ty(self.value).len() as u64;
        Ok(self.step(rope::kernel(target), launch, vec![x_root, cos, sin], false, operations))
    }
}
