//! The graph of a micro-batch: pixels and tokens in, losses out, gradients added to what earlier micro-batches left.
//!
//! ```text
//! pixels ─ tower ─ projector ┐
//! tokens ─ embeddings ───────┴─ decoder with LoRA ─ head ─ cross-entropy ─┐
//!                                   └─ states at target layers ─ P ─┐     ├─ loss ─ gradients
//! pixels ─ teacher ─────────────────────────────────────────────────┴─ VRA ┘
//! ```
//!
//! With `[ross]`, pictures also become latents of an autoencoder, and a denoiser that reads a state adds a loss.
//!
//! What the frozen networks make of pictures is a graph of its own ([`build_features`]), which a run replays only for pictures
//! that it has not seen: the other graph takes it as inputs. [`build_whole`] is both in one, to look at.
//!
//! Instead of the teacher's, the targets may be CLIP's features or what the projector makes of them; instead of being
//! aligned, the visual tokens may be added again inside the decoder.

use viral_compiler::grad::gradients;
use viral_compiler::ir::LeafKind;
use viral_compiler::types::DType;
use viral_compiler::{Graph, Value};
use viral_model::graph::llava::{self, Visual};
use viral_model::graph::residual::{self, Residual};
use viral_model::graph::{
    Adapters, BatchInput, BatchShape, Dropout, LinearMap, Noise, Trainable, llama, projector, teachers, vae, vision,
};

use super::bundle::Networks;
use crate::config::{Config, Method, ResidualPositions, ResidualSource, RossMasking, Stage, VraTarget};
use crate::objectives::ross::{self, Reconstruction};
use crate::objectives::{self, Alignment};

/// Input with the numbers that change from step to step: the share of this micro-batch in the step, and the weights of
/// alignment and reconstruction loss.
pub(crate) const SCALARS: &str = "step_scalars";
/// Output with the micro-batch's language-model loss, alignment loss and reconstruction loss.
pub(crate) const LOSSES: &str = "losses";

/// Name of the tensor that collects a parameter's gradient over the micro-batches of a step.
pub(crate) fn gradient_name(param: &str) -> String {
    format!("{param}.grad")
}

/// Name of what the vision tower makes of the pictures.
pub(crate) const FEATURES: &str = "vision_features";
/// Name of what the teacher makes of them.
pub(crate) const TARGETS: &str = "vision_targets";
/// Name of what the autoencoder makes of them.
pub(crate) const LATENTS: &str = "vision_latents";
/// Name of what it makes of a picture that has nothing on it.
pub(crate) const BLANK: &str = "blank_latents";

/// Builds the graph for micro-batches of one shape, from features to gradients.
pub(crate) fn build(config: &Config, networks: &Networks, shape: BatchShape) -> Graph {
    let mut g = Graph::new();
    let frozen = given_frozen(&mut g, config, networks, shape);
    let forward = forward(&mut g, config, networks, shape, frozen, needed_tail(config, networks, shape));
    step(&mut g, config, networks, shape, forward);
    g
}

/// As [`build`], from features to losses: what the model makes of samples that it does not learn from. There is no dropout.
pub(crate) fn build_evaluation(config: &Config, networks: &Networks, shape: BatchShape) -> Graph {
    let mut g = Graph::new();
    let mut config = config.clone();
    config.lora.dropout = 0.0;
    let frozen = given_frozen(&mut g, &config, networks, shape);
    let forward = forward(&mut g, &config, networks, shape, frozen, needed_tail(&config, networks, shape));
    let losses = losses(&mut g, &config, networks, shape, forward);
    losses.output(&mut g);
    g
}

/// Builds the graph of the frozen networks for a number of pictures and one of tiles: [`FEATURES`] of all, and of the pictures
/// [`TARGETS`] if a teacher is asked, and [`LATENTS`] if they are wanted.
pub(crate) fn build_features(
    config: &Config,
    networks: &Networks,
    [images, tiles]: [usize; 2],
    latents: bool,
) -> Graph {
    let mut g = Graph::new();
    let shape = BatchShape::new(&networks.llava, images, networks.llava.visual_tokens() + 1, images, 1);
    let shape = shape.with_tiles(tiles);
    let frozen = frozen(&mut g, config, networks, shape);
    let outputs = [(FEATURES, Some(frozen.features)), (TARGETS, frozen.targets)];
    let latents = [(LATENTS, frozen.latents.filter(|_| latents))];
    for (name, value) in outputs.into_iter().chain(latents) {
        if let Some(value) = value {
            g.output(name, value);
        }
    }
    g
}

/// Builds the graph of [`BLANK`], which depends on no input.
pub(crate) fn build_blank(networks: &Networks) -> Graph {
    let mut g = Graph::new();
    if let Some(blank) = blank(&mut g, networks) {
        g.output(BLANK, blank);
    }
    g
}

/// Whether a micro-batch with this many pictures among its samples takes part in the reconstruction.
pub(crate) fn reconstructs(config: &Config, batch: usize, images: usize) -> bool {
    config.ross.enabled && images > 0 && (images == batch || config.ross.masking == RossMasking::Any)
}

/// Whether samples of it reconstruct a picture that they do not have.
pub(crate) fn needs_blank(config: &Config, batch: usize, images: usize) -> bool {
    reconstructs(config, batch, images) && images < batch
}

/// As [`build`] from pixels on, and what lies between inputs and losses, by the names that [`super::Inspection`] lists.
pub(crate) fn build_whole(config: &Config, networks: &Networks, shape: BatchShape) -> (Graph, Vec<(String, Value)>) {
    let mut g = Graph::new();
    let frozen = (shape.images > 0).then(|| frozen(&mut g, config, networks, shape));
    let forward = forward(&mut g, config, networks, shape, frozen, shape.tokens);
    let landmarks = step(&mut g, config, networks, shape, forward);
    (g, landmarks)
}

/// What the frozen networks make of the pictures, as inputs.
fn given_frozen(g: &mut Graph, config: &Config, networks: &Networks, shape: BatchShape) -> Option<Frozen> {
    (shape.images > 0).then(|| {
        let latents = reconstructs(config, shape.batch, shape.images);
        let frozen = build_features(config, networks, [shape.images, shape.tiles], latents);
        Frozen {
            features: given(g, &frozen, FEATURES),
            targets: wants_teacher(config).then(|| given(g, &frozen, TARGETS)),
            latents: latents.then(|| given(g, &frozen, LATENTS)),
            blank: needs_blank(config, shape.batch, shape.images).then(|| given(g, &build_blank(networks), BLANK)),
        }
    })
}

/// An input that is an output of another graph.
fn given(g: &mut Graph, from: &Graph, name: &str) -> Value {
    let output = from.outputs().iter().find(|(output, _)| output == name);
    let shape = output.map(|&(_, value)| from.shape(value).to_vec()).unwrap_or_default();
    g.input(name, DType::F32, &shape)
}

fn wants_teacher(config: &Config) -> bool {
    config.vra.enabled && config.vra.target == VraTarget::Teacher
}

/// What the networks that are never trained make of the pictures.
#[derive(Clone, Copy)]
struct Frozen {
    /// Of the vision tower. // ((I+J)·N, Dz)
    features: Value,
    /// Of the teacher, for whole pictures. // (I·N, d)
    targets: Option<Value>,
    /// Of the autoencoder. // (I·N, 2·C)
    latents: Option<Value>,
    /// Of the autoencoder, of a picture that has nothing on it. // (N, 2·C)
    blank: Option<Value>,
}

fn frozen(g: &mut Graph, config: &Config, networks: &Networks, shape: BatchShape) -> Frozen {
    let pixels = shape.input(g, BatchInput::Pixels);
    let features = vision::features(g, &networks.llava, pixels);
    let teacher = networks.teacher.as_ref().filter(|_| wants_teacher(config));
    let path = networks.input_path(config);
    let targets = teacher.map(|teacher| {
        g.scoped("loss_vra", |g| {
            let pictures = front(g, pixels, shape.images);
            teachers::targets(g, &**teacher, &path, pictures)
        })
    });
    let pictures = front(g, pixels, shape.images);
    let latents = latents(g, networks, pictures);
    let blank = if needs_blank(config, shape.batch, shape.images) { blank(g, networks) } else { None };
    Frozen { features, targets, latents, blank }
}

/// What the autoencoder makes of pictures, if there is one.
fn latents(g: &mut Graph, networks: &Networks, pixels: Value) -> Option<Value> {
    let (vae, grid) = (networks.vae.as_ref()?, networks.llava.visual_grid()?);
    Some(g.scoped("loss_ross", |g| vae::posterior(g, vae, networks.pixel_norm(), grid, pixels)))
}

/// The same of a picture whose normalised pixels are zero.
fn blank(g: &mut Graph, networks: &Networks) -> Option<Value> {
    let side = networks.llava.vision.image_size;
    let pixels = g.constant(DType::F32, 0.0, &[1, 3, side, side]);
    latents(g, networks, pixels)
}

/// The first `rows` along the first axis.
fn front(g: &mut Graph, x: Value, rows: usize) -> Value {
    if g.shape(x).first() == Some(&rows) { x } else { g.slice(x, 0, 0, rows) }
}

/// Losses and gradients. Returns what lies between.
fn step(
    g: &mut Graph,
    config: &Config,
    networks: &Networks,
    shape: BatchShape,
    forward: Forward,
) -> Vec<(String, Value)> {
    let scalars = g.input(SCALARS, DType::F32, &[3]);
    let scalar = |g: &mut Graph, at| {
        let one = g.slice(scalars, 0, at, 1);
        g.reshape(one, &[])
    };
    let (share, vra_weight, ross_weight) = (scalar(g, 0), scalar(g, 1), scalar(g, 2));

    let losses = losses(g, config, networks, shape, forward);
    let mut loss = losses.language.loss;
    let vra = losses.alignment.as_ref().map(|alignment| alignment.loss);
    for (part, weight) in [(vra, vra_weight), (losses.reconstruction, ross_weight)] {
        if let Some(part) = part {
            let weighted = g.mul(part, weight);
            loss = g.add(loss, weighted);
        }
    }
    let loss = g.mul(loss, share);
    accumulate_gradients(g, loss);
    losses.output(g);

    let Losses { forward, language, alignment, .. } = losses;
    let frozen = forward.frozen;
    let states = forward.states.iter().enumerate().map(|(index, &state)| (format!("hidden.{index}"), state));
    let mut landmarks: Vec<(String, Value)> = states.collect();
    landmarks.push(("logits".into(), language.logits));
    landmarks.extend(frozen.map(|frozen| ("vision_features".into(), frozen.features)));
    landmarks.extend(frozen.and_then(|frozen| frozen.latents).map(|latents| ("latents".into(), latents)));
    landmarks.extend(alignment.map(|alignment| ("targets".into(), alignment.targets)));
    landmarks
}

/// The losses of a micro-batch.
struct Losses {
    forward: Forward,
    language: Language,
    /// Nothing where nothing is aligned.
    alignment: Option<Aligned>,
    /// Nothing where nothing is reconstructed.
    reconstruction: Option<Value>,
}

impl Losses {
    /// Makes [`LOSSES`] an output.
    fn output(&self, g: &mut Graph) {
        let zero = g.constant(DType::F32, 0.0, &[]);
        let vra = self.alignment.as_ref().map_or(zero, |alignment| alignment.loss);
        let parts = [self.language.loss, vra, self.reconstruction.unwrap_or(zero)].map(|part| g.reshape(part, &[1]));
        let losses = g.concat(&parts, 0);
        g.output(LOSSES, losses);
    }
}

fn losses(g: &mut Graph, config: &Config, networks: &Networks, shape: BatchShape, forward: Forward) -> Losses {
    // Before the language-model loss: the last block of a graph is not computed again, and the head is better not.
    let reconstruction = g.scoped("loss_ross", |g| reconstruction_loss(g, config, networks, shape, &forward));
    let language = g.scoped("loss_lm", |g| language_loss(g, config, networks, shape, &forward));
    let alignment = g.scoped("loss_vra", |g| alignment_loss(g, config, shape, &forward));
    Losses { forward, language, alignment, reconstruction }
}

/// What the losses are made of.
struct Forward {
    /// What the frozen networks make of the pictures, where the micro-batch has any.
    frozen: Option<Frozen>,
    /// What the projector makes of the tower's features. // ((I+J)·N, D)
    visual_tokens: Option<Value>,
    /// All states of the decoder, the last one normalised. // L of (B, T, D), then (B, tail, D)
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
    /// The target's features. // (I·N, d)
    targets: Value,
    loss: Value,
}

/// Which tensors the configuration trains.
pub(crate) fn trainable(config: &Config) -> Trainable {
    let all = match (config.train.stage, config.train.method) {
        (Stage::Pretrain, _) => Trainable::PRETRAIN,
        (Stage::Finetune, Method::Lora) => Trainable::LORA,
        (Stage::Finetune, Method::Full) => Trainable::FULL,
    };
    Trainable { alignment: all.alignment && !config.vra.projector_frozen, ..all }
}

/// How many positions at the end of a sequence the losses read of the decoder's last state: those that the targets are
/// among, or all, where it is aligned or reconstructed from.
fn needed_tail(config: &Config, networks: &Networks, shape: BatchShape) -> usize {
    let last = networks.llava.text.layers;
    let is_aligned = config.vra.enabled && config.vra.layers.contains(&last);
    let is_source = reconstructs(config, shape.batch, shape.images) && source_of_ross(config, last) == last;
    if is_aligned || is_source { shape.tokens } else { shape.tail }
}

/// The state that pictures are reconstructed from; the last one, where nothing else is asked for.
fn source_of_ross(config: &Config, last: usize) -> usize {
    config.ross.layer.unwrap_or(last)
}

/// The last state is that of the last `tail` positions.
fn forward(
    g: &mut Graph,
    config: &Config,
    networks: &Networks,
    shape: BatchShape,
    frozen: Option<Frozen>,
    tail: usize,
) -> Forward {
    let (llava, trainable) = (&networks.llava, trainable(config));
    let features = frozen.map(|frozen| frozen.features);
    let visual_tokens = features
        .map(|features| g.scoped("multi_modal_projector", |g| projector::multi_modal(g, llava, trainable, features)));
    let visual = visual_tokens.map(|tokens| Visual {
        tokens,
        index: shape.input(g, BatchInput::VisualIndex),
        newline: llava::newline(g, llava, trainable),
    });
    let token_ids = shape.input(g, BatchInput::TokenIds);
    let h0 = llava::embed(g, &llava.text, trainable, [shape.batch, shape.tokens], token_ids, visual);
    let residual = g.scoped("residual", |g| residual(g, config, networks, features, visual, h0));
    let adapters = trainable.adapters.then(|| adapters(g, config, shape));
    let states = llama::hidden_states(g, &llava.text, adapters.as_ref(), residual.as_ref(), trainable, h0, tail);
    Forward { frozen, visual_tokens, states }
}

fn adapters(g: &mut Graph, config: &Config, shape: BatchShape) -> Adapters {
    let dropout = (config.lora.dropout > 0.0).then(|| Dropout { p: config.lora.dropout, noise: noise(g, shape) });
    let targets = config.lora.targets.iter().filter_map(|target| LinearMap::from_name(target.name())).collect();
    Adapters { rank: config.lora.r, alpha: config.lora.alpha, dropout, targets }
}

/// The micro-batch's random numbers.
fn noise(g: &mut Graph, shape: BatchShape) -> Noise {
    Noise { key: shape.input(g, BatchInput::RandomKey) }
}

/// What is added again inside the decoder, where that is wanted and the micro-batch has it.
fn residual(
    g: &mut Graph,
    config: &Config,
    networks: &Networks,
    features: Option<Value>,
    visual: Option<Visual>,
    h0: Value,
) -> Option<Residual> {
    if !config.residual.enabled {
        return None;
    }
    let layers = config.residual.layers.clone();
    if config.residual.positions == ResidualPositions::All {
        return Some(Residual { layers, value: h0 });
    }
    let (features, visual) = (features?, visual?);
    let visual = match config.residual.source {
        ResidualSource::PostProjection => visual,
        ResidualSource::PreProjection => {
            let tokens = residual::adapter(g, &networks.llava.text, trainable(config), features);
            Visual { tokens, newline: None, ..visual }
        }
    };
    Some(Residual { layers, value: residual::at_positions(g, visual, h0) })
}

/// Mean negative log-likelihood of the supervised tokens.
fn language_loss(
    g: &mut Graph,
    config: &Config,
    networks: &Networks,
    shape: BatchShape,
    forward: &Forward,
) -> Language {
    let last = llama::tail(g, forward.states[forward.states.len() - 1], 1, shape.tail);
    let positions = shape.input(g, BatchInput::TargetPositions);
    let logits = llava::logits_at(g, &networks.llava.text, trainable(config), last, positions);
    let targets = shape.input(g, BatchInput::TargetIds);
    let nll = g.cross_entropy(logits, targets);
    let weights = shape.input(g, BatchInput::TargetWeights);
    let weighted = g.mul(nll, weights);
    Language { logits, loss: g.sum_all(weighted) }
}

/// The alignment loss, where it is wanted and the micro-batch has pictures. Of a picture in tiles the tokens of the whole
/// picture take part: they are the ones that see what a teacher sees, a square of the picture as large as one tile.
fn alignment_loss(g: &mut Graph, config: &Config, shape: BatchShape, forward: &Forward) -> Option<Aligned> {
    if !config.vra.enabled {
        return None;
    }
    let targets = match config.vra.target {
        VraTarget::Teacher => forward.frozen?.targets?,
        VraTarget::Encoder => forward.frozen?.features,
        VraTarget::PostProjection => forward.visual_tokens?,
    };
    let targets = front(g, targets, shape.images * shape.visual_tokens);
    let positions = shape.input(g, BatchInput::VraPositions);
    let states = config.vra.layers.iter().map(|&layer| llava::rows_at(g, forward.states[layer], positions)).collect();
    let weights = shape.input(g, BatchInput::VraWeights);
    let (trainable, visual_tokens) = (trainable(config), shape.visual_tokens);
    let alignment = Alignment { config: &config.vra, states, targets, visual_tokens, weights, trainable };
    Some(Aligned { targets, loss: objectives::build(g, config.vra.objective, &alignment) })
}

/// The reconstruction loss, where it is wanted and the micro-batch has what it needs.
fn reconstruction_loss(
    g: &mut Graph,
    config: &Config,
    networks: &Networks,
    shape: BatchShape,
    forward: &Forward,
) -> Option<Value> {
    if !reconstructs(config, shape.batch, shape.images) {
        return None;
    }
    let (frozen, vae) = (forward.frozen?, networks.vae.as_ref()?);
    let mut posterior = frozen.latents?;
    if let Some(blank) = frozen.blank {
        let (tokens, width) = (shape.visual_tokens, 2 * vae.token_width());
        let all = g.concat(&[posterior, blank], 0);
        let all = g.reshape(all, &[shape.images + 1, tokens * width]);
        let pictures = shape.input(g, BatchInput::RossPictures);
        let chosen = g.gather(all, pictures, false); // (B, N·2·C)
        posterior = g.reshape(chosen, &[shape.batch * tokens, width]);
    }
    let layer = source_of_ross(config, forward.states.len() - 1);
    let positions = shape.input(g, BatchInput::RossPositions);
    let states = llava::rows_at(g, forward.states[layer], positions);
    let weights = shape.input(g, BatchInput::RossWeights);
    let (config, noise, trainable) = (&config.ross, noise(g, shape), trainable(config));
    Some(ross::loss(g, &Reconstruction { config, vae, states, posterior, weights, noise, trainable }))
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
