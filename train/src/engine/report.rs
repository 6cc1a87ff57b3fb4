//! What the compiler makes of a run, as files.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use viral_compiler::compile::compile_traced;
use viral_compiler::{Options, Target};

use super::bundle::Networks;
use super::session::{features, layout_of, step_plan_source};
use super::speed::StepShape;
use super::stored::loss_scale;
use super::update_graph;
use crate::config::Config;
use crate::error::{Error, Result};

/// Writes the graph after every pass, the plan and every kernel to `dir`. Returns the files.
///
/// # Errors
/// As [`super::plan`], and what a disk can refuse.
pub fn dump(config: &Config, target: &Target, dir: &Path) -> Result<Vec<PathBuf>> {
    let networks = Networks::open(config)?;
    let bucket = StepShape::full(config).bucket(&networks.llava);
    let layout = layout_of(config, &networks, target);
    let (graph, options) = step_plan_source(config, &networks, &layout, bucket, target);
    let mut files = Vec::new();
    let mut write = |name: String, content: &str| -> Result<()> {
        let path = dir.join(name);
        let io = |error| Error::io("write", &path, &error);
        fs::create_dir_all(path.parent().unwrap_or(dir)).map_err(io)?;
        fs::write(&path, content).map_err(io)?;
        files.push(path);
        Ok(())
    };
    let frozen = features::sources(config, &networks, &BTreeSet::from([bucket]), target).into_iter();
    for (prefix, graph, options) in frozen.map(|(_, graph, options)| ("features", graph, options)).chain([
        ("step", graph, options),
        (
            "update",
            update_graph::build(&config.train, &layout, loss_scale(config, target)),
            Options::new(target.clone()),
        ),
    ]) {
        let mut stages = Vec::new();
        let plan = compile_traced(&graph, &options, &mut |stage, graph| stages.push((stage, graph.to_string())))?;
        for (index, (stage, text)) in stages.iter().enumerate() {
            write(format!("{prefix}/{index}-{stage}.vir"), text)?;
        }
        write(format!("{prefix}/plan.txt"), &plan.to_string())?;
        for (index, kernel) in plan.kernels.iter().enumerate() {
            write(format!("{prefix}/kernels/{index:03}-{}.wgsl", kernel.name), &kernel.wgsl)?;
        }
    }
    Ok(files)
}
