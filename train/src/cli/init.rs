//! `viral-wgpu init`: a folder to start from.

use std::path::PathBuf;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

use super::output;
use crate::demo::{self, PRESETS, Preset, TINY};
use crate::error::{Result, escape};

/// Write a folder with model, teacher and data in the Hugging Face layout
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Folder to write; it must be new or empty
    dir: PathBuf,
    /// What to write
    #[arg(long, default_value = TINY.name, value_parser = presets())]
    preset: &'static Preset,
    /// Start of every random stream
    #[arg(long, default_value_t = 42)]
    seed: u64,
}

pub(super) fn run(args: Args) -> Result<()> {
    let config = demo::init(&args.dir, args.preset, args.seed)?;
    log::info!("wrote {}: {}", args.dir.display(), args.preset.help);
    output::print(&format!("{}\n", escape(&config.display().to_string())))
}

fn presets() -> impl TypedValueParser<Value = &'static Preset> {
    let names = PRESETS.map(|preset| PossibleValue::new(preset.name).help(preset.help));
    PossibleValuesParser::new(names).try_map(|name| Preset::find(&name).ok_or("unknown preset"))
}
