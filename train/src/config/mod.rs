//! The configuration: a TOML file, the environment and the command line become one checked [`Config`].
//!
//! * `keys.rs` lists every key once; everything else about keys derives from that table.
//! * `values.rs` lists the words that keys accept.
//! * `layers.rs` reads assignments from each source; [`Config::load`] applies them in order of precedence,
//!   flag over `--set` over environment over file over recipe over default.
//! * `recipe.rs` lists the rows of the paper's tables, each a name for a few keys.
//! * `validate.rs` checks ranges, combinations, paths, and names what this version does not carry out yet.
//! * `changes.rs` compares two configurations, for runs that are resumed.
//! * `render.rs` writes a configuration back as TOML.

mod changes;
mod device;
mod keys;
mod layers;
mod nearest;
mod recipe;
mod render;
mod setting;
#[cfg(test)]
mod tests;
mod validate;
mod values;

use std::fs;
use std::path::{Path, PathBuf};

pub use changes::{Change, Subject, changes};
pub use keys::{
    Config, DataConfig, DeviceConfig, Key, LoraConfig, ModelConfig, OutputConfig, RecipeConfig, ResidualConfig, Resume,
    RossConfig, SECTIONS, Section, TrainConfig, VraConfig,
};
pub use layers::{Assignment, Origin};
pub use recipe::Recipe;
pub use render::template;
pub use setting::{Choice, HeldOut, Kind as ValueKind, Limit, Setting};
pub use values::*;

use crate::error::{Error, Kind, Result};

/// Everything above the file, in rising precedence within each list.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// From environment variables.
    pub environment: Vec<Assignment>,
    /// From `--set`.
    pub set: Vec<Assignment>,
    /// From flags that stand for a key.
    pub flags: Vec<Assignment>,
}

impl Config {
    /// Reads `file`, applies the overrides, and checks every value; paths come out absolute but need not exist
    /// ([`Config::check_paths`]).
    ///
    /// # Errors
    /// A file that cannot be read or is not TOML, an unknown key, and a value that is of the wrong kind, out of range,
    /// not available in this version or at odds with another one. Each names file, line and column, or the argument.
    pub fn load(file: &Path, overrides: &Overrides) -> Result<Self> {
        let source = read(file)?;
        Self::resolve(file, &source, overrides)
    }

    /// The defaults with overrides applied, for commands that work without a file. Relative paths start from `base`.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn without_file(base: &Path, overrides: &Overrides) -> Result<Self> {
        Self::resolve(&base.join("viral-wgpu.toml"), "", overrides)
    }

    fn resolve(file: &Path, source: &str, overrides: &Overrides) -> Result<Self> {
        let assignments = [
            Assignment::from_file(file, source)?,
            overrides.environment.clone(),
            overrides.set.clone(),
            overrides.flags.clone(),
        ]
        .concat();
        let chosen = apply(&assignments)?.recipe;
        let recipe = chosen.row.map_or_else(Vec::new, |row| row.assignments(&chosen.models));
        let assignments = [recipe, assignments].concat();
        let mut config = apply(&assignments)?;
        config.rebase(&folder_of(file)?);
        let origin = |key: &Key| match assignments.iter().rfind(|assignment| assignment.key == key) {
            Some(assignment) => assignment.origin.to_string(),
            None => format!("default of `{}`", key.path()),
        };
        config.check_values(&origin)?;
        for (key, value) in config.of_recipe() {
            if config.get(key) != value {
                let (key, place) = (key.path(), origin(key));
                log::warn!("`{key}` is as {place} has it, not as `recipe.row` has it");
            }
        }
        Ok(config)
    }
}

/// The defaults, changed by one assignment after the other.
fn apply(assignments: &[Assignment]) -> Result<Config> {
    let mut config = Config::default();
    for assignment in assignments {
        config.set(assignment.key, &assignment.text).map_err(|_| assignment.mismatch())?;
    }
    Ok(config)
}

fn read(file: &Path) -> Result<String> {
    let bytes = fs::read(file).map_err(|error| Error {
        kind: Kind::Config,
        what: "cannot read the configuration".into(),
        place: file.display().to_string(),
        why: error.to_string(),
        hint: "check the path; `viral-wgpu config init FILE` writes a configuration to start from".into(),
    })?;
    String::from_utf8(bytes).map_err(|error| Error {
        kind: Kind::Config,
        what: "the configuration is not text".into(),
        place: file.display().to_string(),
        why: format!("byte {} is not UTF-8", error.utf8_error().valid_up_to()),
        hint: "save the file as UTF-8, and check that it is the configuration and not the data".into(),
    })
}

/// The absolute folder that holds `file`.
fn folder_of(file: &Path) -> Result<PathBuf> {
    let absolute = std::path::absolute(file).map_err(|error| Error::io("resolve the path", file, &error))?;
    Ok(absolute.parent().unwrap_or(&absolute).to_path_buf())
}
