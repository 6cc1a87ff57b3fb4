//! `viral-wgpu plan`: what a run will need, without running it.

use std::path::PathBuf;

use super::options::Options;
use super::output;
use crate::engine;
use crate::error::Result;

/// Show memory by class and work by kernel; needs no device and no weights, only config.json
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Configuration file
    config: PathBuf,
    /// Plan for the device that would train instead of WebGPU's default limits
    #[arg(long)]
    device: bool,
    #[command(flatten)]
    options: Options,
}

pub(super) fn run(args: Args) -> Result<()> {
    let config = args.options.load(&args.config)?;
    let target = if args.device { engine::open_device(&config)?.target().clone() } else { engine::planning_target() };
    output::print(&engine::plan_report(&config, &target)?)
}
