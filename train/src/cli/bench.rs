//! `viral-wgpu bench`: how fast kernels and training steps are on a device.

use std::fmt::Write as _;

use clap::ValueEnum;
use clap::builder::PossibleValuesParser;
use serde_json::{Value, json};
use viral_compiler::Target;
use viral_runtime::Device;

use super::cache;
use super::options::Options;
use super::output;
use super::preset::Borrowed;
use crate::config::{Config, Precision};
use crate::demo;
use crate::engine;
use crate::error::{Error, Kind, Result};
use crate::measure::Roofline;
use crate::measure::kernels::{self, Measured, Outcome};
use crate::measure::shapes::{Case, MODELS, Problem, SQUARE, cases};
use crate::tuning;

/// Measure kernels or training steps against the device's own measured peak
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  viral-wgpu bench kernels --preset small
  viral-wgpu bench kernels --filter attention --budget 30 --json
  viral-wgpu bench kernels --preset llava-1.5-7b --precision bf16
  viral-wgpu bench step --preset small --steps 10 --profile
  viral-wgpu bench step --preset small --tune full
  viral-wgpu bench step --preset llava-1.5-7b --set model.base=nf4 --set train.moments=f8 --set train.precision=bf16
  viral-wgpu bench step --preset 1b --set train.max_length=320 --alignment on")]
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
    /// Show where the time of a step goes
    #[arg(long)]
    profile: bool,
    /// Precision of the products: with less than f32 their factors are stored so, and cooperative matrices multiply them
    #[arg(long, default_value = "f32", value_parser = precisions())]
    precision: String,
    /// Steps with alignment, without, or both in turn
    #[arg(long, value_enum, default_value_t = Alignment::Both)]
    alignment: Alignment,
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Alignment {
    Both,
    On,
    Off,
}

fn precisions() -> PossibleValuesParser {
    PossibleValuesParser::new(Precision::ALL.iter().map(|precision| precision.name()))
}

fn models() -> PossibleValuesParser {
    PossibleValuesParser::new(MODELS.iter().map(|model| model.name).chain([SQUARE, demo::TINY.name]))
}

pub(super) fn run(args: Args) -> Result<()> {
    let config = args.options.load_defaults()?;
    let device = engine::open_device(&config, cache::pipelines())?;
    match args.what {
        What::Kernels => kernels(&args, &config, &device),
        What::Step => step(&args, &device),
    }
}

fn kernels(args: &Args, config: &Config, device: &Device) -> Result<()> {
    let chosen = |case: &Case| {
        args.preset.as_deref().is_none_or(|preset| preset == case.model) && case.path().contains(&args.filter)
    };
    let named = |precision: &Precision| precision.name() == args.precision;
    let precision = Precision::ALL.iter().copied().find(named).unwrap_or(Precision::F32);
    // Only products know another precision than f32.
    let chosen =
        |case: &Case| chosen(case) && (precision == Precision::F32 || matches!(case.problem, Problem::Product { .. }));
    let roofline = Roofline::measure(device)?;
    let graphs = |target: &Target| {
        // What takes longer than it may is not measured either way.
        let cases = cases()
            .into_iter()
            .filter(|case| chosen(case) && kernels::expected(&roofline, case, precision) <= args.budget);
        cases.map(|case| kernels::source(case, precision, target)).collect()
    };
    let device = &tuning::tuned(device, config, cache::tuning().as_deref(), &graphs, &|| false)?.0;
    let (mut rows, mut skipped) = (Vec::new(), Vec::new());
    if !args.json {
        output::print(&heading(device, &roofline))?;
    }
    for case in cases().into_iter().filter(chosen) {
        let outcome = kernels::measure(device, &roofline, case, precision, args.budget)?;
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
            "peak_matrix_gflops": roofline.matrix_flops / 1e9,
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
    if name == SQUARE {
        return Err(Error {
            kind: Kind::Config,
            what: format!("`{name}` is no model"),
            place: "--preset".into(),
            why: "its shapes belong to single kernels".into(),
            hint: "name another preset, or use `bench kernels`".into(),
        });
    }
    let Borrowed { mut config, shape, _folder } = Borrowed::new(name, &args.options)?;
    let roofline = Roofline::measure(device)?;
    let mut rows = Vec::new();
    let cases = match args.alignment {
        // A run that has no alignment is not measured with one.
        Alignment::Both if config.vra.enabled => &[true, false][..],
        Alignment::On => &[true],
        Alignment::Both | Alignment::Off => &[false],
    };
    // Steps with alignment have all that those without have.
    config.vra.enabled = cases[0];
    let device = &engine::tuned_for_step(&config, device, shape, cache::tuning().as_deref())?;
    for &alignment in cases {
        config.vra.enabled = alignment;
        rows.push((alignment, engine::measure_step(&config, device, &roofline, shape, args.steps, args.profile)?));
    }
    if args.json {
        let rows = rows.iter().map(|(alignment, speed)| json!({"alignment": alignment, "step": speed}));
        let report = json!({
            "device": describe(device),
            "peak_gflops": roofline.flops / 1e9,
            "peak_matrix_gflops": roofline.matrix_flops / 1e9,
            "peak_gbytes": roofline.bytes / 1e9,
            "preset": name,
            "base": config.model.base.name(),
            "precision": config.train.precision.name(),
            "rows": Value::from_iter(rows),
        });
        return output::print(&format!("{report:#}\n"));
    }
    let mut text = format!("{}: {roofline}\n", device.adapter());
    let _ = writeln!(text, "{name}: {} x {} tokens, every sample with a picture\n", shape.batch, shape.tokens);
    let _ = writeln!(
        text,
        "{:<10} {:>10} {:>10} {:>10} {:>8} {:>8} {:>12} {:>12} {:>12} {:>10}",
        "alignment",
        "fwd+bwd s",
        "update s",
        "tokens/s",
        "TFLOP",
        "of peak",
        "device",
        "planned",
        "process",
        "last loss"
    );
    let mut profiles = String::new();
    for (alignment, speed) in rows {
        if let Some(profile) = &speed.profile {
            let _ = write!(profiles, "\nalignment {}: {}", if alignment { "on" } else { "off" }, profile.tables);
        }
        let _ = writeln!(
            text,
            "{:<10} {:>10.3} {:>10.3} {:>10.1} {:>8.3} {:>7.1}% {:>9.2} GB {:>9.2} GB {:>9.2} GB {:>10.4}",
            if alignment { "on" } else { "off" },
            speed.micro_batch_seconds,
            speed.update_seconds,
            speed.tokens_per_second,
            speed.model_flops as f64 / 1e12,
            100.0 * speed.utilisation,
            speed.device_bytes as f64 / 1e9,
            speed.planned.total_bytes() as f64 / 1e9,
            speed.process_bytes.unwrap_or(0) as f64 / 1e9,
            speed.losses.last().copied().unwrap_or(f64::NAN),
        );
    }
    output::print(&(text + &profiles))
}

fn describe(device: &Device) -> Value {
    let adapter = device.adapter();
    json!({"adapter": adapter.name, "backend": adapter.backend.name(), "driver": adapter.driver})
}

fn heading(device: &Device, roofline: &Roofline) -> String {
    let mut text = format!("{}: {roofline}\n\n", device.adapter());
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
