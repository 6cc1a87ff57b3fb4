//! `viral-wgpu bench`: how fast kernels and training steps are on a device.

use std::fmt::Write as _;

use clap::ValueEnum;
use clap::builder::PossibleValuesParser;
use serde_json::{Value, json};
use viral_runtime::Device;

use super::cache;
use super::options::Options;
use super::output;
use crate::demo::{self, Preset};
use crate::engine::{self, StepShape};
use crate::error::{Error, Kind, Result};
use crate::measure::Roofline;
use crate::measure::kernels::{self, Measured, Outcome};
use crate::measure::shapes::{Case, MODELS, SQUARE, cases};

/// Measure kernels or training steps against the device's own measured peak
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  viral-wgpu bench kernels --preset small
  viral-wgpu bench kernels --filter attention --budget 30 --json
  viral-wgpu bench step --preset small --steps 10")]
pub(super) struct Args {
    /// What to measure
    #[arg(value_enum, default_value_t = What::Kernels)]
    what: What,
    /// A model: kernels of it alone, or the one whose step is measured (small if none is named)
    #[arg(long, value_parser = models())]
    preset: Option<String>,
    /// Steps that are measured
    #[arg(long, default_value_t = 5)]
    steps: u64,
    /// Only cases whose model/name/shape contains this
    #[arg(long, value_name = "TEXT", default_value = "")]
    filter: String,
    /// Seconds for one case; those that would take longer are skipped
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0)]
    budget: f64,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    options: Options,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum What {
    /// Every kernel of a step, alone
    Kernels,
    /// Forward, backward and update of a model with made-up weights, with alignment and without
    Step,
}

fn models() -> PossibleValuesParser {
    PossibleValuesParser::new(MODELS.iter().map(|model| model.name).chain([SQUARE, demo::TINY.name]))
}

pub(super) fn run(args: Args) -> Result<()> {
    let device = engine::open_device(&args.options.load_defaults()?, cache::pipelines())?;
    match args.what {
        What::Kernels => kernels(&args, &device),
        What::Step => step(&args, &device),
    }
}

fn kernels(args: &Args, device: &Device) -> Result<()> {
    let chosen = |case: &Case| {
        args.preset.as_deref().is_none_or(|preset| preset == case.model) && case.path().contains(&args.filter)
    };
    let roofline = Roofline::measure(device)?;
    let (mut rows, mut skipped) = (Vec::new(), Vec::new());
    if !args.json {
        output::print(&heading(device, &roofline))?;
    }
    for case in cases().into_iter().filter(chosen) {
        let outcome = kernels::measure(device, &roofline, case, args.budget)?;
        if !args.json {
            output::print(&line(&outcome))?;
        }
        match outcome {
            Outcome::Measured(row) => rows.push(row),
            Outcome::Skipped(case, why) => skipped.push(json!({"case": case.path(), "because": why})),
        }
    }
    if args.json {
        let report = json!({
            "device": describe(device),
            "peak_gflops": roofline.flops / 1e9,
            "peak_gbytes": roofline.bytes / 1e9,
            "rows": rows,
            "skipped": skipped,
        });
        output::print(&format!("{report:#}\n"))?;
    }
    Ok(())
}

fn step(args: &Args, device: &Device) -> Result<()> {
    let name = args.preset.as_deref().unwrap_or("small");
    let preset = Preset::find(name).ok_or_else(|| Error {
        kind: Kind::Config,
        what: format!("`{name}` is no model"),
        place: "--preset".into(),
        why: "its shapes belong to single kernels".into(),
        hint: "name another preset, or use `bench kernels`".into(),
    })?;
    let folder =
        tempfile::tempdir().map_err(|error| Error::io("make a temporary folder", &std::env::temp_dir(), &error))?;
    let file = demo::configurations(folder.path(), preset)?;
    let mut config = args.options.load(&file, None)?;
    let shape = match MODELS.iter().find(|model| model.name == name) {
        Some(model) => StepShape { batch: model.batch, tokens: model.tokens, targets: model.targets / model.batch },
        None => StepShape { batch: config.train.batch, tokens: 96, targets: 8 },
    };
    let roofline = Roofline::measure(device)?;
    let mut rows = Vec::new();
    for alignment in [true, false] {
        config.vra.enabled = alignment;
        rows.push((alignment, engine::measure_step(&config, device, &roofline, shape, args.steps)?));
    }
    if args.json {
        let rows = rows.iter().map(|(alignment, speed)| json!({"alignment": alignment, "step": speed}));
        let report = json!({
            "device": describe(device),
            "peak_gflops": roofline.flops / 1e9,
            "preset": name,
            "rows": Value::from_iter(rows),
        });
        return output::print(&format!("{report:#}\n"));
    }
    let mut text = format!("{}: at most {:.1} GFLOP/s\n", device.adapter(), roofline.flops / 1e9);
    let _ = writeln!(text, "{name}: {} x {} tokens, every sample with a picture\n", shape.batch, shape.tokens);
    let _ = writeln!(
        text,
        "{:<10} {:>14} {:>10} {:>10} {:>8} {:>10} {:>12}",
        "alignment", "fwd+bwd s", "update s", "tokens/s", "TFLOP", "of peak", "memory"
    );
    for (alignment, speed) in rows {
        let _ = writeln!(
            text,
            "{:<10} {:>14.3} {:>10.3} {:>10.1} {:>8.3} {:>9.1}% {:>9.2} GB",
            if alignment { "on" } else { "off" },
            speed.micro_batch_seconds,
            speed.update_seconds,
            speed.tokens_per_second,
            speed.flops as f64 / 1e12,
            100.0 * speed.utilisation,
            speed.device_bytes as f64 / 1e9,
        );
    }
    output::print(&text)
}

fn describe(device: &Device) -> Value {
    let adapter = device.adapter();
    json!({"adapter": adapter.name, "backend": adapter.backend.name(), "driver": adapter.driver})
}

fn heading(device: &Device, roofline: &Roofline) -> String {
    let mut text = format!(
        "{}: at most {:.1} GFLOP/s, {:.1} GB/s\n\n",
        device.adapter(),
        roofline.flops / 1e9,
        roofline.bytes / 1e9
    );
    let _ = writeln!(
        text,
        "{:<14} {:<20} {:<22} {:>10} {:>9} {:>8} {:>7} {:>8}",
        "model", "kernel", "shape", "ms", "GFLOP/s", "GB/s", "roof", "launches"
    );
    text
}

fn line(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Measured(Measured { case, shape, seconds, gflops, gbytes, share, launches, .. }) => format!(
            "{:<14} {:<20} {shape:<22} {:>10.3} {gflops:>9.1} {gbytes:>8.1} {:>6.1}% {launches:>8}\n",
            case.model,
            case.name,
            1e3 * seconds,
            100.0 * share,
        ),
        Outcome::Skipped(case, why) => {
            format!("{:<14} {:<20} {:<22} skipped: {why}\n", case.model, case.name, case.problem.shape())
        }
    }
}
