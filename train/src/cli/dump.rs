//! `viral-wgpu dump`: what the compiler makes of a training step.

use std::path::PathBuf;

use super::options::Options;
use super::output;
use crate::engine;
use crate::error::{Result, escape};

/// Write the graph after every compiler pass, the plan and every kernel as text
#[derive(Debug, clap::Args)]
#[command(after_help = "Without --adapter or --backend, the plan is made for a GPU that binds up to 2 GiB at once.")]
pub(super) struct Args {
    /// Configuration file
    config: PathBuf,
    /// Folder to write to
    #[arg(long, value_name = "DIR", default_value = "dump")]
    out: PathBuf,
    #[command(flatten)]
    options: Options,
}

pub(super) fn run(args: Args) -> Result<()> {
    let config = args.options.load(&args.config, None)?;
    let files = engine::dump(&config, &args.options.target()?, &args.out)?;
    output::print(&files.iter().map(|file| format!("{}\n", escape(&file.display().to_string()))).collect::<String>())
}
