//! Alignment objectives, one file each. Adding one is a file and a line in [`build`].

mod cosine;
mod relation;

use viral_compiler::{Graph, Value};
use viral_model::graph::{Trainable, projector};

use crate::config::{Objective, VraConfig};

/// What an objective sees: the decoder's states at the visual tokens of all pictures, and the targets for them.
#[derive(Clone, Debug)]
pub struct Alignment<'a> {
    /// The user's choices.
    pub config: &'a VraConfig,
    /// For each target layer the states at visual tokens. // (I·N, D)
    pub states: Vec<Value>,
    /// The target's features. // (I·N, d)
    pub targets: Value,
    /// N, visual tokens of a picture.
    pub visual_tokens: usize,
    /// Weight of each visual token; they add up to 1, or to 0 if no picture takes part. // (I·N)
    pub weights: Value,
    /// Which tensors are trained.
    pub trainable: Trainable,
}

/// Output with the loss of one target layer.
pub fn layer_output(layer: usize) -> String {
    format!("loss_vra.{layer}")
}

/// Adds the objective's loss to the graph: a scalar, the mean over target layers. Each
/// layer's own loss becomes an output, [`layer_output`].
pub fn build(g: &mut Graph, objective: Objective, alignment: &Alignment<'_>) -> Value {
    let terms: Vec<Value> = (0..alignment.states.len())
        .map(|position| match objective {
            Objective::Cosine => cosine::term(g, alignment, position),
            Objective::Relation => relation::term(g, alignment, position),
        })
        .collect();
    for (layer, &term) in alignment.config.layers.iter().zip(&terms) {
        let term = g.reshape(term, &[1]);
        g.output(layer_output(*layer), term);
    }
    mean(g, &terms)
}

impl Alignment<'_> {
    /// States of the target layer at `position` in the space of the targets, `(I·N, d)`.
    fn projected(&self, g: &mut Graph, position: usize) -> Value {
        let outputs = g.shape(self.targets).get(1).copied().unwrap_or(1);
        let index = self.config.multiple_projectors.then_some(position);
        let projector = projector::Alignment { hidden: self.config.projector_dim, outputs, index };
        projector.project(g, self.trainable, self.states[position])
    }
}

fn mean(g: &mut Graph, terms: &[Value]) -> Value {
    let sum = terms.iter().copied().reduce(|sum, term| g.add(sum, term));
    let sum = sum.unwrap_or_else(|| g.constant(viral_compiler::types::DType::F32, 0.0, &[]));
    g.scale(sum, 1.0 / terms.len().max(1) as f64)
}
