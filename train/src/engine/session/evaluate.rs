//! Micro-batches that are not learnt from: losses alone, and nothing of the run's state is written.

use std::borrow::Cow;

use viral_compiler::{Graph, Options, Target};
use viral_runtime::{Executable, Stream, Ticket};

use super::{Session, micro_batch_inputs, output, replay};
use crate::config::Config;
use crate::data::{Bucket, MicroBatch};
use crate::engine::bundle::Networks;
use crate::engine::layout::Layout;
use crate::engine::{step_graph, stored};
use crate::error::{Error, Result};
use crate::measure::Profiler;

/// The graph and the compiler's options for a bucket's plan.
pub(crate) fn source(
    config: &Config,
    networks: &Networks,
    layout: &Layout,
    bucket: Bucket,
    target: &Target,
) -> (Graph, Options) {
    let graph = step_graph::build_evaluation(config, networks, bucket.shape(&networks.llava));
    let options = stored::options(config, &graph, target);
    (graph, Options { places: layout.places(), ..options })
}

impl Session {
    /// Computes the losses of a micro-batch with the trained tensors as they are; [`Session::losses`] gets them.
    ///
    /// # Errors
    /// As [`Session::micro_batch`].
    pub(in crate::engine) fn evaluate(&mut self, micro_batch: &MicroBatch) -> Result<Ticket> {
        let batch = &micro_batch.batch;
        let executable = self.evaluations.get(&batch.bucket).ok_or_else(|| {
            Error::internal("a validation batch has a shape that was not planned", format!("{:?}", batch.bucket))
        })?;
        let inputs = micro_batch_inputs(&self.config, self.vra_weight, self.loss_scale, micro_batch);
        self.features.provide(&mut self.stream, &mut self.profiler, batch.bucket.into(), &batch.pixels)?;
        losses_of(&mut self.stream, &mut self.profiler, executable, inputs)
    }

    /// Language-model, alignment and reconstruction loss of an evaluated micro-batch.
    ///
    /// # Errors
    /// What a device can refuse.
    pub(in crate::engine) fn losses(&mut self, ticket: Ticket) -> Result<[f64; 3]> {
        let losses = self.floats(ticket)?;
        Ok([losses[0], losses[1], losses[2]].map(f64::from))
    }

    /// The factor of the alignment loss at a step.
    pub(in crate::engine) fn vra_weight_at(&self, step: u64) -> f64 {
        self.vra_weight.at(step)
    }
}

/// Replays the plan of a micro-batch, whose features are where it reads them, and has its losses come back.
pub(super) fn losses_of(
    stream: &mut Stream,
    profiler: &mut Option<Profiler>,
    executable: &Executable,
    inputs: Vec<(&str, Cow<'_, [u8]>)>,
) -> Result<Ticket> {
    for (name, content) in inputs {
        // A graph declares only the inputs that it uses.
        if let Some(port) = executable.input(name) {
            stream.write(&port.buffer, port.offset, &content)?;
        }
    }
    replay(stream, profiler, executable)?;
    let (buffer, range) = output(executable, step_graph::LOSSES)?;
    Ok(stream.read_later(&buffer, range)?)
}
