//! What a run will need and what the compiler made of it, as text and files.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use viral_compiler::Target;
use viral_compiler::compile::compile_traced;
use viral_compiler::plan::{Command, MemoryReport, Plan};
use viral_compiler::{Options, compile};

use viral_model::image::Tiling;

use super::bundle::Networks;
use super::session::{features, layout_of, step_plan_source, total_memory};
use super::stored::loss_scale;
use super::update_graph;
use crate::config::Config;
use crate::data::Bucket;
use crate::error::{Error, Result};

/// Supervised tokens of a sample that a plan without data assumes.
const TYPICAL_TARGETS: usize = 128;

/// Rows of the table of the largest activations.
const PEAK_ROWS: usize = 12;

/// Planned memory, one class a line.
pub(crate) fn memory_table(memory: &MemoryReport) -> String {
    let classes = [
        ("frozen weights", memory.weights),
        ("trained tensors, gradients, moments", memory.state),
        ("activations", memory.slots),
        ("inputs and results", memory.ports),
    ];
    let total: u64 = classes.iter().map(|(_, bytes)| bytes).sum();
    let mut text = String::from("device memory\n");
    for (name, bytes) in classes.into_iter().chain([("total", total)]) {
        let _ = writeln!(text, "  {name:<36} {:>12}", size(bytes));
    }
    text
}

/// The memory and the work of a full micro-batch, planned for `target`. Needs the models' `config.json`, no weights and no
/// device.
///
/// # Errors
/// Settings that do not fit the networks, or tensors that do not fit the target.
pub fn plan_report(config: &Config, target: &Target) -> Result<String> {
    let networks = Networks::open(config)?;
    let bucket = full_bucket(config, &networks);
    let layout = layout_of(config, &networks, target);
    let (graph, options) = step_plan_source(config, &networks, &layout, bucket, target);
    let plan = compile(&graph, &options)?;
    let frozen = features::sources(config, &networks, &BTreeSet::from([bucket]), target).into_iter();
    let frozen = frozen.map(|(_, graph, options)| compile(&graph, &options)).collect::<Result<Vec<_>, _>>()?;
    let update = compile(
        &update_graph::build(&config.train, &layout, loss_scale(config, target)),
        &Options::new(target.clone()),
    )?;

    let trained: usize = layout.entries.iter().map(|entry| entry.ty.len()).sum();
    let mut text = format!(
        "micro-batch of {} x {} tokens with {} and {} supervised tokens\n",
        bucket.batch,
        bucket.tokens,
        match bucket.tiles {
            0 => format!("{} pictures", bucket.images),
            tiles => format!("{} pictures, {tiles} tiles", bucket.images),
        },
        bucket.targets
    );
    let _ = writeln!(text, "trained parameters {trained}\n");
    text += &memory_table(&total_memory(frozen.iter().chain([&plan, &update]), &layout));
    let _ = writeln!(text, "\nlargest activations at the peak of {}", size(plan.memory.lower_bound));
    for (name, bytes) in plan.memory.peak.iter().take(PEAK_ROWS) {
        let _ = writeln!(text, "  {name:<36} {:>12}", size(*bytes));
    }
    text.push('\n');
    text += &work_table(frozen.iter().chain([&plan]));
    Ok(text)
}

/// Writes the graph after every pass, the plan and every kernel to `dir`. Returns the files.
///
/// # Errors
/// As [`plan_report`], and what a disk can refuse.
pub fn dump(config: &Config, target: &Target, dir: &Path) -> Result<Vec<PathBuf>> {
    let networks = Networks::open(config)?;
    let bucket = full_bucket(config, &networks);
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

/// A micro-batch of the configured size in which every sample has a picture, with as many tiles as there are, and is as
/// long as allowed.
fn full_bucket(config: &Config, networks: &Networks) -> Bucket {
    let (batch, tokens) = (config.train.batch, config.train.max_length);
    let tiles = networks.llava.tiling.as_ref().map_or(0, Tiling::most_tiles);
    Bucket {
        batch,
        tokens: tokens.max(networks.llava.visual_tokens() + 1),
        images: batch,
        tiles: batch * tiles,
        targets: (batch * TYPICAL_TARGETS).min(batch * tokens).next_power_of_two(),
    }
}

/// Work by kernel, the most expensive first.
fn work_table<'p>(plans: impl Iterator<Item = &'p Plan>) -> String {
    let mut work: BTreeMap<&str, (u64, u64, u64)> = BTreeMap::new();
    for (plan, command) in plans.flat_map(|plan| plan.commands.iter().map(move |command| (plan, command))) {
        if let Command::Dispatch(dispatch) = command {
            let name = plan.kernels[dispatch.kernel.0 as usize].name.as_str();
            let entry = work.entry(name).or_default();
            *entry = (entry.0 + 1, entry.1 + dispatch.flops, entry.2 + dispatch.traffic);
        }
    }
    let mut rows: Vec<_> = work.into_iter().collect();
    rows.sort_by_key(|&(name, (_, flops, traffic))| (std::cmp::Reverse(flops + traffic), name));
    let mut text = format!("{:<36} {:>8} {:>12} {:>12}\n", "kernel", "launches", "GFLOP", "moved");
    for (name, (count, flops, traffic)) in rows {
        let _ = writeln!(text, "{name:<36} {count:>8} {:>12.3} {:>12}", flops as f64 / 1e9, size(traffic));
    }
    text
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
        _ => format!("{:.2} GiB", bytes as f64 / 1_073_741_824.0),
    }
}
