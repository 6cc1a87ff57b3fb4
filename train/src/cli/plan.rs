//! `viral-wgpu plan`: what a run would need.

use std::path::PathBuf;

use super::options::Options;
use super::output;
use crate::engine;
use crate::error::Result;

/// Show the memory and the work of a training step; needs config.json of the models, no weights and no GPU
#[derive(Debug, clap::Args)]
#[command(after_help = "Without --adapter or --backend, the plan is made for a GPU that binds up to 2 GiB at once.")]
pub(super) struct Args {
    /// Configuration file
    config: PathBuf,
    #[command(flatten)]
    options: Options,
}

pub(super) fn run(args: Args) -> Result<()> {
    let config = args.options.load(&args.config, None)?;
    output::print(&engine::plan_report(&config, &args.options.target()?)?)
}
