//! Where a figure that is not finite came from.
//!
//! After a step that was skipped nothing has changed, so its micro-batches can be computed again: as they were, but with a
//! count of bad elements for every leaf, every landmark and every gradient instead of their own outputs. The first bad one in
//! the order of computation is the culprit.

use std::collections::HashMap;

use viral_compiler::ir::LeafKind;
use viral_compiler::types::DType;
use viral_compiler::{Graph, Options, Value, compile};
use viral_runtime::{Buffer, Executable, SlotPool};

use super::{Session, micro_batch_inputs};
use crate::data::MicroBatch;
use crate::engine::bundle::Bundle;
use crate::engine::layout::Flat;
use crate::engine::{step_graph, stored, update_graph};
use crate::error::Result;

/// Output of the second computation: bad elements of each value that is watched.
const COUNTS: &str = "not_finite";

/// The first bad tensor, and the samples of the micro-batch that it appeared in.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Culprit {
    /// Name of a leaf, a landmark or a gradient; empty if computing again gave finite figures only.
    pub tensor: String,
    /// Elements of it that are not finite.
    pub elements: u64,
    /// The decoder layer that it belongs to, if there is one.
    pub layer: Option<usize>,
    /// Names of the samples; empty if the tensor has nothing to do with them.
    pub samples: Vec<String>,
}

impl Session {
    /// Computes the micro-batches of a skipped step again and names the first bad tensor.
    ///
    /// # Errors
    /// What a device can refuse.
    pub(in crate::engine) fn diagnose(&mut self, bundle: &Bundle, micro_batches: &[MicroBatch]) -> Result<Culprit> {
        self.stream.wait()?;
        if let Some(culprit) = self.bad_state()? {
            return Ok(culprit);
        }
        for micro_batch in micro_batches {
            if let Some((tensor, elements, is_sample)) = self.first_bad(bundle, micro_batch)? {
                let samples = if is_sample { micro_batch.batch.samples.clone() } else { Vec::new() };
                let layer = layer_of(&tensor);
                return Ok(Culprit { tensor, elements, layer, samples });
            }
        }
        let samples = micro_batches.iter().flat_map(|micro_batch| micro_batch.batch.samples.clone()).collect();
        Ok(Culprit { tensor: String::new(), elements: 0, layer: None, samples })
    }

    /// Trained tensors and moments, which belong to no sample.
    fn bad_state(&self) -> Result<Option<Culprit>> {
        for flat in [Flat::Param, Flat::FirstMoment, Flat::SecondMoment] {
            for entry in &self.layout.entries {
                let values = self.read_flat(flat, entry)?;
                let elements = values.iter().filter(|value| !value.is_finite()).count() as u64;
                if elements > 0 {
                    let tensor = match flat {
                        Flat::Param => entry.name.clone(),
                        _ => format!("{} of {}", flat.name().trim_end_matches('s').replace('_', " "), entry.name),
                    };
                    return Ok(Some(Culprit { layer: layer_of(&tensor), tensor, elements, samples: Vec::new() }));
                }
            }
        }
        Ok(None)
    }

    /// The first bad value of a micro-batch: its name, its bad elements, and whether it depends on the samples.
    fn first_bad(&self, bundle: &Bundle, micro_batch: &MicroBatch) -> Result<Option<(String, u64, bool)>> {
        let (networks, bucket) = (&bundle.networks, micro_batch.batch.bucket);
        let shape = bucket.shape(&networks.llava);
        let (mut graph, landmarks) = step_graph::build_whole(&self.config, networks, shape);
        let watched = watch(&mut graph, landmarks);

        let options = stored::options(&self.config, &graph, self.device.target());
        let options = Options { places: self.layout.places(), ..options };
        let plan = compile(&graph, &options)?;
        let counts = self.device.buffer(COUNTS, (watched.len() as u64 * 4).next_multiple_of(16))?;
        let mut extra: HashMap<&str, Buffer> = HashMap::from([(COUNTS, counts.clone())]);
        for port in &plan.inputs {
            let fits = |buffer: &Buffer| buffer.bytes() >= port.bind.bytes;
            if !self.buffers.get(&port.name).is_some_and(fits) {
                let bytes = port.bind.bytes.next_multiple_of(16);
                extra.insert(&port.name, self.device.buffer(&port.name, bytes)?);
            }
        }
        let buffer = |name: &str| extra.get(name).or_else(|| self.buffers.get(name)).cloned();
        let executable = Executable::new(&self.device, &plan, &buffer, &mut SlotPool::new())?;
        for (name, content) in micro_batch_inputs(&self.config, self.vra_weight, self.loss_scale, micro_batch) {
            if let Some(port) = executable.input(name) {
                self.device.write(&port.buffer, port.offset, &content)?;
            }
        }
        executable.run()?.wait()?;
        let found = self.device.read_as::<f32>(&counts, 0..watched.len() as u64 * 4)?;
        let first = watched.into_iter().zip(found).find(|(_, count)| *count != 0.0);
        Ok(first.map(|((name, is_sample), count)| (name, count as u64, is_sample)))
    }
}

/// Makes the graph count bad elements of everything that has a name for the user, and output nothing else. Returns the names
/// in the order of computation, each with whether it depends on the samples.
fn watch(graph: &mut Graph, landmarks: Vec<(String, Value)>) -> Vec<(String, bool)> {
    let is_frozen = |kind| matches!(kind, LeafKind::Weight | LeafKind::Param);
    let leaves = graph.leaves().filter(|leaf| leaf.kind != LeafKind::State);
    let mut watched: Vec<(String, Value, bool)> =
        leaves.map(|leaf| (leaf.name.to_owned(), leaf.value, !is_frozen(leaf.kind))).collect();
    watched.extend(landmarks.into_iter().map(|(name, value)| (name, value, true)));
    watched.extend(graph.take_outputs().into_iter().map(|(name, value)| (name, value, true)));
    watched.retain(|(_, value, _)| graph.ty(*value).dtype == DType::F32);
    watched.sort_by_key(|(_, value, _)| value.index());

    let counts: Vec<Value> = watched.iter().map(|&(_, value, _)| count_bad(graph, value)).collect();
    let counts = graph.concat(&counts, 0);
    graph.output(COUNTS, counts);
    watched.into_iter().map(|(name, _, is_sample)| (name, is_sample)).collect()
}

/// Elements that are not below a huge number in magnitude; comparisons with NaN do not hold. // (1)
fn count_bad(g: &mut Graph, value: Value) -> Value {
    let shape = g.shape(value).to_vec();
    let mut constant = |number: f64| g.constant(DType::F32, number, &shape);
    let huge = f64::from(update_graph::HUGE);
    let [zero, one, high, low] = [0.0, 1.0, huge, -huge].map(&mut constant);
    let is_low_enough = g.less(value, high);
    let is_high_enough = g.less(low, value);
    let from_below = g.select(is_high_enough, zero, one);
    let bad = g.select(is_low_enough, from_below, one);
    let count = g.sum_all(bad);
    g.reshape(count, &[1])
}

/// The decoder layer in a name: of a hidden state `hidden.K`, or of a tensor `….layers.N.…`.
fn layer_of(name: &str) -> Option<usize> {
    if let Some(state) = name.strip_prefix("hidden.") {
        return state.parse().ok();
    }
    let rest = name.split_once("language_model.layers.")?.1;
    rest.split('.').next()?.parse().ok()
}
