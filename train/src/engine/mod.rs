//! The training run, from a configuration to an adapter directory.
//!
//! In the order of a run:
//!
//! 1. [`bundle`] opens what the configuration names: model, teacher, starting adapter, tokenizer, dataset;
//! 2. [`step_graph`] builds the graph of a micro-batch, from pixels and tokens to accumulated gradients;
//! 3. [`layout`] decides where trained tensors, gradients and moments lie on the device;
//! 4. [`update_graph`] builds the graph of the optimiser step over that memory;
//! 5. [`init`] gives every trained tensor its first value;
//! 6. [`session`] compiles the graphs, uploads everything and runs one step after the other;
//! 7. [`save`] writes what was trained.
//!
//! [`train`] below calls them from top to bottom. [`report`] and [`inspect`] show what a run computes.

mod bundle;
mod errors;
mod init;
mod inspect;
mod layout;
mod prepare;
mod report;
mod save;
mod session;
mod step_graph;
mod update_graph;

use std::collections::BTreeMap;
use std::sync::Arc;

use viral_compiler::Target;
use viral_runtime::{Device, DeviceOptions};

use crate::config::Config;
use crate::data::{Loader, LrSchedule, buckets};
use crate::error::Result;
use crate::run::{DeviceRecord, Outcome, Recorder, RunFolder, RunRecord, Summary};
pub use bundle::{Bundle, Networks};
pub use inspect::Inspection;
#[cfg(test)]
pub(crate) use prepare::Preparer;
pub use report::{dump, plan_report};
pub use session::Session;

/// Threads that prepare batches ahead of the device.
const WORKERS: usize = 2;
/// Steps without a finite gradient, one after the other, that end a run.
const MAX_SKIPPED: u64 = 3;

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// First and last step, and the time between; nothing if there was no step.
    pub summary: Option<Summary>,
    /// The run folder.
    pub folder: std::path::PathBuf,
}

/// Trains as `config` says and leaves a run folder.
///
/// # Errors
/// Every failure a user can cause has its own message and exit code; see [`crate::error::Kind`].
pub fn train(config: &Config) -> Result<Finished> {
    let folder = RunFolder::create(&config.output.dir)?;
    let bundle = Bundle::open(config)?;
    let plan = Arc::new(bundle.step_plan());
    let device = open_device(config)?;
    let buckets = buckets(&plan, bundle.dataset.shapes());
    let mut session = Session::new(&bundle, &device, &buckets)?;
    log::info!("{}", report::memory_table(session.memory()));

    let record = RunRecord::new(config, device_record(&device), plan.steps(), bundle.fingerprints());
    let mut recorder = Recorder::start(&folder, record)?;
    let schedule = LrSchedule::new(config.train.schedule, plan.steps(), config.train.warmup_ratio);
    let (dataset, prepare) = (bundle.dataset.clone(), bundle.prepare.clone());
    let loader = Loader::start(dataset, prepare, bundle.geometry, plan, 0, WORKERS)?;

    let mut skipped = 0;
    let mut record = |outcome: Option<Outcome>| -> Result<()> {
        let Some(outcome) = outcome else { return Ok(()) };
        recorder.step(&outcome)?;
        skipped = if outcome.skipped { skipped + 1 } else { 0 };
        if skipped >= MAX_SKIPPED { Err(errors::not_finite(outcome.step)) } else { Ok(()) }
    };
    for micro_batch in loader {
        let micro_batch = micro_batch?;
        session.micro_batch(&micro_batch)?;
        record(session.last()?)?;
        if micro_batch.index + 1 == micro_batch.of {
            session.step(micro_batch.step, schedule.factor(micro_batch.step))?;
        }
    }
    record(session.last()?)?;
    save::adapter(&bundle, &session, &folder.join("adapter"))?;
    let summary = recorder.finish()?;
    Ok(Finished { summary, folder: folder.path().to_owned() })
}

/// Opens a run's inputs and compiles its plans without training, and describes the memory it needs.
///
/// # Errors
/// As [`train`].
pub fn dry_run(config: &Config) -> Result<String> {
    let bundle = Bundle::open(config)?;
    let plan = bundle.step_plan();
    let buckets = buckets(&plan, bundle.dataset.shapes());
    let device = open_device(config)?;
    let session = Session::new(&bundle, &device, &buckets)?;
    let (samples, shapes, steps) = (bundle.dataset.len(), buckets.len(), plan.steps());
    Ok(format!("{samples} samples, {shapes} batch shapes, {steps} steps\n{}", report::memory_table(session.memory())))
}

/// What plans are made for when no device is named: WebGPU's default limits, with buffers as large as GPUs have them.
pub(crate) fn planning_target() -> Target {
    Target { max_binding_bytes: (1 << 31) - 4, max_buffer_bytes: (1 << 31) - 4, ..Target::baseline() }
}

/// Opens the device that the configuration names.
pub(crate) fn open_device(config: &Config) -> Result<Device> {
    Ok(Device::open(&(&config.device).into(), &DeviceOptions::default())?)
}

fn device_record(device: &Device) -> DeviceRecord {
    let adapter = device.adapter();
    DeviceRecord {
        adapter: adapter.name.clone(),
        backend: adapter.backend.name().to_owned(),
        driver: adapter.driver.clone(),
    }
}

/// Hashes of inputs by name.
pub(crate) type Fingerprints = BTreeMap<String, String>;
