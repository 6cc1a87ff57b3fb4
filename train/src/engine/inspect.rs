//! The training graph of one micro-batch laid open, for tests and analyses.

use std::collections::HashMap;

use viral_compiler::Graph;
use viral_compiler::ir::LeafKind;
use viral_compiler::tensor::Tensor;
use viral_compiler::types::TensorType;

use super::bundle::Bundle;
use super::session::micro_batch_inputs;
use super::{init, step_graph};
use crate::data::{MicroBatch, VraWeight};
use crate::error::{Error, Result};

/// The graph that a run computes for a micro-batch, and all that it reads.
///
/// Beside the run's own outputs (`losses`, and `NAME.grad` of every trained tensor) the graph has these, where the
/// micro-batch has them; B, T, I, J and S are those of its bucket, N visual tokens a picture or tile:
///
/// | name | is | shape |
/// | --- | --- | --- |
/// | `vision_features` | what the vision tower gives the projector | ((I+J)·N, Dz) |
/// | `targets` | the target's features | (I·N, d) |
/// | `hidden.K` | the decoder's state K from 0 to L, the last one normalised | (B, T, D) |
/// | `logits` | logits at the target positions | (S, V) |
#[derive(Clone)]
pub struct Inspection {
    /// The graph.
    pub graph: Graph,
    /// Content of every leaf: the micro-batch, frozen tensors, trained tensors as a run starts with them, and
    /// gradients of zero.
    pub leaves: HashMap<String, Tensor>,
}

impl Inspection {
    /// Lays open what a run does for `micro_batch` before its first update.
    ///
    /// # Errors
    /// A tensor that cannot be read.
    pub fn new(bundle: &Bundle, micro_batch: &MicroBatch) -> Result<Self> {
        let (config, networks, bucket) = (&bundle.config, &bundle.networks, micro_batch.batch.bucket);
        let shape = bucket.shape(&networks.llava);
        let (mut graph, landmarks) = step_graph::build_whole(config, networks, shape);
        for (name, value) in landmarks {
            graph.output(name, value);
        }

        let vra_weight = VraWeight::new(&config.vra, bundle.step_plan().steps());
        let inputs: HashMap<_, _> = micro_batch_inputs(config, vra_weight, 1.0, micro_batch).into_iter().collect();
        let mut leaves = HashMap::new();
        for leaf in graph.leaves() {
            let unknown = || Error::internal("a leaf of the training graph has no content of its shape", leaf.name);
            let tensor = match leaf.kind {
                LeafKind::Input => Tensor::from_bytes(leaf.ty, inputs.get(leaf.name).ok_or_else(unknown)?),
                LeafKind::Weight => f32s(leaf.ty, &init::whole(bundle, leaf.name, leaf.ty)?).ok_or_else(unknown)?,
                LeafKind::Param => f32s(leaf.ty, &init::value(bundle, leaf.name, leaf.ty)?).ok_or_else(unknown)?,
                LeafKind::State => Tensor::new(leaf.ty.clone(), vec![0.0; leaf.ty.len()]),
            };
            leaves.insert(leaf.name.to_owned(), tensor);
        }
        Ok(Self { graph, leaves })
    }
}

/// The values as a tensor, if they are as many as the type has.
fn f32s(ty: &TensorType, values: &[f32]) -> Option<Tensor> {
    let fits = values.len() == ty.len();
    fits.then(|| Tensor::new(ty.clone(), values.iter().map(|&value| f64::from(value)).collect()))
}
