//! Prepares micro-batches ahead of the training loop.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use super::batch::Batch;
use super::dataset::Dataset;
use super::sample::{Geometry, Prepare};
use super::sampler::StepPlan;
use crate::error::{Error, Result};

/// Finished micro-batches that a worker keeps ready, beside the one in its hands. Pixels are most of what they take.
const READY: usize = 1;

/// One micro-batch with its place in the run.
#[derive(Clone, Debug)]
pub struct MicroBatch {
    /// Optimiser step, 0-based.
    pub step: u64,
    /// Pass over the data, 0-based.
    pub epoch: u64,
    /// Position within the step, 0-based.
    pub index: usize,
    /// Micro-batches of this step; the step averages their losses.
    pub of: usize,
    /// The inputs.
    pub batch: Batch,
}

/// Iterates over the micro-batches of a run in order. Background threads tokenise, decode and lay out ahead; worker `w`
/// of `W` prepares micro-batches `w`, `w + W`, …, so their number and timing change nothing but the speed.
///
/// An error comes at the place of the micro-batch it belongs to and ends the iteration. Dropping the loader ends the
/// threads.
#[derive(Debug)]
pub struct Loader {
    /// Emptied at the end of the iteration.
    workers: Vec<Worker>,
    /// The worker that has the next micro-batch.
    turn: usize,
}

#[derive(Debug)]
struct Worker {
    results: Receiver<Result<MicroBatch>>,
    thread: JoinHandle<()>,
}

/// All that a worker needs.
struct Job {
    dataset: Arc<Dataset>,
    prepare: Arc<dyn Prepare>,
    geometry: Geometry,
    plan: Arc<StepPlan>,
    first_step: u64,
}

impl Loader {
    /// Starts `workers` threads (at least one) that prepare the steps of `plan` from `first_step` on.
    ///
    /// # Errors
    /// The system refuses to start a thread.
    pub fn start(
        dataset: Arc<Dataset>,
        prepare: Arc<dyn Prepare>,
        geometry: Geometry,
        plan: Arc<StepPlan>,
        first_step: u64,
        workers: usize,
    ) -> Result<Self> {
        let count = workers.max(1);
        let job = Arc::new(Job { dataset, prepare, geometry, plan, first_step });
        let mut workers = Vec::with_capacity(count);
        for index in 0..count {
            let (sender, results) = sync_channel(READY);
            let job = Arc::clone(&job);
            let thread = thread::Builder::new()
                .name(format!("data-{index}"))
                .spawn(move || job.work(index, count, &sender))
                .map_err(|error| Error::internal("cannot start a thread for the data", error.to_string()))?;
            workers.push(Worker { results, thread });
        }
        Ok(Self { workers, turn: 0 })
    }

    /// Ends the threads; the error if one of them panicked.
    fn stop(&mut self) -> Option<Error> {
        let mut panicked = None;
        for Worker { results, thread } in self.workers.drain(..) {
            // A worker that waits for room in its queue wakes up when nobody can take from it any more.
            drop(results);
            if thread.join().is_err() {
                panicked = Some(Error::internal("a thread that prepares data panicked", "see the message above"));
            }
        }
        panicked
    }
}

impl Iterator for Loader {
    type Item = Result<MicroBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let worker = self.workers.get(self.turn)?;
        match worker.results.recv() {
            Ok(Ok(batch)) => {
                self.turn = (self.turn + 1) % self.workers.len();
                Some(Ok(batch))
            }
            Ok(Err(error)) => {
                self.stop();
                Some(Err(error))
            }
            // The worker has finished: the run is complete, or it panicked.
            Err(_) => self.stop().map(Err),
        }
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Job {
    /// Prepares every `count`-th micro-batch from `index` on, until the run is complete, a sample fails, or nobody
    /// listens any more.
    fn work(&self, index: usize, count: usize, results: &SyncSender<Result<MicroBatch>>) {
        let mut micro_batches = 0;
        for step in self.first_step..self.plan.steps() {
            let planned = self.plan.step(step);
            let of = planned.micro_batches.len();
            for (position, records) in planned.micro_batches.iter().enumerate() {
                let mine = micro_batches % count == index;
                micro_batches += 1;
                if !mine {
                    continue;
                }
                let batch = self.prepare(records);
                let failed = batch.is_err();
                let result = batch.map(|batch| MicroBatch { step, epoch: planned.epoch, index: position, of, batch });
                if results.send(result).is_err() || failed {
                    return;
                }
            }
        }
    }

    fn prepare(&self, records: &[usize]) -> Result<Batch> {
        let load = |&record: &usize| self.dataset.load(record, &*self.prepare, self.geometry);
        let rows = records.iter().map(load).collect::<Result<Vec<_>>>()?;
        Ok(Batch::assemble(&rows, self.geometry))
    }
}
