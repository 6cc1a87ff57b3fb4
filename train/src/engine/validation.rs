//! Evaluation on samples that a run does not learn from.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::WORKERS;
use super::bundle::Bundle;
use super::session::Session;
use crate::config::Order;
use crate::data::{Bucket, Dataset, Loader, Sampler, StepPlan, buckets};
use crate::error::Result;
use crate::run::Validation;

/// Evaluates a run, when it is due. Samples are taken in the order of their file, so every evaluation is of the same batches.
pub(super) struct Validator<'r> {
    bundle: &'r Bundle,
    dataset: Arc<Dataset>,
    plan: Arc<StepPlan>,
    /// Steps of the run.
    steps: u64,
}

impl<'r> Validator<'r> {
    /// Nothing if there are no samples to evaluate on.
    pub(super) fn new(bundle: &'r Bundle, steps: u64) -> Option<Self> {
        let dataset = Arc::clone(bundle.validation.as_ref()?);
        let plan = Arc::new(plan(&dataset, bundle.config.train.batch));
        Some(Self { bundle, dataset, plan, steps })
    }

    /// Whether the run is evaluated after `done` steps.
    pub(super) fn is_due(&self, done: u64) -> bool {
        let every = self.bundle.config.train.validate_every as u64;
        done == self.steps || done.checked_rem(every) == Some(0)
    }

    /// The losses after step `step` (0-based) has been done. Nothing of the run's state changes.
    ///
    /// # Errors
    /// A sample cannot be read, and what a device can refuse.
    pub(super) fn run(&self, session: &mut Session, step: u64) -> Result<Validation> {
        let (prepare, geometry) = (self.bundle.prepare.clone(), self.bundle.geometry);
        let loader = Loader::start(Arc::clone(&self.dataset), prepare, geometry, Arc::clone(&self.plan), 0, WORKERS)?;
        let mut sums = Sums::default();
        let mut waiting = None;
        for micro_batch in loader {
            let batch = &micro_batch?;
            let ticket = session.evaluate(batch)?;
            // The losses of the one before come while this one is computed.
            let of = Counts {
                supervised: batch.batch.supervised,
                aligned: batch.batch.contributing,
                rows: batch.batch.samples.len(),
            };
            let before = waiting.replace((ticket, of));
            sums.add(session, before)?;
        }
        sums.add(session, waiting)?;
        let (loss_lm, loss_vra, loss_ross) = (sums.lm.mean(), sums.vra.mean_or_zero(), sums.ross.mean_or_zero());
        Ok(Validation {
            loss: loss_lm + session.vra_weight_at(step) * loss_vra + self.bundle.config.ross.weight * loss_ross,
            loss_lm,
            loss_vra,
            loss_ross,
            samples: self.dataset.len() as u64,
            supervised_tokens: sums.lm.weight as u64,
            best: false,
        })
    }
}

/// The shapes of the batches that a run is evaluated on.
pub(super) fn shapes(dataset: &Dataset, batch: usize) -> BTreeSet<Bucket> {
    buckets(&plan(dataset, batch), dataset.shapes())
}

fn plan(dataset: &Dataset, batch: usize) -> StepPlan {
    StepPlan::new(Sampler::new(Order::Sequential, 0, batch, 1, dataset.modality_lengths()), 1, 0)
}

/// Losses of batches, by what they are means over: the result does not depend on how samples fall into batches.
#[derive(Default)]
struct Sums {
    /// Over supervised tokens.
    lm: Weighted,
    /// Over aligned pictures.
    vra: Weighted,
    /// Over samples of batches that are reconstructed.
    ross: Weighted,
}

/// What the losses of a batch are means over.
struct Counts {
    supervised: usize,
    aligned: usize,
    rows: usize,
}

#[derive(Default)]
struct Weighted {
    sum: f64,
    weight: f64,
}

impl Sums {
    fn add(&mut self, session: &mut Session, batch: Option<(viral_runtime::Ticket, Counts)>) -> Result<()> {
        let Some((ticket, of)) = batch else { return Ok(()) };
        let [lm, vra, ross] = session.losses(ticket)?;
        self.lm.add(lm, of.supervised);
        self.vra.add(vra, of.aligned);
        self.ross.add(ross, if ross == 0.0 { 0 } else { of.rows });
        Ok(())
    }
}

impl Weighted {
    fn add(&mut self, mean: f64, weight: usize) {
        // Nothing to take a mean over is no loss, whatever stands there.
        if weight > 0 {
            self.sum += mean * weight as f64;
            self.weight += weight as f64;
        }
    }

    fn mean_or_zero(&self) -> f64 {
        if self.weight > 0.0 { self.mean() } else { 0.0 }
    }

    /// Not a number if there was nothing.
    fn mean(&self) -> f64 {
        self.sum / self.weight
    }
}
