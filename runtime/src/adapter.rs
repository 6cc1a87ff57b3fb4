//! Which adapters there are, and which one a user means.

use std::fmt;
use std::str::FromStr;

use viral_shaders::{DeviceClass, Target};

use crate::capabilities::{self, CooperativeShape};
use crate::{Error, blocking};

/// A graphics interface, or the choice among those the platform has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Backend {
    /// Whatever has the best adapter; OpenGL only where nothing else has one.
    #[default]
    Auto,
    /// Vulkan: Linux, Windows, Android.
    Vulkan,
    /// Metal: macOS, iOS.
    Metal,
    /// Direct3D 12: Windows.
    Dx12,
    /// OpenGL: a fallback without subgroups and 16-bit floats.
    Gl,
}

/// A backend name that is none of `auto`, `vulkan`, `metal`, `dx12`, `gl`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown backend `{0}`; known: auto, vulkan, metal, dx12, gl")]
pub struct UnknownBackend(pub String);

/// What kind of hardware an adapter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AdapterKind {
    /// A GPU with its own memory.
    Discrete,
    /// A GPU that shares the processor's memory.
    Integrated,
    /// A GPU seen through a virtual machine.
    Virtual,
    /// The driver does not say.
    Other,
    /// A software device.
    Cpu,
}

/// Which adapter to open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AdapterChoice {
    /// Interface to use.
    pub backend: Backend,
    /// Part of the adapter's name, in any case, or its index in [`list`]; `None` takes the best one.
    pub adapter: Option<String>,
}

/// One adapter as `viral-wgpu devices` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdapterReport {
    /// Position in [`list`], which is best first; valid as [`AdapterChoice::adapter`].
    pub index: usize,
    /// The driver's name for the hardware.
    pub name: String,
    /// Interface through which it is reached.
    pub backend: Backend,
    /// Kind of hardware.
    pub kind: AdapterKind,
    /// Driver name and version.
    pub driver: String,
    /// What a device of this adapter can do.
    pub target: Target,
    /// Dispatches can be timed on the device.
    pub timestamps: bool,
    /// Compiled pipelines can be kept on disk.
    pub pipeline_cache: bool,
    /// Cooperative matrix products it lists.
    pub cooperative_matrix: Vec<CooperativeShape>,
    /// Why it cannot run plans, if it cannot.
    pub unsuitable: Option<String>,
}

/// All adapters of this machine, best first: by kind, then by interface.
///
/// Opens no device. An empty list means that there is no driver.
pub fn list() -> Vec<AdapterReport> {
    enumerate(EVERYTHING).into_iter().map(|(_, report)| report).collect()
}

impl Backend {
    /// The name a user types.
    pub fn name(self) -> &'static str {
        match self {
            Backend::Auto => "auto",
            Backend::Vulkan => "vulkan",
            Backend::Metal => "metal",
            Backend::Dx12 => "dx12",
            Backend::Gl => "gl",
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Backend {
    type Err = UnknownBackend;

    fn from_str(text: &str) -> Result<Self, UnknownBackend> {
        [Backend::Auto, Backend::Vulkan, Backend::Metal, Backend::Dx12, Backend::Gl]
            .into_iter()
            .find(|backend| backend.name().eq_ignore_ascii_case(text))
            .ok_or_else(|| UnknownBackend(text.to_owned()))
    }
}

impl fmt::Display for AdapterKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AdapterKind::Discrete => "discrete GPU",
            AdapterKind::Integrated => "integrated GPU",
            AdapterKind::Virtual => "virtual GPU",
            AdapterKind::Other => "other",
            AdapterKind::Cpu => "software (CPU)",
        })
    }
}

impl AdapterReport {
    /// Device, interface and driver, a line each: what the bits of results and the times of kernels depend on.
    pub fn with_driver(&self) -> String {
        [self.name.as_str(), self.backend.name(), &self.driver].join("\n")
    }
}

impl fmt::Display for AdapterReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.index, self.name, self.backend)
    }
}

/// Finds the adapter that `choice` means.
///
/// # Errors
/// [`Error::NoDevice`], [`Error::UnknownAdapter`] or [`Error::UnsuitableAdapter`].
pub(crate) fn choose(choice: &AdapterChoice) -> Result<(wgpu::Adapter, AdapterReport), Error> {
    // Loading a driver for OpenGL costs time and memory, so it waits until it is needed.
    if choice.backend != Backend::Gl
        && let Ok(found) = choose_among(NATIVE, choice)
    {
        return Ok(found);
    }
    choose_among(EVERYTHING, choice)
}

fn choose_among(backends: wgpu::Backends, choice: &AdapterChoice) -> Result<(wgpu::Adapter, AdapterReport), Error> {
    let mut adapters = enumerate(backends);
    adapters.retain(|(_, report)| choice.backend == Backend::Auto || report.backend == choice.backend);
    let reports: Vec<_> = adapters.iter().map(|(_, report)| report).collect();
    let position = pick(choice, &reports)?;
    Ok(adapters.swap_remove(position))
}

const NATIVE: wgpu::Backends = wgpu::Backends::VULKAN.union(wgpu::Backends::METAL).union(wgpu::Backends::DX12);
const EVERYTHING: wgpu::Backends = NATIVE.union(wgpu::Backends::GL);

/// Opens wgpu's stand-in for a device, which accepts and checks every command and computes nothing.
pub(crate) fn noop() -> Result<(wgpu::Adapter, AdapterReport), Error> {
    let options = wgpu::NoopBackendOptions {
        limits: Some(wgpu::Limits::default()),
        features: Some(wgpu::Features::empty()),
        ..wgpu::NoopBackendOptions::enabled()
    };
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends: wgpu::Backends::NOOP,
        backend_options: wgpu::BackendOptions { noop: options, ..Default::default() },
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    let adapter = blocking::wait(instance.enumerate_adapters(wgpu::Backends::NOOP)).into_iter().next();
    let adapter = adapter.ok_or_else(|| Error::NoDevice { backend: "noop".to_owned() })?;
    let mut report = report(&adapter, Backend::Auto);
    // It calls itself a processor, which would select the kernels for one; it stands for hardware in general.
    report.kind = AdapterKind::Other;
    report.target.class = DeviceClass::Gpu;
    Ok((adapter, report))
}

/// Position in `reports` (best first, already of the chosen backend) of the one that `choice` means.
fn pick(choice: &AdapterChoice, reports: &[&AdapterReport]) -> Result<usize, Error> {
    if reports.is_empty() {
        return Err(Error::NoDevice { backend: choice.backend.to_string() });
    }
    let matches = |report: &AdapterReport| match &choice.adapter {
        None => true,
        Some(wanted) => match wanted.parse::<usize>() {
            Ok(index) => report.index == index,
            Err(_) => report.name.to_lowercase().contains(&wanted.to_lowercase()),
        },
    };
    let matching: Vec<usize> = (0..reports.len()).filter(|&i| matches(reports[i])).collect();
    let Some(&first) = matching.first() else {
        return Err(Error::UnknownAdapter {
            wanted: choice.adapter.clone().unwrap_or_default(),
            available: reports.iter().map(|report| report.to_string()).collect(),
        });
    };
    match matching.iter().find(|&&i| reports[i].unsuitable.is_none()) {
        Some(&position) => Ok(position),
        None => Err(Error::UnsuitableAdapter {
            adapter: reports[first].name.clone(),
            why: reports[first].unsuitable.clone().unwrap_or_default(),
        }),
    }
}

/// Adapters, the best first: those of OpenGL come last, so that the others have the same numbers without them.
fn enumerate(backends: wgpu::Backends) -> Vec<(wgpu::Adapter, AdapterReport)> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends,
        // No debug layers: this crate checks plans before the driver sees them.
        flags: wgpu::InstanceFlags::empty(),
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    let mut adapters: Vec<_> = blocking::wait(instance.enumerate_adapters(backends))
        .into_iter()
        .filter_map(|adapter| {
            let backend = match adapter.get_info().backend {
                wgpu::Backend::Vulkan => Backend::Vulkan,
                wgpu::Backend::Metal => Backend::Metal,
                wgpu::Backend::Dx12 => Backend::Dx12,
                wgpu::Backend::Gl => Backend::Gl,
                wgpu::Backend::Noop | wgpu::Backend::BrowserWebGpu => return None,
            };
            let report = report(&adapter, backend);
            Some((adapter, report))
        })
        .collect();
    // A stable sort: adapters that are equal in rank stay in the driver's order.
    adapters.sort_by_key(|(_, report)| (report.backend == Backend::Gl, report.kind, backend_rank(report.backend)));
    for (index, (_, report)) in adapters.iter_mut().enumerate() {
        report.index = index;
    }
    adapters
}

/// The platform's own interface first.
fn backend_rank(backend: Backend) -> u32 {
    match backend {
        Backend::Metal => 0,
        Backend::Vulkan => 1,
        Backend::Dx12 => 2,
        Backend::Gl => 3,
        Backend::Auto => 4,
    }
}

fn report(adapter: &wgpu::Adapter, backend: Backend) -> AdapterReport {
    let info = adapter.get_info();
    let features = adapter.features();
    let cooperative_matrix = capabilities::cooperative_shapes(adapter);
    let target = capabilities::target(&info, features, &adapter.limits(), &cooperative_matrix);
    AdapterReport {
        index: 0,
        name: if info.name.is_empty() { "unnamed".to_owned() } else { info.name },
        backend,
        kind: match info.device_type {
            wgpu::DeviceType::DiscreteGpu => AdapterKind::Discrete,
            wgpu::DeviceType::IntegratedGpu => AdapterKind::Integrated,
            wgpu::DeviceType::VirtualGpu => AdapterKind::Virtual,
            wgpu::DeviceType::Other => AdapterKind::Other,
            wgpu::DeviceType::Cpu => AdapterKind::Cpu,
        },
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
        timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY),
        pipeline_cache: features.contains(wgpu::Features::PIPELINE_CACHE),
        cooperative_matrix,
        unsuitable: capabilities::unsuitable(adapter, &target),
        target,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapters(named: &[(&str, bool)]) -> Vec<AdapterReport> {
        let report = |(index, &(name, suitable)): (usize, &(&str, bool))| AdapterReport {
            // As in a list that another backend's adapters were taken out of.
            index: 2 * index,
            name: name.to_owned(),
            backend: Backend::Vulkan,
            kind: AdapterKind::Discrete,
            driver: String::new(),
            target: Target::baseline(),
            timestamps: false,
            pipeline_cache: false,
            cooperative_matrix: Vec::new(),
            unsuitable: (!suitable).then(|| "it has no compute shaders".to_owned()),
        };
        named.iter().enumerate().map(report).collect()
    }

    fn pick_from(named: &[(&str, bool)], adapter: Option<&str>) -> Result<usize, Error> {
        let adapters = adapters(named);
        let choice = AdapterChoice { backend: Backend::Vulkan, adapter: adapter.map(str::to_owned) };
        pick(&choice, &adapters.iter().collect::<Vec<_>>())
    }

    #[test]
    fn names_and_indices_pick_the_best_that_fits() {
        let machine = [("Old GL card", false), ("NVIDIA H200", true), ("NVIDIA T4", true), ("llvmpipe", true)];
        assert_eq!(pick_from(&machine, None), Ok(1));
        assert_eq!(pick_from(&machine, Some("nvidia")), Ok(1));
        assert_eq!(pick_from(&machine, Some("t4")), Ok(2));
        assert_eq!(pick_from(&machine, Some("6")), Ok(3));
    }

    #[test]
    fn what_cannot_be_picked_is_an_error_that_helps() {
        let machine = [("Old GL card", false), ("llvmpipe", true)];
        let message = |adapter| pick_from(&machine, Some(adapter)).unwrap_err().to_string();
        assert_eq!(
            message("radeon"),
            "no adapter matches `radeon`; available: 0: Old GL card (vulkan), 2: llvmpipe (vulkan)"
        );
        assert_eq!(
            message("old"),
            "adapter `Old GL card` cannot be used: it has no compute shaders; `viral-wgpu devices` lists the others"
        );
        assert_eq!(pick_from(&[], None), Err(Error::NoDevice { backend: "vulkan".into() }));
    }

    #[test]
    fn backends_have_the_names_that_users_type() {
        assert_eq!("Vulkan".parse(), Ok(Backend::Vulkan));
        assert_eq!("gl".parse(), Ok(Backend::Gl));
        let error = "cuda".parse::<Backend>().unwrap_err();
        assert_eq!(error.to_string(), "unknown backend `cuda`; known: auto, vulkan, metal, dx12, gl");
    }
}
