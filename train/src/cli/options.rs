//! Options that several commands share.

use std::path::Path;

use clap::builder::PossibleValuesParser;

use crate::config::{Assignment, Backend, Config, Overrides};
use crate::error::{Error, Result};

/// Everything on the command line that changes a configuration.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Options {
    /// Set a configuration key; may be repeated
    #[arg(long, value_name = "KEY=VALUE", help_heading = "Configuration")]
    set: Vec<String>,
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
    /// The configuration in `file`, with environment and command line applied.
    pub(super) fn load(&self, file: &Path) -> Result<Config> {
        Config::load(file, &self.overrides()?)
    }

    /// As [`Options::load`], with the run folder of `--out` if there is one.
    pub(super) fn load_with_output(&self, file: &Path, out: Option<&Path>) -> Result<Config> {
        let mut overrides = self.overrides()?;
        if let Some(out) = out {
            // Paths of the configuration start at its file, those of the command line at the current folder.
            let out = std::path::absolute(out).map_err(|error| Error::io("resolve", out, &error))?;
            overrides.flags.push(Assignment::from_flag("--out", "output.dir", &out.to_string_lossy())?);
        }
        Config::load(file, &overrides)
    }

    /// The default configuration, with environment and command line applied.
    pub(super) fn load_defaults(&self) -> Result<Config> {
        load_defaults(&self.overrides()?)
    }

    fn overrides(&self) -> Result<Overrides> {
        let set = self.set.iter().map(|argument| Assignment::from_set(argument)).collect::<Result<_>>()?;
        Ok(Overrides { set, ..self.device.overrides()? })
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

fn backends() -> PossibleValuesParser {
    PossibleValuesParser::new(Backend::ALL.iter().map(|backend| backend.name()))
}
