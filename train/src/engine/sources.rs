//! The graphs of a run's plans, for whoever asks something about them before they are compiled and bound.

use std::collections::BTreeSet;
use std::path::Path;

use viral_compiler::{Graph, Options, Target};
use viral_runtime::Device;

use super::bundle::{Bundle, Networks};
use super::layout::Layout;
use super::session::{evaluation_source, features, layout_of, step_plan_source};
use super::speed::StepShape;
use super::stored::loss_scale;
use super::update_graph;
use crate::config::Config;
use crate::data::Bucket;
use crate::error::Result;
use crate::tuning;

/// The graphs of a run with the compiler's options: forward and backward for each of `buckets`, forward alone for each of
/// `evaluated`, the frozen networks', and last the optimiser's.
pub(super) fn sources(
    config: &Config,
    networks: &Networks,
    layout: &Layout,
    [buckets, evaluated]: [&BTreeSet<Bucket>; 2],
    target: &Target,
) -> Vec<(Graph, Options)> {
    let steps = buckets.iter().map(|&bucket| step_plan_source(config, networks, layout, bucket, target));
    let evaluations = evaluated.iter().map(|&bucket| evaluation_source(config, networks, layout, bucket, target));
    let frozen = features::sources(config, networks, &(buckets | evaluated), target).into_iter();
    let frozen = frozen.map(|(_, graph, options)| (graph, options));
    let update = update_graph::build(&config.train, layout, loss_scale(config, target));
    steps.chain(evaluations).chain(frozen).chain([(update, Options::new(target.clone()))]).collect()
}

/// As [`sources`], of a run.
pub(super) fn of_run(bundle: &Bundle, buckets: &BTreeSet<Bucket>, target: &Target) -> Vec<(Graph, Options)> {
    let (config, networks) = (&bundle.config, &bundle.networks);
    let layout = layout_of(config, networks, target);
    sources(config, networks, &layout, [buckets, &bundle.validation_buckets()], target)
}

/// A device with the kernels that the configuration wants for steps of this shape: see [`tuning::tuned`].
///
/// # Errors
/// Settings that do not fit the networks, and what a device can refuse.
pub(crate) fn tuned_for_step(
    config: &Config,
    device: &Device,
    shape: StepShape,
    folder: Option<&Path>,
) -> Result<Device> {
    let networks = Networks::open(config)?;
    let buckets = BTreeSet::from([shape.bucket(&networks.llava)]);
    let graphs = |target: &Target| {
        let layout = layout_of(config, &networks, target);
        sources(config, &networks, &layout, [&buckets, &BTreeSet::new()], target)
    };
    Ok(tuning::tuned(device, config, folder, &graphs, &|| false)?.0)
}
