//! A preset in the place of a configuration file, for commands that need no weights and no data.

use clap::builder::PossibleValuesParser;
use tempfile::TempDir;

use super::options::Options;
use crate::config::{Assignment, Config};
use crate::demo::{self, PRESETS, Preset};
use crate::engine::StepShape;
use crate::error::{Error, Result};
use crate::measure::shapes::MODELS;

/// Supervised tokens of a sample of a preset that [`MODELS`] does not list: an answer of a few words.
const FEW_TARGETS: usize = 8;

/// A configuration whose models are those of a preset, without weights.
pub(super) struct Borrowed {
    /// With the preset's micro-batch, unless `--set` says otherwise.
    pub(super) config: Config,
    /// The samples of a micro-batch.
    pub(super) shape: StepShape,
    /// Holds the models' `config.json`.
    pub(super) _folder: TempDir,
}

/// The parser of a preset's name.
pub(super) fn names() -> PossibleValuesParser {
    PossibleValuesParser::new(PRESETS.map(|preset| preset.name))
}

impl Borrowed {
    /// The preset of this name, with environment and command line applied.
    pub(super) fn new(name: &str, options: &Options) -> Result<Self> {
        let preset = Preset::find(name).ok_or_else(|| Error::internal("a preset is not in the list", name))?;
        let folder =
            tempfile::tempdir().map_err(|error| Error::io("make a temporary folder", &std::env::temp_dir(), &error))?;
        let file = demo::configurations(folder.path(), preset)?;
        let model = MODELS.iter().find(|model| model.name == name);
        let batch = model.map(|model| Assignment::from_set(&format!("train.batch={}", model.batch))).transpose()?;
        let tokens = model.map_or(96, |model| model.tokens);
        let tokens = Assignment::from_set(&format!("train.max_length={tokens}"))?;
        let config = options.load_over(&file, batch.into_iter().chain([tokens]))?;
        let targets = model.map_or(FEW_TARGETS, |model| model.targets / model.batch);
        let (batch, tokens) = (config.train.batch, config.train.max_length);
        Ok(Self { config, shape: StepShape { batch, tokens, targets: targets.min(tokens) }, _folder: folder })
    }
}
