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
//! [`Training::run`] below calls them from top to bottom; [`checkpoint`] saves its state on the way and brings it back. [`guard`] looks at every
//! step's figures, [`validation`] evaluates on samples that are not learnt from. [`planned`], [`report`] and [`inspect`] show what a
//! run needs and computes.

mod bundle;
mod checkpoint;
mod errors;
mod guard;
mod init;
mod inspect;
mod layout;
mod open_data;
mod planned;
mod prepare;
mod report;
mod save;
mod session;
mod sources;
mod speed;
mod step_graph;
mod stored;
#[cfg(test)]
mod tests;
mod update_graph;
mod validation;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use viral_compiler::Target;
use viral_runtime::{Checks, Device, DeviceOptions};

use crate::config::{Config, Kept, Precision};
use crate::data::{Loader, LrSchedule, buckets};
use crate::error::Result;
use crate::measure::Profiler;
use crate::run::{DeviceRecord, Interrupt, Recorder, RunFolder, RunRecord, Summary};
use crate::store::{Disk, SystemDisk};
use crate::tuning;
pub use bundle::{Bundle, Networks};
pub use checkpoint::Resume;
use checkpoint::{Keeper, Start};
use guard::Guard;
pub use inspect::Inspection;
pub use open_data::{open_data, open_datasets, step_plan};
pub use planned::{Expected, Planned, Work, plan};
#[cfg(test)]
pub(crate) use prepare::Preparer;
pub use report::dump;
pub use session::{Culprit, Session};
pub(crate) use sources::tuned_for_step;
pub use speed::{StepShape, StepSpeed, measure_step};
pub(crate) use stored::{activation_type, options_for};
use validation::Validator;

/// Threads that prepare batches ahead of the device.
const WORKERS: usize = 2;
/// How a run ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// First and last step, and the time between; nothing if there was no step.
    pub summary: Option<Summary>,
    /// The run folder.
    pub folder: std::path::PathBuf,
    /// Where the time went, if that was asked for.
    pub profile: Option<String>,
}

/// Trains as `config` says and leaves a run folder.
///
/// # Errors
/// As [`Training::run`].
pub fn train(config: &Config) -> Result<Finished> {
    Training::new(config).run()
}

/// A training run that is about to begin or to go on.
pub struct Training<'c> {
    config: &'c Config,
    resume: Option<Resume>,
    interrupt: Interrupt,
    disk: Arc<dyn Disk>,
    profiled: u64,
    pipelines: Option<PathBuf>,
    device: Option<Device>,
    tuning: Option<PathBuf>,
}

impl<'c> Training<'c> {
    /// A run that begins at its front and that nobody interrupts.
    pub fn new(config: &'c Config) -> Self {
        let disk = Arc::new(SystemDisk);
        let interrupt = Interrupt::default();
        Self { config, resume: None, interrupt, disk, profiled: 0, pipelines: None, device: None, tuning: None }
    }

    /// Goes on from a checkpoint, bit for bit as if the run had never stopped.
    pub fn resume(self, resume: Resume) -> Self {
        Self { resume: Some(resume), ..self }
    }

    /// Ends with a checkpoint when `interrupt` says so.
    pub fn interruptible(self, interrupt: Interrupt) -> Self {
        Self { interrupt, ..self }
    }

    /// Times every launch of this many steps after the first; the run folder gets a `trace.json`.
    pub fn profiled(self, steps: u64) -> Self {
        Self { profiled: steps, ..self }
    }

    /// Keeps compiled pipelines in this folder between runs, where the driver supports that.
    pub fn pipelines(self, folder: Option<PathBuf>) -> Self {
        Self { pipelines: folder, ..self }
    }

    /// Trains on a device that is open already, which [`open_device`] opened for a configuration of the same device and
    /// precision. What it has compiled for earlier runs is not compiled again.
    pub fn on(self, device: Device) -> Self {
        Self { device: Some(device), ..self }
    }

    /// Keeps what is measured about kernels in this folder, and finds there what was measured before.
    pub fn tuning(self, folder: Option<PathBuf>) -> Self {
        Self { tuning: folder, ..self }
    }

    /// Trains and leaves a run folder.
    ///
    /// # Errors
    /// Every failure a user can cause has its own message and exit code; see [`crate::error::Kind`].
    pub fn run(self) -> Result<Finished> {
        let Self { config, resume, interrupt, disk, profiled, pipelines, device, tuning } = self;
        let folder = match resume {
            Some(_) => RunFolder::open(&config.output.dir)?,
            None => RunFolder::create(&config.output.dir)?,
        };
        let bundle = Bundle::open(config)?;
        let fingerprints = bundle.fingerprints()?;
        let start = match &resume {
            Some(resume) => checkpoint::start(&folder, config, &fingerprints, resume, Arc::clone(&disk))?,
            None => Start::default(),
        };
        let plan = Arc::new(bundle.step_plan());
        let device = device.map_or_else(|| open_device(config, pipelines), Ok)?;
        let buckets = buckets(&plan, bundle.dataset.shapes());
        let device = match resume {
            Some(_) => tuning::resumed(&device, config, &folder)?,
            None => {
                let graphs = |target: &Target| sources::of_run(&bundle, &buckets, target);
                let is_stopped = || interrupt.signal().is_some();
                tuning::fresh(&device, config, tuning.as_deref(), &folder, &graphs, &is_stopped)?
            }
        };
        let mut session = Session::new(&bundle, &device, &buckets)?;
        if profiled > 0 {
            // The first step is unlike the others: drivers finish compiling in it. A run of one step has no other.
            let first = (start.step + 1).min(plan.steps().saturating_sub(1));
            session.watch(Profiler::new(first..first.saturating_add(profiled)));
        }
        if let Some(checkpoint) = &start.checkpoint {
            session.restore(checkpoint)?;
        }
        log::info!("{}", planned::memory_table(session.memory()));

        let record = RunRecord::new(config, device_record(&device), plan.steps(), fingerprints.clone());
        let mut recorder = match resume {
            Some(_) => Recorder::resume(&folder, RunRecord { resumed_from: Some(start.step), ..record })?,
            None => Recorder::start(&folder, record)?,
        };
        let mut keeper = Keeper::new(&folder, &bundle, &plan, fingerprints, start.best, Arc::clone(&disk));
        let validator = Validator::new(&bundle, plan.steps());
        let schedule = LrSchedule::new(config.train.schedule, plan.steps(), config.train.warmup_ratio);
        let (dataset, prepare) = (bundle.dataset.clone(), bundle.prepare.clone());
        let mut loader = Loader::start(dataset, prepare, bundle.geometry, Arc::clone(&plan), start.step, WORKERS)?;

        let mut guard = Guard::new(&bundle, start.skipped_in_a_row);
        while let Some(micro_batch) = session.host("data", || loader.next()) {
            let micro_batch = micro_batch?;
            session.micro_batch(&micro_batch)?;
            guard.record(&mut session, &mut recorder, None)?;
            let (step, is_last) = (micro_batch.step, micro_batch.index + 1 == micro_batch.of);
            guard.remember(micro_batch);
            if !is_last {
                continue;
            }
            session.step(step, schedule.factor(step))?;
            let done = step + 1;
            let validation = validator.as_ref().filter(|validator| validator.is_due(done));
            let mut validation = validation.map(|validator| validator.run(&mut session, step)).transpose()?;
            validation.iter_mut().for_each(|validation| keeper.judge(done, validation));
            let (is_validated, is_best) = (validation.is_some(), validation.as_ref().is_some_and(|found| found.best));
            let signal = interrupt.signal();
            let is_saved = keeper.is_due(done) || is_best || signal.is_some();
            if !is_saved && !is_validated {
                continue;
            }
            // Figures of the steps done come first: what a checkpoint says is behind it is on the disk.
            guard.record(&mut session, &mut recorder, validation)?;
            recorder.restart_clock();
            if !is_saved {
                continue;
            }
            recorder.sync()?;
            session.settle()?;
            let checkpoint = keeper.save(&session, done, guard.skipped_in_a_row())?;
            recorder.restart_clock();
            if let Some(signal) = signal.filter(|_| done < plan.steps()) {
                recorder.interrupt()?;
                return Err(errors::interrupted(signal, folder.path(), &checkpoint));
            }
        }
        guard.record(&mut session, &mut recorder, None)?;
        session.settle()?;
        if config.output.adapter == Kept::Best
            && let Some(best) = keeper.earlier_best(plan.steps())
        {
            log::info!("the results are those of {}", best.display());
            session.restore(&best)?;
        }
        save::adapter(&bundle, &session, &*disk, &folder.join("adapter"))?;
        save::model(&bundle, &session, &*disk, &folder.join("model"))?;
        let summary = recorder.finish()?;
        let profile = session.profiler().map(|profiler| write_profile(profiler, &folder, &device)).transpose()?;
        Ok(Finished { summary, folder: folder.path().to_owned(), profile })
    }
}

/// Writes the trace and returns the tables.
fn write_profile(profiler: Profiler, folder: &RunFolder, device: &Device) -> Result<String> {
    let profile = profiler.finish();
    folder.write("trace.json", profile.trace.to_string().as_bytes())?;
    profile.tables(device)
}

/// Opens a run's inputs and compiles its plans without training, and describes the memory it needs.
///
/// # Errors
/// As [`train`].
pub fn dry_run(config: &Config, tuning: Option<&Path>) -> Result<String> {
    let bundle = Bundle::open(config)?;
    let plan = bundle.step_plan();
    let buckets = buckets(&plan, bundle.dataset.shapes());
    let device = cached(open_device(config, None)?, config, tuning);
    let session = Session::new(&bundle, &device, &buckets)?;
    let (samples, shapes, steps) = (bundle.dataset.len(), buckets.len(), plan.steps());
    Ok(format!("{samples} samples, {shapes} batch shapes, {steps} steps\n{}", planned::memory_table(session.memory())))
}

/// What plans are made for when no device is named: WebGPU's default limits, with buffers as large as GPUs have them.
pub(crate) fn planning_target() -> Target {
    Target { max_binding_bytes: (1 << 31) - 4, max_buffer_bytes: (1 << 31) - 4, ..Target::baseline() }
}

/// A device with the kernels that were measured on it before, if the configuration wants them. Nothing is measured.
pub(crate) fn cached(device: Device, config: &Config, folder: Option<&Path>) -> Device {
    let target = tuning::cached(device.adapter(), device.target().clone(), config, folder);
    device.tuned(target.tuning)
}

/// Opens the device that the configuration names. Compiled pipelines are kept in `pipelines` between runs, if it is given.
/// Cooperative matrices come with it where numbers need not be f32.
///
/// # Errors
/// If there is no such device, or it refuses to be opened.
pub fn open_device(config: &Config, pipelines: Option<PathBuf>) -> Result<Device> {
    match config.train.precision {
        Precision::F32 => open_with(config, &device_options(pipelines)),
        Precision::Bf16 | Precision::F16 => open_device_with_matrices(config, pipelines),
    }
}

/// As [`open_device`], with cooperative matrices where the device has some that compute right.
pub(crate) fn open_device_with_matrices(config: &Config, pipelines: Option<PathBuf>) -> Result<Device> {
    let options = DeviceOptions { cooperative_matrix: true, ..device_options(pipelines) };
    let device = open_with(config, &options)?;
    if let Some(fault) = device.cooperative_fault() {
        log::warn!("cooperative matrices are not used: {fault}");
    }
    Ok(device)
}

/// Every loop of a kernel has an end, which tests of kernels see to; counting its turns costs a few per cent of its time.
fn device_options(pipelines: Option<PathBuf>) -> DeviceOptions {
    DeviceOptions { checks: Checks::Bounds, pipeline_cache: pipelines, ..DeviceOptions::default() }
}

fn open_with(config: &Config, options: &DeviceOptions) -> Result<Device> {
    let device = Device::open(&(&config.device).into(), options)?;
    if let Some(file) = device.damaged_pipeline_cache() {
        log::warn!("{}: damaged, so kernels are compiled again", file.display());
    }
    Ok(device)
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
