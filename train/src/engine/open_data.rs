//! The dataset of a run without its networks' weights, for commands that look at data.

use std::path::Path;
use std::sync::Arc;

use super::bundle::Networks;
use super::prepare::Preparer;
use crate::config::{Config, HeldOut, OnBadSample};
use crate::data::{Dataset, Geometry, Prepare, Sampler, StepPlan};
use crate::error::Result;

/// How records of a run become tokens and pixels, and the extents of its samples. Needs `config.json` and `tokenizer.json`, no
/// weights and no device.
///
/// # Errors
/// A file is missing or damaged, or the settings do not fit the networks.
pub fn open_data(config: &Config) -> Result<(Arc<dyn Prepare>, Geometry)> {
    let networks = Networks::open(config)?;
    let geometry = geometry(config, &networks);
    Ok((Arc::new(Preparer::open(config, &networks)?), geometry))
}

/// The samples that a run learns from, and those that it is evaluated on, measured.
///
/// # Errors
/// As [`Dataset::open`], [`Dataset::measure`] and [`Dataset::split`].
pub fn open_datasets(
    config: &Config,
    prepare: &dyn Prepare,
    geometry: Geometry,
    on_bad: OnBadSample,
) -> Result<(Dataset, Option<Dataset>)> {
    let open = |file: &Path| -> Result<Dataset> {
        let mut dataset = Dataset::open(file, &config.data.images, on_bad)?;
        dataset.measure(prepare, geometry)?;
        Ok(dataset)
    };
    let mut dataset = open(&config.data.train)?;
    let validation = match &config.data.validation {
        None => None,
        Some(HeldOut::File(file)) => Some(open(file)?),
        Some(HeldOut::Share(share)) => Some(dataset.split(*share, config.train.seed)?),
    };
    Ok((dataset, validation))
}

/// Extents of a run's samples.
pub(super) fn geometry(config: &Config, networks: &Networks) -> Geometry {
    Geometry {
        visual_tokens: networks.llava.visual_tokens(),
        max_length: config.train.max_length,
        image_side: networks.llava.vision.image_size,
    }
}

/// The order of samples with these lengths over a whole run.
pub fn step_plan(config: &Config, lengths: Vec<i64>) -> StepPlan {
    let (data, train) = (&config.data, &config.train);
    let sampler = Sampler::new(data.order, train.seed, train.batch, train.accumulation, lengths);
    StepPlan::new(sampler, train.epochs as u64, train.steps as u64)
}
