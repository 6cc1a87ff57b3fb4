//! Alignment objectives, one file each; adding one is a file and a line in [`build`]. And reconstruction, [`ross`].

mod cosine;
mod relation;
pub mod ross;

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
        .map(|position| {
            let features = alignment.features(g, position);
            match objective {
                Objective::Cosine => cosine::term(g, features, alignment),
                Objective::Relation => relation::term(g, features, alignment),
            }
        })
        .collect();
    for (layer, &term) in alignment.config.layers.iter().zip(&terms) {
        let term = g.reshape(term, &[1]);
        g.output(layer_output(*layer), term);
    }
    mean(g, &terms)
}

impl Alignment<'_> {
    /// What is compared of the target layer at `position`: its states, in the space of the targets if a projector takes
    /// them there, `(I·N, d)`.
    fn features(&self, g: &mut Graph, position: usize) -> Value {
        if !self.config.use_projector {
            return self.states[position];
        }
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

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use viral_compiler::eval::evaluate_outputs;
    use viral_compiler::tensor::Tensor;
    use viral_compiler::types::{DType, TensorType};

    use super::*;

    /// Four visual tokens of width three: `P[i][j] = sin(1 + 3i + j)`, `Y[i][j] = cos(0.5 i + j^2)`; P stands for what the
    /// projector yields. The numbers are PyTorch's in f64.
    #[test]
    fn one_picture_has_the_losses_of_pytorch() {
        let ty = TensorType::f32([4, 3]);
        let tensor = |value: &dyn Fn(f64, f64) -> f64| {
            let place = |at: usize| ((at / 3) as f64, (at % 3) as f64);
            Tensor::new(ty.clone(), (0..12).map(|at| value(place(at).0, place(at).1)).collect())
        };
        let leaves = HashMap::from([
            ("p".to_owned(), tensor(&|i, j| (1.0 + 3.0 * i + j).sin())),
            ("y".to_owned(), tensor(&|i, j| (0.5 * i + j * j).cos())),
        ]);
        let config = VraConfig { use_projector: false, ..VraConfig::default() };
        let trainable = Trainable::LORA;
        for (objective, expected) in [(Objective::Cosine, -0.128_427_287_6), (Objective::Relation, 1.369_673_945_3)] {
            let mut g = Graph::new();
            let [states, targets] = ["p", "y"].map(|name| g.input(name, DType::F32, &ty.shape));
            let weights = g.constant(DType::F32, 0.25, &[4]);
            let alignment =
                Alignment { config: &config, states: vec![states], targets, visual_tokens: 4, weights, trainable };
            let loss = build(&mut g, objective, &alignment);
            g.output("loss", loss);
            g.verify().unwrap();
            let loss = evaluate_outputs(&g, &leaves).unwrap()["loss"].data[0];
            assert!((loss - expected).abs() < 1e-9, "{objective:?}: {loss}");
        }
    }
}
