//! The two projectors: vision features to visual tokens, and decoder states to the teacher's width.

use viral_compiler::{Graph, Value};

use super::activation;
use super::leaf::{Leaves, Trainable};
use crate::config::{Activation, LlavaConfig};

/// LLaVA's `mlp2x_gelu`: features `(M, Dz)` to visual tokens `(M, D)`.
pub fn multi_modal(g: &mut Graph, config: &LlavaConfig, trainable: Trainable, features: Value) -> Value {
    let leaves = Leaves::new("model.multi_modal_projector", trainable);
    let (hidden, bias) = (config.text.hidden_size, config.projector_bias);
    g.scoped("multi_modal_projector", |g| {
        let x = leaves.linear(g, "linear_1", features, hidden, bias);
        let x = activation(g, config.projector_hidden_act, x);
        leaves.linear(g, "linear_2", x, hidden, bias)
    })
}

/// The alignment projector of VIRAL (equation 4): three linear layers with SiLU between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alignment {
    /// Width of the two inner layers.
    pub hidden: usize,
    /// Width of the target.
    pub outputs: usize,
    /// Which one, where every aligned layer has its own.
    pub index: Option<usize>,
}

impl Alignment {
    /// Decoder states `(M, D)` in the space of the target, `(M, outputs)`.
    pub fn project(&self, g: &mut Graph, trainable: Trainable, states: Value) -> Value {
        let name = match self.index {
            Some(index) => format!("alignment_projector.{index}"),
            None => "alignment_projector".to_owned(),
        };
        let leaves = Leaves::new(format!("{name}.projector"), trainable);
        g.scoped(name, |g| {
            let x = leaves.linear(g, "0", states, self.hidden, true);
            let x = activation(g, Activation::Silu, x);
            let x = leaves.linear(g, "2", x, self.hidden, true);
            let x = activation(g, Activation::Silu, x);
            leaves.linear(g, "4", x, self.outputs, true)
        })
    }
}
