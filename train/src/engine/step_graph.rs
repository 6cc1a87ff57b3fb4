//! The graph of a micro-batch: pixels and tokens in, losses out, gradients added to what earlier micro-batches left.
//!
//! ```text
//! pixels ─ tower ─ projector ┐
//! tokens ─ embeddings ───────┴─ decoder with LoRA ─ head ─ cross-entropy ─┐
//!                                   └─ states at target layers ─ P ─┐     ├─ loss ─ gradients
//! pixels ─ teacher ─────────────────────────────────────────────────┴─ VRA ┘
//! ```

use viral_compiler::grad::gradients;
use viral_compiler::ir::LeafKind;
use viral_compiler::types::DType;
use viral_compiler::{Graph, Value};
use viral_model::graph::llava::{self, Visual};
use viral_model::graph::{
    Adapters, BatchInput, BatchShape, Dropout, LinearMap, Trainable, llama, projector, teachers, vision,
};

use super::bundle::Networks;
use crate::config::Config;
use crate::objectives::{self, Alignment};

/// Input with the numbers that change from step to step: the share of this micro-batch in the step, and the weight of
/// the alignment loss.
pub(crate) const SCALARS: &str = "step_scalars";
/// Output with the micro-batch's language-model loss and alignment loss.
pub(crate) const LOSSES: &str = "losses";

/// Name of the tensor that collects a parameter's gradient over the micro-batches of a step.
pub(crate) fn gradient_name(param: &str) -> String {
    format!("{param}.grad")
}

/// Builds the graph for micro-batches of one shape.
pub(crate) fn build(config: &Config, networks: &Networks, shape: BatchShape) -> Graph {
    build_with_landmarks(config, networks, shape).0
}

/// As [`build`], and what lies between inputs and losses, by the names that [`super::Inspection`] lists.
pub(crate) fn build_with_landmarks(
    config: &Config,
    networks: &Networks,
    shape: BatchShape,
) -> (Graph, Vec<(String, Value)>) {
    let mut g = Graph::new();
    let scalars = g.input(SCALARS, DType::F32, &[2]);
    let scalar = |g: &mut Graph, at| {
        let one = g.slice(scalars, 0, at, 1);
        g.reshape(one, &[])
    };
    let (share, vra_weight) = (scalar(&mut g, 0), scalar(&mut g, 1));

    let forward = forward(&mut g, config, networks, shape);
    let language = g.scoped("loss_lm", |g| language_loss(g, networks, shape, &forward));
    let alignment = g.scoped("loss_vra", |g| alignment_loss(g, config, networks, shape, &forward));
    let (lm, vra) = (language.loss, alignment.as_ref().map(|alignment| alignment.loss));

    let mut loss = lm;
    if let Some(vra) = vra {
        let weighted = g.mul(vra, vra_weight);
        loss = g.add(loss, weighted);
    }
    let loss = g.mul(loss, share);
    accumulate_gradients(&mut g, loss);

    let zero = g.constant(DType::F32, 0.0, &[]);
    let parts = [lm, vra.unwrap_or(zero)].map(|part| g.reshape(part, &[1]));
    let losses = g.concat(&parts, 0);
    g.output(LOSSES, losses);

    let states = forward.states.iter().enumerate().map(|(index, &state)| (format!("hidden.{index}"), state));
    let mut landmarks: Vec<(String, Value)> = states.collect();
    landmarks.push(("logits".into(), language.logits));
    landmarks.extend(forward.features.map(|features| ("vision_features".into(), features)));
    landmarks.extend(alignment.map(|alignment| ("targets".into(), alignment.targets)));
    (g, landmarks)
}

/// What the losses are made of.
struct Forward {
    /// Pixels, where the micro-batch has pictures. // (I, 3, H, W)
    pixels: Option<Value>,
    /// What the vision tower makes of them. // (I·N, Dz)
    features: Option<Value>,
    /// All states of the decoder, the last one normalised. // L+1 of (B, T, D)
    states: Vec<Value>,
}

/// The language-model loss, and what it is taken from.
struct Language {
    /// Logits of the target rows. // (S, V)
    logits: Value,
    loss: Value,
}

/// The alignment loss, and what the decoder's states are compared with.
struct Aligned {
    /// The teacher's features. // (I·N, d)
    targets: Value,
    loss: Value,
}

/// Which tensors the configuration trains.
pub(crate) fn trainable(config: &Config) -> Trainable {
    Trainable { alignment: !config.vra.projector_frozen, ..Trainable::LORA }
}

fn forward(g: &mut Graph, config: &Config, networks: &Networks, shape: BatchShape) -> Forward {
    let (llava, trainable) = (&networks.llava, trainable(config));
    let pixels = (shape.images > 0).then(|| shape.input(g, BatchInput::Pixels));
    let features = pixels.map(|pixels| vision::features(g, llava, pixels));
    let visual = features.map(|features| {
        let tokens = g.scoped("multi_modal_projector", |g| projector::multi_modal(g, llava, trainable, features));
        Visual { tokens, index: shape.input(g, BatchInput::VisualIndex) }
    });
    let token_ids = shape.input(g, BatchInput::TokenIds);
    let h0 = llava::embed(g, &llava.text, trainable, [shape.batch, shape.tokens], token_ids, visual);
    let dropout = (config.lora.dropout > 0.0)
        .then(|| Dropout { p: config.lora.dropout, key: shape.input(g, BatchInput::DropoutKey) });
    let targets = config.lora.targets.iter().filter_map(|target| LinearMap::from_name(target.name())).collect();
    let adapters = Adapters { rank: config.lora.r, alpha: config.lora.alpha, dropout, targets };
    let states = llama::hidden_states(g, &llava.text, Some(&adapters), trainable, h0);
    Forward { pixels, features, states }
}

/// Mean negative log-likelihood of the supervised tokens.
fn language_loss(g: &mut Graph, networks: &Networks, shape: BatchShape, forward: &Forward) -> Language {
    let last = forward.states[forward.states.len() - 1];
    let positions = shape.input(g, BatchInput::TargetPositions);
    let logits = llava::logits_at(g, &networks.llava.text, Trainable::LORA, last, positions);
    let targets = shape.input(g, BatchInput::TargetIds);
    let nll = g.cross_entropy(logits, targets);
    let weights = shape.input(g, BatchInput::TargetWeights);
    let weighted = g.mul(nll, weights);
    Language { logits, loss: g.sum_all(weighted) }
}

/// The alignment loss, where it is wanted and the micro-batch has pictures.
fn alignment_loss(
    g: &mut Graph,
    config: &Config,
    networks: &Networks,
    shape: BatchShape,
    forward: &Forward,
) -> Option<Aligned> {
    let (teacher, pixels) = (networks.teacher.as_ref()?, forward.pixels?);
    let targets = teachers::targets(g, &**teacher, &networks.input_path(config), pixels);
    let positions = shape.input(g, BatchInput::VraPositions);
    let states = config.vra.layers.iter().map(|&layer| llava::rows_at(g, forward.states[layer], positions)).collect();
    let weights = shape.input(g, BatchInput::VraWeights);
    let alignment = Alignment { config: &config.vra, states, targets, weights, trainable: trainable(config) };
    Some(Aligned { targets, loss: objectives::build(g, config.vra.objective, &alignment) })
}

/// Adds to each parameter's gradient tensor; an output of the tensor's own name replaces it.
fn accumulate_gradients(g: &mut Graph, loss: Value) {
    let params: Vec<(String, Value)> =
        g.leaves().filter(|leaf| leaf.kind == LeafKind::Param).map(|leaf| (leaf.name.to_owned(), leaf.value)).collect();
    let wanted: Vec<Value> = params.iter().map(|&(_, value)| value).collect();
    for ((name, value), gradient) in params.iter().zip(gradients(g, loss, &wanted)) {
        let Some(gradient) = gradient else { continue };
        let name = gradient_name(name);
        let shape = g.shape(*value).to_vec();
        let earlier = g.state(name.clone(), &shape);
        let sum = g.add(earlier, gradient);
        g.set_name(sum, name.clone());
        g.output(name, sum);
    }
}
