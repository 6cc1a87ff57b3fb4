//! A run on a device: compiled plans, uploaded tensors, and one step after the other.

mod diagnose;
mod evaluate;
pub(crate) mod features;
mod memory;
#[cfg(test)]
mod poke;
mod state;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use viral_compiler::ir::LeafKind;
use viral_compiler::passes::Remat;
use viral_compiler::plan::{MemoryReport, Plan};
use viral_compiler::types::TensorType;
use viral_compiler::{Graph, Options, Target, compile};
use viral_model::adapter::Parameter;
use viral_model::graph::{BatchInput, BatchShape, LeafSource, Origin};
use viral_runtime::{Buffer, Device, Executable, SlotPool, Stream, StreamOptions, Ticket};

use super::bundle::{Bundle, Networks};
use super::init::Contents;
use super::layout::{Entry, Flat, Layout, Rate};
use super::{step_graph, stored, update_graph};
use crate::config::{Config, Remat as RematChoice};
use crate::data::{Bucket, MicroBatch, VraWeight};
use crate::error::{Error, Result};
use crate::measure::Profiler;
use crate::objectives::layer_output;
use crate::parallel;
use crate::run::Outcome;
use features::{Cache, Features, Keep};
pub(crate) use memory::total_memory;
use memory::{allocate_ports, allocate_state};

pub use diagnose::Culprit;
pub(crate) use evaluate::source as evaluation_source;

/// Plans and memory of a run, and the step in progress.
pub struct Session {
    config: Config,
    device: Device,
    layout: Layout,
    buffers: HashMap<String, Buffer>,
    features: Features,
    plans: BTreeMap<Bucket, Executable>,
    evaluations: BTreeMap<Bucket, Executable>,
    update: Executable,
    memory: MemoryReport,
    vra_weight: VraWeight,
    /// What losses are multiplied by before their gradients are taken.
    loss_scale: f32,
    stream: Stream,
    current: Current,
    waiting: Option<Waiting>,
    profiler: Option<Profiler>,
}

/// What the micro-batches of the current step have yielded so far.
#[derive(Default)]
struct Current {
    losses: Vec<MicroLosses>,
    tokens: u64,
    supervised: u64,
    /// Positions of all rows, padding included.
    positions: u64,
}

/// The losses of a micro-batch, on their way from the device.
struct MicroLosses {
    /// Language-model loss, alignment loss and reconstruction loss.
    losses: Ticket,
    /// Alignment loss of single layers, where there are pictures.
    layers: Vec<(usize, Ticket)>,
    is_supervised: bool,
}

/// A step whose figures are still on the device.
struct Waiting {
    step: u64,
    current: Current,
    norms: Ticket,
    lr: f64,
    lr_projector: f64,
    /// When the device had done it, as far as anybody has looked.
    done: Arc<OnceLock<Instant>>,
}

/// What a session is made for.
pub(crate) struct Extent<'a> {
    /// Shapes of the micro-batches that are learnt from.
    pub(crate) buckets: &'a BTreeSet<Bucket>,
    /// Shapes of those that are only evaluated.
    pub(crate) evaluated: &'a BTreeSet<Bucket>,
    /// Optimiser steps of the run.
    pub(crate) steps: u64,
    /// Pictures' features that are kept.
    pub(crate) keep: Keep<'a>,
}

/// The graph and the compiler's options for a bucket's plan.
pub(crate) fn step_plan_source(
    config: &Config,
    networks: &Networks,
    layout: &Layout,
    bucket: Bucket,
    target: &Target,
) -> (Graph, Options) {
    let shape = bucket.shape(&networks.llava);
    let remat = match config.train.remat {
        RematChoice::None => Remat::None,
        RematChoice::Block => Remat::Block,
        RematChoice::Cheap => Remat::Cheap,
    };
    let graph = step_graph::build(config, networks, shape);
    let options = stored::options(config, &graph, target);
    (graph, Options { places: layout.places(), remat, ..options })
}

/// The trained tensors of a run: those of a micro-batch with one picture, which uses all of them.
pub(crate) fn layout_of(config: &Config, networks: &Networks, target: &Target) -> Layout {
    let graph = smallest_graph(config, networks);
    let params = graph.leaves().filter(|leaf| leaf.kind == LeafKind::Param);
    let limit = target.max_binding_bytes.min(target.max_buffer_bytes);
    Layout::new(params.map(|leaf| (leaf.name.to_owned(), leaf.ty.clone())).collect(), limit, config.train.moments)
}

/// The parts of an adapter directory that a run keeps as they were initialised.
pub(crate) fn kept_tensors(config: &Config, networks: &Networks) -> Vec<(String, TensorType)> {
    let kept = new_tensors(config, networks).into_iter().filter(|(_, kind, _)| *kind == LeafKind::Weight);
    kept.map(|(name, _, ty)| (name, ty)).collect()
}

/// The tensors of a run that belong into an adapter directory and no model has, trained or not.
pub(crate) fn new_tensors(config: &Config, networks: &Networks) -> Vec<(String, LeafKind, TensorType)> {
    let graph = smallest_graph(config, networks);
    let is_new = |name: &str| matches!(LeafSource::of(name), LeafSource::Tensor { origin: Origin::Adapter, .. });
    let leaves = graph.leaves().filter(|leaf| matches!(leaf.kind, LeafKind::Weight | LeafKind::Param));
    leaves.filter(|leaf| is_new(leaf.name)).map(|leaf| (leaf.name.to_owned(), leaf.kind, leaf.ty.clone())).collect()
}

fn smallest_graph(config: &Config, networks: &Networks) -> Graph {
    let shape = BatchShape::new(&networks.llava, 1, networks.llava.visual_tokens() + 1, 1, 1);
    step_graph::build(config, networks, shape)
}

impl Session {
    /// Compiles a plan for every bucket, for the validation samples and the optimiser, and uploads every tensor. Nothing is
    /// allocated on the device after the first step.
    ///
    /// # Errors
    /// A tensor that cannot be read, and everything that a device can refuse.
    pub fn new(bundle: &Bundle, device: &Device, buckets: &BTreeSet<Bucket>) -> Result<Self> {
        let (config, plan) = (&bundle.config, bundle.step_plan());
        let keep = Keep::of(&config.train, plan.steps() > plan.steps_per_epoch());
        let evaluated = &bundle.validation_buckets();
        let extent = Extent { buckets, evaluated, steps: plan.steps(), keep };
        Self::with_contents(config, &bundle.networks, bundle, &extent, device)
    }

    /// As [`Session::new`], with content from elsewhere.
    pub(crate) fn with_contents(
        config: &Config,
        networks: &Networks,
        contents: &dyn Contents,
        extent: &Extent<'_>,
        device: &Device,
    ) -> Result<Self> {
        let Extent { buckets, evaluated, steps, keep } = *extent;
        let config = config.clone();
        let layout = layout_of(&config, networks, device.target());
        let step = |&bucket: &Bucket| {
            let (graph, options) = step_plan_source(&config, networks, &layout, bucket, device.target());
            Ok((bucket, compile(&graph, &options)?))
        };
        let plans = parallel::map(buckets, step)?;
        let evaluation = |&bucket: &Bucket| {
            let (graph, options) = evaluate::source(&config, networks, &layout, bucket, device.target());
            Ok((bucket, compile(&graph, &options)?))
        };
        let evaluations = parallel::map(evaluated, evaluation)?;
        let frozen = features::sources(&config, networks, &(buckets | evaluated), device.target());
        let frozen = parallel::map(frozen, |(what, graph, options)| Ok((what, compile(&graph, &options)?)))?;
        let loss_scale = stored::loss_scale(&config, device.target());
        let update = update_graph::build(&config.train, &layout, loss_scale);
        let update = compile(&update, &Options::new(device.target().clone()))?;

        let mut buffers = HashMap::new();
        allocate_state(contents, device, &layout, &mut buffers)?;
        let mut slots = SlotPool::new();
        let every = || {
            let of_buckets = plans.iter().chain(&evaluations).map(|(_, plan)| plan);
            of_buckets.chain(frozen.iter().map(|(_, plan)| plan)).chain([&update])
        };
        device.prepare(every())?;
        every().for_each(|plan| slots.reserve(plan));
        allocate_ports(contents, device, every(), &mut buffers)?;
        let bind = |plan: &Plan, slots: &mut SlotPool| {
            Executable::new(device, plan, &|name: &str| buffers.get(name).cloned(), slots)
        };
        let memory = total_memory(every(), &layout);
        let update_plan = bind(&update, &mut slots)?;
        let mut bind_all = |plans: Vec<(Bucket, Plan)>| {
            plans.into_iter().map(|(bucket, plan)| Ok((bucket, bind(&plan, &mut slots)?))).collect::<Result<_>>()
        };
        let (plans, evaluations) = (bind_all(plans)?, bind_all(evaluations)?);
        let known = Cache::new(keep, &frozen, contents, device.adapter())?;
        let frozen = frozen
            .into_iter()
            .map(|(what, plan)| Ok((what, bind(&plan, &mut slots)?)))
            .collect::<Result<BTreeMap<_, _>>>()?;
        let mut stream = Stream::new(device, StreamOptions::default())?;
        reserve_reads(&mut stream, &update_plan, config.train.accumulation, config.vra.layers.len())?;
        // Checkpoints read through staging memory that the first read allocates: now, and not hours into a run.
        device.read(&output(&update_plan, update_graph::NORMS)?.0, 0..4)?;
        let device = device.clone();
        let vra_weight = VraWeight::new(&config.vra, steps);
        let features = Features::new(frozen, known, &mut stream)?;
        let current = Current::default();
        Ok(Self {
            config,
            device,
            layout,
            buffers,
            features,
            plans,
            evaluations,
            update: update_plan,
            memory,
            vra_weight,
            loss_scale,
            stream,
            current,
            waiting: None,
            profiler: None,
        })
    }

    /// Planned device memory of the whole run.
    pub fn memory(&self) -> &MemoryReport {
        &self.memory
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Has a profiler watch the steps from here on.
    pub(crate) fn watch(&mut self, profiler: Profiler) {
        self.profiler = Some(profiler);
    }

    /// The profiler, if there was one.
    pub(crate) fn profiler(&mut self) -> Option<Profiler> {
        self.profiler.take()
    }

    /// Does something that belongs to the step in progress, on the host.
    pub(crate) fn host<T>(&mut self, name: &str, work: impl FnOnce() -> T) -> T {
        match &mut self.profiler {
            Some(profiler) => profiler.host(name, work),
            None => work(),
        }
    }

    /// Forward and backward for one micro-batch; its gradients are added to those of the step.
    ///
    /// # Errors
    /// What a device can refuse, device loss included.
    pub fn micro_batch(&mut self, micro_batch: &MicroBatch) -> Result<()> {
        if let Some(profiler) = &mut self.profiler {
            profiler.enter(micro_batch.step);
        }
        let batch = &micro_batch.batch;
        let executable = self.plans.get(&batch.bucket).ok_or_else(|| {
            Error::internal("a micro-batch has a shape that was not planned", format!("{:?}", batch.bucket))
        })?;
        let inputs = micro_batch_inputs(&self.config, self.vra_weight, self.loss_scale, micro_batch);
        self.features.provide(&mut self.stream, &mut self.profiler, batch.bucket.into(), &batch.pixels)?;
        let losses = evaluate::losses_of(&mut self.stream, &mut self.profiler, executable, inputs)?;
        let mut layers = Vec::new();
        for &layer in &self.config.vra.layers {
            if let Some(port) = executable.output(&layer_output(layer)) {
                let range = port.offset..port.offset + port.bytes;
                layers.push((layer, self.stream.read_later(&port.buffer, range)?));
            }
        }
        let is_supervised = batch.supervised > 0;
        self.current.losses.push(MicroLosses { losses, layers, is_supervised });
        self.current.tokens += batch.tokens as u64;
        self.current.supervised += batch.supervised as u64;
        self.current.positions += (batch.bucket.batch * batch.bucket.tokens) as u64;
        Ok(())
    }

    /// Keeps what the last micro-batches' pictures yielded where later runs look for it.
    ///
    /// # Errors
    /// What a device can refuse.
    pub(crate) fn settle(&mut self) -> Result<()> {
        self.features.finish(&mut self.stream)
    }

    /// The optimiser step that ends step `step`, at `factor` times the learning rates. The figures of the step before
    /// must have been taken.
    ///
    /// # Errors
    /// As [`Session::micro_batch`].
    pub fn step(&mut self, step: u64, factor: f64) -> Result<()> {
        let train = &self.config.train;
        let (lr, lr_projector) = (train.lr * factor, train.projector_lr * factor);
        let max_norm = if train.max_grad_norm > 0.0 { train.max_grad_norm as f32 } else { update_graph::HUGE };
        let mut inputs = vec![(update_graph::MAX_NORM.to_owned(), vec![max_norm])];
        for (index, group) in self.layout.groups.iter().enumerate() {
            let lr = match group.rate {
                Rate::Main => lr,
                Rate::Projector => lr_projector,
            };
            let decay = if group.decays { train.weight_decay } else { 0.0 };
            inputs.push((update_graph::hyper_name(index), hyper(lr, decay, train.betas, step).to_vec()));
        }
        for (name, values) in inputs {
            if let Some(port) = self.update.input(&name) {
                self.stream.write(&port.buffer, port.offset, bytemuck::cast_slice(&values))?;
            }
        }
        replay(&mut self.stream, &mut self.profiler, &self.update)?;
        let (buffer, range) = output(&self.update, update_graph::NORMS)?;
        let norms = self.stream.read_later(&buffer, range)?;
        // Sent now, or the copy would travel with the next step's work, and reading would wait for that.
        let done = Arc::new(OnceLock::new());
        let clock = Arc::clone(&done);
        self.stream.flush_then(move || {
            clock.get_or_init(Instant::now);
        })?;
        let current = std::mem::take(&mut self.current);
        self.waiting = Some(Waiting { step, current, norms, lr, lr_projector, done });
        Ok(())
    }

    /// The figures of the last step that was ended, once. Asking after the next step's first micro-batch has been started
    /// keeps the device busy while this waits.
    ///
    /// # Errors
    /// As [`Session::micro_batch`].
    pub fn last(&mut self) -> Result<Option<Outcome>> {
        self.waiting.take().map(|waiting| self.outcome(waiting)).transpose()
    }

    /// The trained tensors by name, as they are now.
    ///
    /// # Errors
    /// What a device can refuse.
    pub fn parameters(&self) -> Result<BTreeMap<String, Parameter>> {
        self.read(Flat::Param)
    }

    /// The gradients of the trained tensors by name: the sum over the micro-batches since the last step, each by its
    /// share in the step.
    ///
    /// # Errors
    /// What a device can refuse.
    pub fn gradients(&self) -> Result<BTreeMap<String, Parameter>> {
        let mut gradients = self.read(Flat::Grad)?;
        for gradient in gradients.values_mut() {
            gradient.values.iter_mut().for_each(|x| *x /= self.loss_scale);
        }
        Ok(gradients)
    }

    /// One trained tensor as it is now.
    ///
    /// # Errors
    /// What a device can refuse.
    pub(crate) fn parameter(&self, name: &str) -> Result<Parameter> {
        let unknown = || Error::internal("a tensor is asked for that is not trained", name);
        self.read_entry(Flat::Param, self.layout.entries.iter().find(|entry| entry.name == name).ok_or_else(unknown)?)
    }

    /// Names of the trained tensors.
    pub(crate) fn parameter_names(&self) -> impl Iterator<Item = &str> {
        self.layout.entries.iter().map(|entry| entry.name.as_str())
    }

    fn read(&self, flat: Flat) -> Result<BTreeMap<String, Parameter>> {
        self.layout.entries.iter().map(|entry| Ok((entry.name.clone(), self.read_entry(flat, entry)?))).collect()
    }

    fn read_entry(&self, flat: Flat, entry: &Entry) -> Result<Parameter> {
        Ok(Parameter { shape: entry.ty.shape.clone(), values: self.read_flat(flat, entry)? })
    }

    fn outcome(&mut self, waiting: Waiting) -> Result<Outcome> {
        let Waiting { step, current, norms, lr, lr_projector, done } = waiting;
        let ([mut lm, mut vra, mut ross], mut layers) = ([Mean::default(); 3], BTreeMap::<usize, Mean>::new());
        for micro in current.losses {
            let losses = self.floats(micro.losses)?;
            // Without a target there is no loss, only an empty sum.
            if micro.is_supervised {
                lm.add(losses[0]);
            }
            vra.add(losses[1]);
            ross.add(losses[2]);
            for (layer, ticket) in micro.layers {
                layers.entry(layer).or_default().add(self.floats(ticket)?[0]);
            }
        }
        let [loss_lm, loss_vra, loss_ross] = [lm, vra, ross].map(Mean::value);
        let norms: Vec<f64> = self.floats(norms)?.into_iter().map(f64::from).collect();
        let is_usable = |norm: f64| norm.is_finite() && norm < f64::from(update_graph::HUGE);
        let mut groups: BTreeMap<String, f64> = BTreeMap::new();
        for (group, norm) in self.layout.groups.iter().zip(&norms[2..]) {
            let known = groups.entry(group.name().to_owned()).or_default();
            *known = known.hypot(*norm);
        }
        Ok(Outcome {
            step,
            loss: loss_lm + self.vra_weight.at(step) * loss_vra + self.config.ross.weight * loss_ross,
            loss_lm,
            loss_vra,
            loss_ross,
            grad_norm: norms[0],
            lr,
            lr_projector,
            tokens: current.tokens,
            supervised_tokens: current.supervised,
            skipped: !(is_usable(norms[0]) && is_usable(norms[1]) && is_usable(norms[0] + norms[1])),
            loss_vra_layers: layers.iter().map(|(layer, mean)| (*layer, mean.value())).collect(),
            grad_norm_groups: groups,
            padding_share: 1.0 - current.tokens as f64 / current.positions.max(1) as f64,
            device_bytes: self.device.memory().live_bytes,
            done: done.get().copied().unwrap_or_else(Instant::now),
            validation: None,
        })
    }

    fn floats(&mut self, ticket: Ticket) -> Result<Vec<f32>> {
        Ok(bytemuck::pod_collect_to_vec(&self.stream.take(ticket)?))
    }
}

/// A mean over micro-batches.
#[derive(Clone, Copy, Default)]
struct Mean {
    sum: f64,
    count: u32,
}

impl Mean {
    fn add(&mut self, value: f32) {
        self.sum += f64::from(value);
        self.count += 1;
    }

    /// Not a number if there was nothing.
    fn value(self) -> f64 {
        self.sum / f64::from(self.count)
    }
}

/// Replays a plan, under the eyes of a profiler if one watches.
fn replay(stream: &mut Stream, profiler: &mut Option<Profiler>, executable: &Executable) -> Result<()> {
    if let Some(profiler) = profiler {
        // What was written goes first.
        stream.flush()?;
        if profiler.replay(executable)? {
            return Ok(());
        }
    }
    stream.run(executable)?;
    Ok(())
}

/// What AdamW needs to know of step `step` (0-based): decay factor, step size, inverse root of the second correction.
fn hyper(lr: f64, weight_decay: f64, [beta1, beta2]: [f64; 2], step: u64) -> [f32; 3] {
    let t = (step + 1) as f64;
    let step_size = lr / (1.0 - beta1.powf(t));
    [(1.0 - lr * weight_decay) as f32, step_size as f32, (1.0 / (1.0 - beta2.powf(t)).sqrt()) as f32]
}

/// A key below 2^31 for the random numbers of a micro-batch.
fn random_key(seed: u64, step: u64, index: usize) -> [u32; 1] {
    let mut mixed =
        seed ^ step.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (index as u64).wrapping_mul(0xd1b5_4a32_d192_ed03);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    [(mixed >> 33) as u32]
}

/// The inputs of a micro-batch's graph, as bytes.
pub(crate) fn micro_batch_inputs<'b>(
    config: &Config,
    vra_weight: VraWeight,
    loss_scale: f32,
    micro_batch: &'b MicroBatch,
) -> Vec<(&'static str, Cow<'b, [u8]>)> {
    let batch = &micro_batch.batch;
    let weights = [vra_weight.at(micro_batch.step), config.ross.weight].map(|weight| weight as f32);
    let scalars = [loss_scale / micro_batch.of as f32, weights[0], weights[1]];
    let ross_weights = batch.ross_weights(config.ross.masking);
    let key = random_key(config.train.seed, micro_batch.step, micro_batch.index);
    let owned = |input: BatchInput, content: &[u8]| (input.name(), Cow::Owned(content.to_vec()));
    let inputs = BatchInput::ALL.map(|input| {
        let content: &[u8] = match input {
            BatchInput::Pixels => bytemuck::cast_slice(&batch.pixels),
            BatchInput::TokenIds => bytemuck::cast_slice(&batch.token_ids),
            BatchInput::VisualIndex => bytemuck::cast_slice(&batch.visual_index),
            BatchInput::TargetPositions => bytemuck::cast_slice(&batch.target_positions),
            BatchInput::TargetIds => bytemuck::cast_slice(&batch.target_ids),
            BatchInput::TargetWeights => bytemuck::cast_slice(&batch.target_weights),
            BatchInput::VraPositions => bytemuck::cast_slice(&batch.vra_positions),
            BatchInput::VraWeights => bytemuck::cast_slice(&batch.vra_weights),
            BatchInput::RossWeights => return owned(input, bytemuck::cast_slice(&ross_weights)),
            BatchInput::RossPictures => bytemuck::cast_slice(&batch.pictures),
            BatchInput::RossPositions => bytemuck::cast_slice(&batch.sight_positions),
            BatchInput::RandomKey => return owned(input, bytemuck::cast_slice(&key)),
        };
        (input.name(), Cow::Borrowed(content))
    });
    let scalars = Cow::Owned(bytemuck::cast_slice(&scalars).to_vec());
    inputs.into_iter().chain([(step_graph::SCALARS, scalars)]).collect()
}

/// Has the stream allocate the memory through which figures come back: the losses of each micro-batch, of the next step's
/// first one, which is under way when they are taken, and the norms.
fn reserve_reads(stream: &mut Stream, update: &Executable, accumulation: usize, layers: usize) -> Result<()> {
    let (buffer, range) = output(update, update_graph::NORMS)?;
    let reads = 0..(accumulation + 1) * (1 + layers) + 1;
    let tickets: Vec<Ticket> = reads.map(|_| stream.read_later(&buffer, range.clone())).collect::<Result<_, _>>()?;
    for ticket in tickets {
        stream.take(ticket)?;
    }
    Ok(())
}

fn output(executable: &Executable, name: &str) -> Result<(Buffer, std::ops::Range<u64>)> {
    let port = executable.output(name).ok_or_else(|| Error::internal("a plan lacks an output", name))?;
    Ok((port.buffer.clone(), port.offset..port.offset + port.bytes))
}
