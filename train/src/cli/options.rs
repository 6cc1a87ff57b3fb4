//! Options that several commands share.

use std::path::Path;

use clap::builder::PossibleValuesParser;

use viral_compiler::Target;
use viral_runtime::AdapterChoice;

use super::{cache, devices};
use crate::config::{Assignment, Backend, Config, Overrides, Tune};
use crate::engine;
use crate::error::{Error, Result};
use crate::tuning;

/// Everything on the command line that changes a configuration.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Options {
    /// Set a configuration key; may be repeated
    #[arg(long, value_name = "KEY=VALUE", help_heading = "Configuration")]
    set: Vec<String>,
    /// Kernels by rule (off), as they were measured on this device before (cached), or measured first, which may take
    /// device.tune_seconds (full)
    #[arg(long, value_name = "HOW", value_parser = tunes(), help_heading = "Configuration")]
    tune: Option<String>,
    #[command(flatten)]
    device: DeviceOptions,
}

/// The choice of a device.
#[derive(Debug, Default, clap::Args)]
pub(super) struct DeviceOptions {
    /// Graphics interface
    #[arg(long, value_parser = backends(), help_heading = "Configuration")]
    backend: Option<String>,
    /// Device: a number from `viral-wgpu devices`, or part of a name
    #[arg(long, value_name = "NAME|INDEX", help_heading = "Configuration")]
    adapter: Option<String>,
}

impl Options {
    /// The configuration in `file`, with environment and command line applied; `flag` is one that only one command has.
    pub(super) fn load(&self, file: &Path, flag: Option<Assignment>) -> Result<Config> {
        let mut overrides = self.overrides()?;
        overrides.flags.extend(flag);
        Config::load(file, &overrides)
    }

    /// As [`Options::load`], over values in the place of those in `file`.
    pub(super) fn load_over(&self, file: &Path, values: impl Iterator<Item = Assignment>) -> Result<Config> {
        let mut overrides = self.overrides()?;
        overrides.set.splice(0..0, values);
        Config::load(file, &overrides)
    }

    /// Whether flags name a device.
    pub(super) fn names_a_device(&self) -> bool {
        self.device.backend.is_some() || self.device.adapter.is_some()
    }

    /// What to plan for: the device that flags name, or a GPU in general.
    pub(super) fn target(&self) -> Result<Target> {
        if !self.names_a_device() {
            return Ok(engine::planning_target());
        }
        let config = self.load_defaults()?;
        let adapter = devices::find(&AdapterChoice::from(&config.device))?;
        Ok(tuning::cached(&adapter, adapter.target.clone(), &config, cache::tuning().as_deref()))
    }

    /// The default configuration, with environment and command line applied.
    pub(super) fn load_defaults(&self) -> Result<Config> {
        load_defaults(&self.overrides()?)
    }

    fn overrides(&self) -> Result<Overrides> {
        let set = self.set.iter().map(|argument| Assignment::from_set(argument)).collect::<Result<_>>()?;
        let mut overrides = Overrides { set, ..self.device.overrides()? };
        if let Some(tune) = &self.tune {
            overrides.flags.push(Assignment::from_flag("--tune", "device.tune", tune)?);
        }
        Ok(overrides)
    }
}

impl DeviceOptions {
    /// The default configuration, with environment and command line applied.
    pub(super) fn load_defaults(&self) -> Result<Config> {
        load_defaults(&self.overrides()?)
    }

    fn overrides(&self) -> Result<Overrides> {
        let environment = Assignment::from_environment(|name| std::env::var(name).ok())?;
        let mut flags = Vec::new();
        if let Some(backend) = &self.backend {
            flags.push(Assignment::from_flag("--backend", "device.backend", backend)?);
        }
        if let Some(adapter) = &self.adapter {
            flags.push(Assignment::from_flag("--adapter", "device.adapter", adapter)?);
        }
        Ok(Overrides { environment, set: Vec::new(), flags })
    }
}

fn load_defaults(overrides: &Overrides) -> Result<Config> {
    let here = std::env::current_dir().map_err(|error| Error::io("find the current folder", Path::new("."), &error))?;
    Config::without_file(&here, overrides)
}

fn tunes() -> PossibleValuesParser {
    PossibleValuesParser::new(Tune::ALL.iter().map(|tune| tune.name()))
}

fn backends() -> PossibleValuesParser {
    PossibleValuesParser::new(Backend::ALL.iter().map(|backend| backend.name()))
}
