//! `viral-wgpu plan`: what a run would need.

use std::path::PathBuf;

use clap::ArgGroup;
use serde_json::json;

use super::options::Options;
use super::preset::{self, Borrowed};
use super::{cache, output};
use crate::config::Config;
use crate::engine::{self, Planned, StepShape};
use crate::error::Result;
use crate::measure::Roofline;

/// Show memory, work and expected time of a training step; needs config.json of the models, no weights and no GPU
#[derive(Debug, clap::Args)]
#[command(group = ArgGroup::new("model").required(true).args(["config", "preset"]), after_help = "\
Without --adapter or --backend, the plan is made for a GPU that binds up to 2 GiB at once. With one of them it is made for
that device, whose arithmetic and memory are measured to say how long a step takes at least; --gflops and --gbytes state them
for a device that is not here.

Examples:
  viral-wgpu plan my.toml
  viral-wgpu plan --preset llava-1.5-7b --set model.base=nf4 --set train.moments=f8
  viral-wgpu plan --preset llava-1.5-13b --set train.max_length=2048 --gflops 60000 --gbytes 900 --json")]
pub(super) struct Args {
    /// Configuration file
    config: Option<PathBuf>,
    /// A ready-made model in its place; one sample of 1,024 tokens unless --set changes train.batch or train.max_length
    #[arg(long, value_parser = preset::names())]
    preset: Option<String>,
    /// Arithmetic of the device in 10⁹ floating-point operations a second
    #[arg(long, value_name = "NUMBER", requires = "gbytes", value_parser = positive)]
    gflops: Option<f64>,
    /// Memory bandwidth of the device in 10⁹ bytes a second
    #[arg(long, value_name = "NUMBER", requires = "gflops", value_parser = positive)]
    gbytes: Option<f64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    options: Options,
}

pub(super) fn run(args: Args) -> Result<()> {
    let planned = match (&args.preset, &args.config) {
        (Some(name), _) => {
            let borrowed = Borrowed::new(name, &args.options)?;
            plan(&args, &borrowed.config, borrowed.shape)?
        }
        (None, file) => {
            let config = args.options.load(file.as_deref().unwrap_or("config.toml".as_ref()), None)?;
            plan(&args, &config, StepShape::full(&config))?
        }
    };
    if args.json {
        return output::print(&format!("{:#}\n", json!(planned)));
    }
    output::print(&planned.to_string())
}

fn plan(args: &Args, config: &Config, shape: StepShape) -> Result<Planned> {
    let roof = |(flops, bytes)| Roofline { flops: flops * 1e9, matrix_flops: flops * 1e9, bytes: bytes * 1e9 };
    let stated = args.gflops.zip(args.gbytes).map(roof);
    if !args.options.names_a_device() {
        return engine::plan(config, shape, &engine::planning_target(), stated.as_ref());
    }
    let device = engine::cached(engine::open_device(config, cache::pipelines())?, config, cache::tuning().as_deref());
    let roofline = stated.map_or_else(|| Roofline::measure(&device), Ok)?;
    engine::plan(config, shape, device.target(), Some(&roofline))
}

fn positive(text: &str) -> std::result::Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if number > 0.0 && number.is_finite() { Ok(number) } else { Err("must be above zero".into()) }
}
