//! Visual tokens that are added again in the middle of the decoder (VIRAL, equations 3 and 7).

use viral_compiler::{Graph, Value};

use super::leaf::{Leaves, Trainable};
use super::llava::Visual;
use crate::config::TextConfig;

/// What [`hidden_states`](super::llama::hidden_states) adds to the residual stream.
#[derive(Clone, Debug)]
pub struct Residual {
    /// The layers, counted from 1, behind which it is added. Others have no effect.
    pub layers: Vec<usize>,
    /// What is added, zeros where nothing is. // (B, T, D)
    pub value: Value,
}

/// The visual tokens at their positions and zeros elsewhere, as `like (B, T, D)`.
pub fn at_positions(g: &mut Graph, visual: Visual, like: Value) -> Value {
    let shape = g.shape(like).to_vec();
    let rows = visual.rows(g);
    g.reshape(rows, &shape)
}

/// The light adapter of equation 7, one linear layer: features `(M, Dz)` to rows `(M, D)`. The paper leaves its form open.
pub fn adapter(g: &mut Graph, config: &TextConfig, trainable: Trainable, features: Value) -> Value {
    let leaves = Leaves::new(ADAPTER, trainable);
    g.scoped(ADAPTER, |g| leaves.linear(g, "linear", features, config.hidden_size, true))
}

/// Prefix of the adapter's tensors.
const ADAPTER: &str = "residual_projector";
