//! An open device: the one handle through which memory, pipelines and submissions go.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use viral_compiler::plan::Plan;
use viral_shaders::{DeviceClass, Kernel, Target, Tuning};

use crate::adapter::{self, AdapterChoice, AdapterReport};
use crate::buffer::Accounts;
use crate::capabilities;
use crate::health::Health;
use crate::host_memory::{self, HostMemory};
use crate::matrices;
use crate::pipeline::{Counters, Pipelines};
use crate::profile::Profiler;
use crate::submission::Submission;
use crate::transfer::Transfers;
use crate::{Error, MemoryUsage, blocking, trusted};

/// Which run-time checks are compiled into kernels.
///
/// On Vulkan the driver keeps accesses inside their buffers, so [`Checks::Bounds`] and [`Checks::Off`] make the same code
/// there; on Mesa's software device [`Checks::Full`] is as fast as either (matrix products of 512³, 37 to 50 GFLOP/s by
/// processor time with each). On Metal and Direct3D each check costs instructions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Checks {
    /// All: every access stays inside its binding, every loop ends, no division traps.
    #[default]
    Full,
    /// Only that every access stays inside its binding.
    Bounds,
    /// None that the driver does not make by itself. For kernels that have been run with checks on the same shapes.
    Off,
}

/// How to open a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceOptions {
    /// Run-time checks in kernels.
    pub checks: Checks,
    /// Bytes of device memory this program may use; beyond it, allocations fail as if the device were full.
    pub memory_limit: Option<u64>,
    /// Bytes that kernels may bind at once, where the device could bind more: what plans for a smaller device do.
    pub binding_limit: Option<u64>,
    /// Ask for cooperative matrices, which wgpu still calls experimental. Where the adapter has some that kernels can use, and
    /// a test of a few products finds them right, [`Target::cooperative_matrix`] says so.
    pub cooperative_matrix: bool,
    /// Folder in which compiled pipelines are kept between runs, where the driver supports that.
    pub pipeline_cache: Option<PathBuf>,
}

/// An open device. Clones are handles to the same one.
#[derive(Clone)]
pub struct Device {
    inner: Arc<Inner>,
    target: Arc<Target>,
}

struct Inner {
    /// Where a software device's buffers lie. Dropped before the device.
    host_memory: Option<HostMemory>,
    device: wgpu::Device,
    queue: wgpu::Queue,
    adapter: AdapterReport,
    options: DeviceOptions,
    /// What the device was opened on.
    origin: wgpu::Adapter,
    features: wgpu::Features,
    health: Arc<Health>,
    accounts: Arc<Accounts>,
    pipelines: Pipelines,
    transfers: Mutex<Transfers>,
    profiler: Mutex<Option<Profiler>>,
    counters: OnceLock<Counters>,
    cooperative_fault: OnceLock<String>,
}

impl Device {
    /// Opens the adapter that `choice` means, with all its limits and every optional feature that kernels can use.
    ///
    /// # Errors
    /// [`Error::NoDevice`], [`Error::UnknownAdapter`], [`Error::UnsuitableAdapter`], [`Error::DeviceRefused`].
    pub fn open(choice: &AdapterChoice, options: &DeviceOptions) -> Result<Self, Error> {
        let (adapter, report) = adapter::choose(choice)?;
        Self::from_adapter(adapter, report, options)?.tested()
    }

    /// Another device of the same adapter, which keeps no pipelines for later.
    pub(crate) fn another(&self) -> Result<Self, Error> {
        let options = DeviceOptions { pipeline_cache: None, ..self.inner.options.clone() };
        Self::from_adapter(self.inner.origin.clone(), self.inner.adapter.clone(), &options)
    }

    /// A device that checks every command against WebGPU's default limits and computes nothing: reads return zeros or what
    /// was written. For tests and for planning without a GPU.
    ///
    /// # Errors
    /// [`Error::DeviceRefused`], which does not happen with a wgpu that was built with its `noop` feature.
    pub fn noop(options: &DeviceOptions) -> Result<Self, Error> {
        let (adapter, report) = adapter::noop()?;
        Self::from_adapter(adapter, report, options)?.tested()
    }

    fn from_adapter(adapter: wgpu::Adapter, report: AdapterReport, options: &DeviceOptions) -> Result<Self, Error> {
        let mut wanted = capabilities::wanted_features();
        let mut experimental_features = wgpu::ExperimentalFeatures::disabled();
        if options.cooperative_matrix {
            wanted |= wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX;
            experimental_features = trusted::experimental_features();
        }
        let features = adapter.features() & wanted;
        let limits = adapter.limits();
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("viral-wgpu"),
            required_features: features,
            required_limits: limits.clone(),
            experimental_features,
            memory_hints: wgpu::MemoryHints::Performance,
            trace: wgpu::Trace::Off,
        };
        let is_software = report.target.class == DeviceClass::Cpu;
        let with_memory = is_software.then(|| host_memory::request_device(&adapter, &descriptor)).flatten();
        let (device, queue, host_memory) = match with_memory {
            Some((device, queue, memory)) => (device, queue, Some(memory)),
            None => {
                let opened = blocking::wait(adapter.request_device(&descriptor));
                let (device, queue) = opened.map_err(|error| Error::DeviceRefused {
                    adapter: report.name.clone(),
                    message: error.to_string(),
                })?;
                (device, queue, None)
            }
        };
        let health = Health::watch(&device);
        let info = adapter.get_info();
        let pipelines = Pipelines::new(&device, &info, features, options);
        let mut target = capabilities::target(&info, features, &limits, &report.cooperative_matrix);
        target.max_binding_bytes = target.max_binding_bytes.min(options.binding_limit.unwrap_or(u64::MAX));
        Ok(Self {
            target: Arc::new(Target { class: report.target.class, ..target }),
            inner: Arc::new(Inner {
                host_memory,
                adapter: report,
                options: options.clone(),
                origin: adapter,
                features,
                health,
                accounts: Arc::new(Accounts::new(options.memory_limit)),
                pipelines,
                transfers: Mutex::default(),
                profiler: Mutex::default(),
                counters: OnceLock::new(),
                cooperative_fault: OnceLock::new(),
                device,
                queue,
            }),
        })
    }

    /// The device, without cooperative matrices if they compute wrong products.
    fn tested(mut self) -> Result<Self, Error> {
        if let Some(fault) = matrices::fault(&self)? {
            self.target = Arc::new(Target { cooperative_matrix: None, ..(*self.target).clone() });
            // Nobody has set it before: the device is new.
            let _ = self.inner.cooperative_fault.set(fault);
        }
        Ok(self)
    }

    /// The same device, whose [`Device::target`] says what was measured on it.
    pub fn tuned(&self, tuning: Tuning) -> Self {
        Self { target: Arc::new(Target { tuning, ..(*self.target).clone() }), ..self.clone() }
    }

    /// What the device can do: what a plan for it must be compiled for.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Why the device's cooperative matrices are not used although they were asked for and are there: the product that they
    /// get wrong.
    pub fn cooperative_fault(&self) -> Option<&str> {
        self.inner.cooperative_fault.get().map(String::as_str)
    }

    /// The adapter it was opened on.
    pub fn adapter(&self) -> &AdapterReport {
        &self.inner.adapter
    }

    /// Device memory allocated by this program: every buffer of this crate, staging included.
    pub fn memory(&self) -> MemoryUsage {
        self.inner.accounts.usage()
    }

    /// Compiles the kernels of plans that will be bound, all of them side by side.
    ///
    /// # Errors
    /// As [`Executable::new`](crate::Executable::new).
    pub fn prepare<'p>(&self, plans: impl IntoIterator<Item = &'p Plan>) -> Result<(), Error> {
        let kernels: Vec<&Kernel> = plans.into_iter().flat_map(|plan| &plan.kernels).collect();
        self.inner.pipelines.prepare(self, &kernels)
    }

    /// Number of distinct pipelines compiled so far.
    pub fn pipeline_count(&self) -> usize {
        self.inner.pipelines.count()
    }

    /// The file in which compiled pipelines are kept, if it was damaged when the device was opened. Then kernels are compiled
    /// again, and the file is replaced.
    pub fn damaged_pipeline_cache(&self) -> Option<&Path> {
        self.inner.pipelines.damaged()
    }

    /// Fails if the device was lost or has refused a command at any time since it was opened.
    ///
    /// # Errors
    /// The first fault, again and again: after one, the content of device memory means nothing.
    pub fn check(&self) -> Result<(), Error> {
        self.inner.health.check()
    }

    /// Waits until all submitted work is done.
    ///
    /// # Errors
    /// [`Error::DeviceLost`] or the first fault of another kind.
    pub fn wait(&self) -> Result<(), Error> {
        self.poll(wgpu::PollType::wait_indefinitely())
    }

    /// Closes the device at once. Every later call on it, or on anything made from it, fails with [`Error::DeviceLost`].
    pub fn close(&self) {
        self.inner.health.report(Error::DeviceLost { reason: "it was closed by this program".to_owned() });
        self.inner.device.destroy();
    }

    /// Fails if `kernel` needs a feature that this device was not opened with.
    pub(crate) fn check_requirements(&self, kernel: &Kernel) -> Result<(), Error> {
        let needs = [
            (kernel.requires.subgroups, wgpu::Features::SUBGROUP, "subgroup operations"),
            (kernel.requires.f16, wgpu::Features::SHADER_F16, "16-bit floats"),
            (kernel.requires.int64, wgpu::Features::SHADER_INT64, "64-bit integers"),
            (
                kernel.requires.cooperative_matrix.is_some(),
                wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX,
                "cooperative matrices",
            ),
        ];
        match needs.into_iter().find(|(needed, feature, _)| *needed && !self.inner.features.contains(*feature)) {
            None => Ok(()),
            Some((_, _, feature)) => Err(Error::MissingFeature {
                kernel: kernel.name.clone(),
                feature,
                adapter: self.inner.adapter.name.clone(),
            }),
        }
    }

    /// Hands finished commands to the device.
    pub(crate) fn submit(&self, commands: Option<wgpu::CommandBuffer>) -> Result<Submission, Error> {
        self.check()?;
        let index = self.inner.queue.submit(commands);
        self.check()?;
        Ok(Submission::new(self.clone(), index))
    }

    /// Lets wgpu finish what it can, or waits, and reports what went wrong meanwhile.
    pub(crate) fn poll(&self, how: wgpu::PollType) -> Result<(), Error> {
        self.check()?;
        let polled = self.inner.device.poll(how);
        self.check()?;
        polled.map(|_| ()).map_err(|error| Error::Refused { message: error.to_string() })
    }

    pub(crate) fn raw(&self) -> &wgpu::Device {
        &self.inner.device
    }

    pub(crate) fn queue(&self) -> &wgpu::Queue {
        &self.inner.queue
    }

    pub(crate) fn checks(&self) -> Checks {
        self.inner.options.checks
    }

    /// Where buffers lie that are not left to wgpu.
    pub(crate) fn host_memory(&self) -> Option<&HostMemory> {
        self.inner.host_memory.as_ref()
    }

    pub(crate) fn accounts(&self) -> &Arc<Accounts> {
        &self.inner.accounts
    }

    /// The buffer of [`Requirements::counters`](viral_shaders::Requirements::counters).
    pub(crate) fn counters(&self) -> Result<&Counters, Error> {
        if let Some(counters) = self.inner.counters.get() {
            return Ok(counters);
        }
        let counters = Counters::new(self)?;
        Ok(self.inner.counters.get_or_init(|| counters))
    }

    pub(crate) fn pipelines(&self) -> &Pipelines {
        &self.inner.pipelines
    }

    pub(crate) fn profiler(&self) -> &Mutex<Option<Profiler>> {
        &self.inner.profiler
    }

    pub(crate) fn transfers(&self) -> &Mutex<Transfers> {
        &self.inner.transfers
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device").field("adapter", &self.inner.adapter.to_string()).finish_non_exhaustive()
    }
}
