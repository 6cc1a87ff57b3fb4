//! What a training step will need and do, from its plans alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};

use serde::{Serialize, Serializer};
use viral_compiler::plan::{Command, MemoryReport, Plan};
use viral_compiler::{Target, compile};

use super::bundle::Networks;
use super::layout::Layout;
use super::session::{layout_of, total_memory};
use super::sources::sources;
use super::speed::StepShape;
use crate::config::Config;
use crate::error::Result;
use crate::measure::{Demand, Roofline};

/// Rows of the table of the largest activations.
const PEAK_ROWS: usize = 12;

/// A training step that nobody has run. Its text form is what `viral-wgpu plan` prints.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Planned {
    /// The samples of a micro-batch.
    pub shape: StepShape,
    /// Elements that are trained.
    pub trained_parameters: usize,
    /// Device memory by class, in bytes.
    #[serde(serialize_with = "memory_with_total")]
    pub memory: MemoryReport,
    /// Frozen networks, forward and backward.
    pub micro_batch: Work,
    /// The optimiser.
    pub update: Work,
    /// How long a step takes where nothing but the device limits it; only where its roof is known.
    pub expected: Option<Expected>,
    /// Work of a micro-batch by kernel, the most expensive first.
    pub kernels: Vec<(String, Work)>,
}

/// What launches do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Work {
    /// How many.
    pub launches: u64,
    /// Floating-point operations.
    pub flops: u64,
    /// Those among them that compute activations again for the backward pass.
    pub repeated_flops: u64,
    /// Those that cooperative matrices do.
    pub matrix_flops: u64,
    /// Those of cooperative matrices that compute activations again.
    pub repeated_matrix_flops: u64,
    /// Bytes read and written when every operand is touched once.
    pub bytes: u64,
}

/// Times from a [`Roofline`]: each launch takes as long as its arithmetic or its memory, whichever is slower.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Expected {
    /// Floating-point operations a second of the roof.
    pub roof_flops: f64,
    /// Those of cooperative matrices.
    pub roof_matrix_flops: f64,
    /// Bytes a second of the roof.
    pub roof_bytes: f64,
    /// Frozen networks, forward and backward, in seconds.
    pub micro_batch_seconds: f64,
    /// Optimiser, in seconds.
    pub update_seconds: f64,
    /// Tokens a second of steps of one micro-batch.
    pub tokens_per_second: f64,
}

/// Plans a step of one micro-batch in which every sample has a picture, for `target`. Needs the models' `config.json`, no
/// weights and no device.
///
/// # Errors
/// Settings that do not fit the networks, or tensors that do not fit the target.
pub fn plan(config: &Config, shape: StepShape, target: &Target, roofline: Option<&Roofline>) -> Result<Planned> {
    let Plans { shape, layout, micro_batch, update } = Plans::compile(config, shape, target)?;
    let plans = || micro_batch.iter().chain([&update]);
    let mut memory = total_memory(plans(), &layout);
    (memory.lower_bound, memory.peak) = (micro_batch[0].memory.lower_bound, micro_batch[0].memory.peak.clone());
    let expected = roofline.map(|roof| {
        let micro_batch_seconds = micro_batch.iter().map(|plan| seconds(plan, roof)).sum();
        let update_seconds = seconds(&update, roof);
        let tokens_per_second = (shape.batch * shape.tokens) as f64 / (micro_batch_seconds + update_seconds);
        Expected {
            roof_flops: roof.flops,
            roof_matrix_flops: roof.matrix_flops,
            roof_bytes: roof.bytes,
            micro_batch_seconds,
            update_seconds,
            tokens_per_second,
        }
    });
    Ok(Planned {
        shape,
        trained_parameters: layout.entries.iter().map(|entry| entry.ty.len()).sum(),
        memory,
        micro_batch: micro_batch.iter().map(Work::of).sum(),
        update: Work::of(&update),
        expected,
        kernels: by_kernel(&micro_batch),
    })
}

/// All plans of a step.
struct Plans {
    /// With room for the visual tokens, and as long as its bucket.
    shape: StepShape,
    layout: Layout,
    /// Forward and backward, then the frozen networks.
    micro_batch: Vec<Plan>,
    update: Plan,
}

impl Plans {
    fn compile(config: &Config, shape: StepShape, target: &Target) -> Result<Self> {
        let networks = Networks::open(config)?;
        let bucket = shape.bucket(&networks.llava);
        let layout = layout_of(config, &networks, target);
        let buckets = [&BTreeSet::from([bucket]), &BTreeSet::new()];
        let sources = sources(config, &networks, &layout, buckets, target);
        let compiled = sources.iter().map(|(graph, options)| compile(graph, options));
        let mut micro_batch = compiled.collect::<Result<Vec<Plan>, _>>()?;
        let update = micro_batch.pop().unwrap_or_default();
        Ok(Self { shape: StepShape { tokens: bucket.tokens, ..shape }, layout, micro_batch, update })
    }
}

impl Planned {
    /// Bytes of device memory in all.
    pub fn total_bytes(&self) -> u64 {
        self.memory.total()
    }

    /// The arithmetic of a step without what computes activations again, and without what it moves.
    pub fn model_demand(&self) -> Demand {
        let [all, repeated] = [self.micro_batch.matrix_flops, self.micro_batch.repeated_matrix_flops];
        Demand { flops: self.model_flops(), matrix_flops: all - repeated + self.update.matrix_flops, bytes: 0 }
    }

    /// Floating-point operations of a step without those that compute activations again.
    pub fn model_flops(&self) -> u64 {
        self.micro_batch.flops + self.update.flops - self.micro_batch.repeated_flops
    }
}

impl Work {
    fn of(plan: &Plan) -> Self {
        work(plan).map(|(_, work)| work).sum()
    }
}

impl std::iter::Sum for Work {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::default(), |a, b| Self {
            launches: a.launches + b.launches,
            flops: a.flops + b.flops,
            repeated_flops: a.repeated_flops + b.repeated_flops,
            matrix_flops: a.matrix_flops + b.matrix_flops,
            repeated_matrix_flops: a.repeated_matrix_flops + b.repeated_matrix_flops,
            bytes: a.bytes + b.bytes,
        })
    }
}

/// Each launch of a plan with its kernel.
fn work(plan: &Plan) -> impl Iterator<Item = (&str, Work)> {
    plan.commands.iter().map(|command| match command {
        Command::Dispatch(dispatch) => {
            // Rematerialisation names what it computes a second time so.
            let if_true = |condition: bool| if condition { dispatch.flops } else { 0 };
            let is_repeated = dispatch.label.ends_with(".again");
            let kernel = &plan.kernels[dispatch.kernel.0 as usize];
            let on_matrices = kernel.requires.cooperative_matrix.is_some();
            let work = Work {
                launches: 1,
                flops: dispatch.flops,
                repeated_flops: if_true(is_repeated),
                matrix_flops: if_true(on_matrices),
                repeated_matrix_flops: if_true(is_repeated && on_matrices),
                bytes: dispatch.traffic,
            };
            (kernel.name.as_str(), work)
        }
        Command::Clear(bind) => ("clear", Work { launches: 1, bytes: bind.bytes, ..Work::default() }),
    })
}

fn by_kernel(plans: &[Plan]) -> Vec<(String, Work)> {
    let mut kernels: BTreeMap<&str, Work> = BTreeMap::new();
    for (name, work) in plans.iter().flat_map(work) {
        let known = kernels.entry(name).or_default();
        *known = [*known, work].into_iter().sum();
    }
    let mut rows: Vec<_> = kernels.into_iter().map(|(name, work)| (name.to_owned(), work)).collect();
    rows.sort_by_key(|(_, work)| std::cmp::Reverse(work.flops + work.bytes));
    rows
}

fn seconds(plan: &Plan, roof: &Roofline) -> f64 {
    let demand = |work: Work| Demand { flops: work.flops, matrix_flops: work.matrix_flops, bytes: work.bytes };
    work(plan).map(|(_, work)| roof.seconds(demand(work))).sum()
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let StepShape { batch, tokens, targets } = self.shape;
        writeln!(f, "micro-batch of {batch} x {tokens} tokens, each with a picture and {targets} supervised tokens")?;
        writeln!(f, "trained parameters {}\n", self.trained_parameters)?;
        write!(f, "{}", memory_table(&self.memory))?;
        writeln!(f, "\nlargest activations at the peak of {}", size(self.memory.lower_bound))?;
        for (name, bytes) in self.memory.peak.iter().take(PEAK_ROWS) {
            writeln!(f, "  {name:<36} {:>12}", size(*bytes))?;
        }
        writeln!(f, "\n{:<36} {:>8} {:>12} {:>12}", "kernel", "launches", "GFLOP", "moved")?;
        let kernels = self.kernels.iter().map(|(name, work)| (name.as_str(), work));
        for (name, work) in kernels.chain([("micro-batch", &self.micro_batch), ("optimiser", &self.update)]) {
            let gflop = work.flops as f64 / 1e9;
            writeln!(f, "{name:<36} {:>8} {gflop:>12.3} {:>12}", work.launches, size(work.bytes))?;
        }
        let repeated = 100.0 * self.micro_batch.repeated_flops as f64 / self.micro_batch.flops.max(1) as f64;
        writeln!(f, "\n{repeated:.1}% of the micro-batch's arithmetic computes activations again")?;
        let Some(expected) = &self.expected else { return Ok(()) };
        let (flops, matrix_flops, bytes) = (expected.roof_flops, expected.roof_matrix_flops, expected.roof_bytes);
        writeln!(f, "\nwith {}, a step takes at least", Roofline { flops, matrix_flops, bytes })?;
        writeln!(f, "  {:<36} {:>10.3} s", "forward and backward", expected.micro_batch_seconds)?;
        writeln!(f, "  {:<36} {:>10.3} s", "optimiser", expected.update_seconds)?;
        writeln!(f, "  {:<36} {:>10.1}", "tokens a second, at most", expected.tokens_per_second)
    }
}

/// Planned memory, one class a line.
pub(crate) fn memory_table(memory: &MemoryReport) -> String {
    let mut text = String::from("device memory\n");
    let classes = [
        ("frozen weights", memory.weights),
        ("trained tensors, gradients, moments", memory.state),
        ("activations", memory.slots),
        ("inputs and results", memory.ports),
        ("parameters of launches, staging", memory.transfers),
    ];
    for (name, bytes) in classes {
        let _ = writeln!(text, "  {name:<36} {:>12}", size(bytes));
    }
    let total = memory.total();
    let _ = writeln!(text, "  {:<36} {:>12}  ({:.2} GB)", "total", size(total), total as f64 / 1e9);
    text
}

/// The classes and their sum, and what is alive at the peak.
fn memory_with_total<S: Serializer>(memory: &MemoryReport, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    let MemoryReport { weights, state, slots, ports, transfers, lower_bound, peak } = memory;
    serde_json::json!({
        "frozen_weights": weights,
        "trained": state,
        "activations": slots,
        "inputs_and_results": ports,
        "transfers": transfers,
        "total": memory.total(),
        "activations_alive_at_peak": lower_bound,
        "largest_at_peak": peak.iter().take(PEAK_ROWS).collect::<Vec<_>>(),
    })
    .serialize(serializer)
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
        _ => format!("{:.2} GiB", bytes as f64 / 1_073_741_824.0),
    }
}

#[cfg(test)]
mod tests;
