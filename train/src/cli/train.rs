//! `viral-wgpu train`: the main job.

use std::path::{Path, PathBuf};

use super::options::Options;
use super::output;
use crate::config::Config;
use crate::demo::{self, Preset};
use crate::engine;
use crate::error::{Error, Kind, Result, escape};

/// Fine-tune a model as a configuration says, or train the built-in demo
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Configuration file
    #[arg(required_unless_present = "demo")]
    config: Option<PathBuf>,
    /// Make a tiny model with pictures and train it for a minute; needs no files
    #[arg(long, conflicts_with = "config")]
    demo: bool,
    /// Run folder
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Check everything and show the memory plan, but do not train
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    options: Options,
}

pub(super) fn run(args: Args) -> Result<()> {
    let config = if args.demo { demo_config(&args)? } else { load(&args, args.config.as_deref())? };
    if args.dry_run {
        return output::print(&engine::dry_run(&config)?);
    }
    let finished = engine::train(&config)?;
    let folder = escape(&finished.folder.display().to_string());
    let mut text = String::new();
    if let Some(summary) = finished.summary {
        let (first, last) = (&summary.first, &summary.last);
        text += &format!("language-model loss  {:.4} -> {:.4}\n", first.loss_lm, last.loss_lm);
        if config.vra.enabled {
            text += &format!("alignment loss       {:.4} -> {:.4}\n", first.loss_vra, last.loss_vra);
        }
        text += &format!("{} steps in {:.1} s\n", last.step + 1, summary.seconds);
    }
    text += &format!("adapter   {folder}/adapter\nmetrics   {folder}/metrics.jsonl\ncurves    {folder}/loss.svg\n");
    output::print(&text)
}

fn load(args: &Args, file: Option<&Path>) -> Result<Config> {
    let file = file.ok_or_else(|| Error {
        kind: Kind::Config,
        what: "no configuration file".into(),
        place: "viral-wgpu train".into(),
        why: "name a file, or pass --demo".into(),
        hint: "viral-wgpu config init my.toml writes one to start from".into(),
    })?;
    args.options.load_with_output(file, args.out.as_deref())
}

/// Writes the demo's files beside its run folder, and configures the run. A demo that ran before is left as it is: the
/// next one gets a folder of its own.
fn demo_config(args: &Args) -> Result<Config> {
    let base = match &args.out {
        Some(out) => out.clone(),
        None => {
            let unused = |number: &u32| !Path::new("runs").join(format!("demo-{number}")).exists();
            let number = (1..=u32::MAX).find(unused).unwrap_or(u32::MAX);
            Path::new("runs").join(format!("demo-{number}"))
        }
    };
    let file = demo::init(&base, Preset::Tiny, 42)?;
    args.options.load_with_output(&file, Some(&base.join("run")))
}
