//! Every kernel of a training step by itself, against the roof of the device.

use std::collections::HashMap;
use std::time::Instant;

use serde::Serialize;
use viral_compiler::passes::tables;
use viral_compiler::plan::{BufferRole, Command, Plan};
use viral_compiler::{Graph, Options, Target, compile};
use viral_runtime::{Buffer, Device, Executable, SlotPool};

use super::roofline::{Demand, Roofline, seconds};
use super::shapes::Case;
use crate::config::Precision;
use crate::engine::{activation_type, options_for};
use crate::error::Result;

/// Fewest runs of a case, of which the median counts; the first warms up and does not.
const RUNS: usize = 5;
/// Most runs.
const MOST_RUNS: usize = 50;
/// Seconds of work before a device runs at the clock that it keeps.
const WARM_UP: f64 = 0.1;
/// Share of the roof that the time of a case is estimated with before it is run.
const TYPICAL_SHARE: f64 = 0.2;

/// How fast a case is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measured {
    /// What was measured.
    #[serde(flatten)]
    pub case: Case,
    /// Its extents in short.
    pub shape: String,
    /// What the factors of a product are stored as, and the precision of it; other kernels are measured in f32 only.
    pub precision: &'static str,
    /// Median time on the device in seconds.
    pub seconds: f64,
    /// 10⁹ floating-point operations a second.
    pub gflops: f64,
    /// 10⁹ bytes a second, of those that must be read and written.
    pub gbytes: f64,
    /// Share of the device's own measured peak, the nearer of arithmetic and bandwidth.
    pub share: f64,
    /// Launches.
    pub launches: usize,
    /// The kernels' names.
    pub kernels: Vec<String>,
}

/// A case, measured or not.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It ran.
    Measured(Measured),
    /// It did not, and why.
    Skipped(Case, String),
}

/// Measures a case in a precision that it has kernels of its own for. One that would take longer than `budget` seconds, or that the device cannot hold, is skipped.
///
/// # Errors
/// What a device can refuse, other than memory.
pub fn measure(device: &Device, roofline: &Roofline, case: Case, precision: Precision, budget: f64) -> Result<Outcome> {
    let problem = &case.problem;
    let Demand { flops, bytes, .. } = demand(&case, precision);
    let expected = expected(roofline, &case, precision);
    if expected > budget {
        let why = format!("would take about {expected:.0} s here; --budget {:.0} runs it", expected.ceil());
        return Ok(Outcome::Skipped(case, why));
    }
    let (plan, executable) = match bind(device, case, precision) {
        Ok(bound) => bound,
        Err(why) => return Ok(Outcome::Skipped(case, why)),
    };
    let first = seconds(&executable)?;
    let start = Instant::now();
    while start.elapsed().as_secs_f64() + first < WARM_UP.min(budget / 4.0) {
        seconds(&executable)?;
    }
    let runs = ((budget / first) as usize).clamp(RUNS, MOST_RUNS);
    let mut times = (0..runs).map(|_| seconds(&executable)).collect::<Result<Vec<f64>>>()?;
    times.sort_by(f64::total_cmp);
    let median = times[times.len() / 2];
    let on_matrices = plan.kernels.iter().any(|kernel| kernel.requires.cooperative_matrix.is_some());
    let demand = Demand { flops, matrix_flops: if on_matrices { flops } else { 0 }, bytes };
    Ok(Outcome::Measured(Measured {
        case,
        shape: problem.shape(),
        precision: precision.name(),
        seconds: median,
        gflops: flops as f64 / median / 1e9,
        gbytes: bytes as f64 / median / 1e9,
        share: roofline.share(demand, median),
        launches: plan.commands.iter().filter(|command| matches!(command, Command::Dispatch(_))).count(),
        kernels: plan.kernels.iter().map(|kernel| kernel.name.clone()).collect(),
    }))
}

/// What a case asks of a device without cooperative matrices.
fn demand(case: &Case, precision: Precision) -> Demand {
    let element = activation_type(precision).element_bytes(1024) as f64 / 4096.0;
    Demand { flops: case.problem.flops(), matrix_flops: 0, bytes: (case.problem.bytes() as f64 * element) as u64 }
}

/// Seconds that measuring a case will take, roughly.
pub fn expected(roofline: &Roofline, case: &Case, precision: Precision) -> f64 {
    roofline.seconds(demand(case, precision)) / TYPICAL_SHARE * (RUNS + 1) as f64
}

/// The plan of a case, bound to memory of its own; or why that cannot be.
///
/// # Errors
/// A tensor that the device cannot hold or bind.
pub fn bind(device: &Device, case: Case, precision: Precision) -> std::result::Result<(Plan, Executable), String> {
    let (graph, options) = source(case, precision, device.target());
    let plan = compile(&graph, &options).map_err(|error| error.to_string())?;
    let executable = bound(device, &plan, &mut HashMap::new(), &mut SlotPool::new());
    Ok((plan, executable.map_err(|error| error.to_string())?))
}

/// The graph of a case, and the compiler's options for it.
pub fn source(case: Case, precision: Precision, target: &Target) -> (Graph, Options) {
    let (graph, dtype) = (case.problem.graph(), activation_type(precision));
    let stored = tables(&graph).filter(|_| dtype.is_storage()).map(|leaf| (leaf.name.to_owned(), dtype));
    let options = Options { storage: stored.collect(), ..options_for(precision, target) };
    (graph, options)
}

/// A plan, bound to memory that holds ordinary numbers: that of earlier plans as far as it goes.
///
/// # Errors
/// A tensor that the device cannot hold or bind.
pub(crate) fn bound(
    device: &Device,
    plan: &Plan,
    buffers: &mut HashMap<String, Buffer>,
    slots: &mut SlotPool,
) -> std::result::Result<Executable, viral_runtime::Error> {
    for declared in &plan.buffers {
        let BufferRole::External(name) = &declared.role else { continue };
        let bytes = declared.bytes.next_multiple_of(16);
        if buffers.get(name).is_none_or(|buffer| buffer.bytes() < bytes) {
            let buffer = device.buffer(name, bytes)?;
            fill(device, &buffer)?;
            buffers.insert(name.clone(), buffer);
        }
    }
    Executable::new(device, plan, &|name| buffers.get(name).cloned(), slots)
}

/// Ordinary numbers between 0.25 and 0.75: zeros would be faster on some devices. As integers they are beyond every table.
fn fill(device: &Device, buffer: &Buffer) -> std::result::Result<(), viral_runtime::Error> {
    const BLOCK: usize = 1 << 20;
    let block: Vec<f32> =
        (0..BLOCK as u32).map(|i| 0.25 + (i.wrapping_mul(2_654_435_761) >> 9) as f32 / (1u32 << 24) as f32).collect();
    let bytes: &[u8] = bytemuck::cast_slice(&block);
    let mut at = 0;
    while at < buffer.bytes() {
        let len = (buffer.bytes() - at).min(bytes.len() as u64);
        device.write(buffer, at, &bytes[..len as usize])?;
        at += len;
    }
    Ok(())
}
