//! Looks at the figures of every step: samples that taught nothing are named, and so is what was not finite.

use super::bundle::Bundle;
use super::errors;
use super::session::{Culprit, Session};
use crate::data::MicroBatch;
use crate::error::Result;
use crate::run::{Incident, Outcome, Recorder, Validation};

/// Steps without a finite gradient, one after the other, that end a run.
const MAX_SKIPPED: u64 = 3;

/// Samples that are named in a message; the rest is counted.
const SHOWN: usize = 8;

/// Watches the steps of a run.
pub(super) struct Guard<'r> {
    bundle: &'r Bundle,
    skipped_in_a_row: u64,
    /// The micro-batches of steps whose figures are still to come.
    pending: Vec<MicroBatch>,
}

impl<'r> Guard<'r> {
    /// A guard after `skipped_in_a_row` skipped steps.
    pub(super) fn new(bundle: &'r Bundle, skipped_in_a_row: u64) -> Self {
        Self { bundle, skipped_in_a_row, pending: Vec::new() }
    }

    /// Steps that were skipped, one after the other, up to the last one recorded.
    pub(super) fn skipped_in_a_row(&self) -> u64 {
        self.skipped_in_a_row
    }

    /// Keeps a micro-batch until the figures of its step are there.
    pub(super) fn remember(&mut self, micro_batch: MicroBatch) {
        for defect in &micro_batch.batch.defects {
            log::warn!("a sample teaches nothing: {defect}");
        }
        if let Some(warning) = unsupervised(&micro_batch) {
            log::warn!("{warning}");
        }
        self.pending.push(micro_batch);
    }

    /// Records the step whose figures have come, if one has, with the evaluation that came after it.
    ///
    /// # Errors
    /// What device and disk can refuse; and too many steps in a row were not finite.
    pub(super) fn record(
        &mut self,
        session: &mut Session,
        recorder: &mut Recorder<'_>,
        validation: Option<Validation>,
    ) -> Result<()> {
        let Some(outcome) = session.last()? else { return Ok(()) };
        let outcome = Outcome { validation, ..outcome };
        recorder.step(&outcome)?;
        let (of_step, later) = self.pending.drain(..).partition(|micro_batch| micro_batch.step <= outcome.step);
        self.pending = later;
        if !outcome.skipped {
            self.skipped_in_a_row = 0;
            return Ok(());
        }
        self.skipped_in_a_row += 1;
        let of_step: Vec<MicroBatch> = of_step;
        let culprit = match session.diagnose(self.bundle, &of_step) {
            Ok(culprit) => culprit,
            Err(error) => {
                log::warn!("the step cannot be computed again to find out why: {error}");
                let samples = of_step.iter().flat_map(|micro_batch| micro_batch.batch.samples.clone()).collect();
                Culprit { tensor: String::new(), elements: 0, layer: None, samples }
            }
        };
        let bad =
            outcome.grad_norm_groups.iter().filter(|(_, norm)| !norm.is_finite()).map(|(group, _)| group.as_str());
        let why = describe(&culprit, &bad.collect::<Vec<_>>());
        log::warn!("step {} is skipped, nothing has changed: {why}", outcome.step);
        recorder.incident(&Incident { step: outcome.step, kind: "not_finite", culprit: &culprit })?;
        if self.skipped_in_a_row >= MAX_SKIPPED { Err(errors::not_finite(outcome.step, why)) } else { Ok(()) }
    }
}

/// What to say of a micro-batch that teaches no language.
pub(super) fn unsupervised(micro_batch: &MicroBatch) -> Option<String> {
    let (step, samples) = (micro_batch.step, listed(&micro_batch.batch.samples));
    (micro_batch.batch.supervised == 0)
        .then(|| format!("step {step}: a micro-batch has no supervised token, so it has no language loss: {samples}"))
}

fn describe(culprit: &Culprit, groups: &[&str]) -> String {
    let Culprit { tensor, elements, layer, samples } = culprit;
    let place = match (tensor.as_str(), layer) {
        ("", _) => {
            let groups = groups.join(", ");
            format!("the norm of the gradients was not finite (groups: {groups}), but each gradient computed again is")
        }
        (tensor, Some(layer)) => {
            format!("`{tensor}` (layer {layer}) is the first tensor with bad elements, {elements}")
        }
        (tensor, None) => format!("`{tensor}` is the first tensor with bad elements, {elements}"),
    };
    if samples.is_empty() { place } else { format!("{place}; samples: {}", listed(samples)) }
}

fn listed(samples: &[String]) -> String {
    let mut text = samples.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    if samples.len() > SHOWN {
        text.push_str(&format!(" and {} more", samples.len() - SHOWN));
    }
    text
}
