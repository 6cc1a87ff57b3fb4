//! `viral-wgpu dump`: what the compiler makes of a configuration.

use std::path::PathBuf;

use super::options::Options;
use super::output;
use crate::engine;
use crate::error::{Result, escape};

/// Write the graph after each pass, the plan and every kernel; needs no device and no weights
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Configuration file
    config: PathBuf,
    /// Folder to write to
    #[arg(long, value_name = "DIR", default_value = "dump")]
    out: PathBuf,
    /// Compile for the device that would train instead of WebGPU's default limits
    #[arg(long)]
    device: bool,
    #[command(flatten)]
    options: Options,
}

pub(super) fn run(args: Args) -> Result<()> {
    let config = args.options.load(&args.config)?;
    let target = if args.device { engine::open_device(&config)?.target().clone() } else { engine::planning_target() };
    let files = engine::dump(&config, &target, &args.out)?;
    let lines = files.iter().map(|file| escape(&file.display().to_string()) + "\n");
    output::print(&lines.collect::<String>())
}
