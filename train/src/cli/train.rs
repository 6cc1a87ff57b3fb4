//! `viral-wgpu train`: a training run, from a configuration or made up.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use super::options::Options;
use super::output;
use crate::config::{Assignment, Config};
use crate::demo;
use crate::engine::{self, Finished};
use crate::error::{Error, Kind, Result, escape};
use crate::run;

/// Fine-tune a model as a configuration says, or try it with --demo
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  viral-wgpu train --demo
  viral-wgpu train my.toml --dry-run
  viral-wgpu train my.toml --out runs/low --set train.lr=1e-4 --set vra.layers=[12]")]
pub(super) struct Args {
    /// Configuration file
    #[arg(required_unless_present = "demo")]
    config: Option<PathBuf>,
    /// Make up a tiny model, teacher, tokenizer and pictures, and train on them for a minute or so
    #[arg(long, conflicts_with_all = ["config", "dry_run"])]
    demo: bool,
    /// Run folder
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Open and check everything, show memory and steps, but do not train
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    options: Options,
}

pub(super) fn run(args: Args) -> Result<()> {
    let config = match &args.config {
        Some(file) => load(&args.options, file, args.out.as_deref())?,
        None => demo_config(&args.options, args.out.as_deref())?,
    };
    config.check_paths()?;
    if args.dry_run {
        return output::print(&engine::dry_run(&config)?);
    }
    let finished = engine::train(&config)?;
    output::print(&report(&finished))
}

fn load(options: &Options, file: &Path, out: Option<&Path>) -> Result<Config> {
    options.load(file, out.map(output_flag).transpose()?)
}

/// Writes what the demonstration needs into its run folder.
fn demo_config(options: &Options, out: Option<&Path>) -> Result<Config> {
    let out = out.map_or_else(unused_demo_folder, Path::to_path_buf);
    let file = demo::init(&out.join("inputs"), &demo::TINY, Config::default().train.seed)?;
    log::info!("made up a tiny model, teacher, tokenizer and pictures in {}", out.join("inputs").display());
    load(options, &file, Some(&out))
}

/// `runs/demo`, or the first of `runs/demo-2`, `runs/demo-3`, … that does not exist.
fn unused_demo_folder() -> PathBuf {
    let folder = |n: u32| PathBuf::from(if n == 1 { "runs/demo".into() } else { format!("runs/demo-{n}") });
    (1..u32::MAX).map(folder).find(|folder| !folder.exists()).unwrap_or_else(|| folder(1))
}

/// `--out` starts from the current folder, unlike paths in a file.
fn output_flag(out: &Path) -> Result<Assignment> {
    let absolute = std::path::absolute(out).map_err(|error| Error::io("resolve the path", out, &error))?;
    let path = absolute.to_str().ok_or_else(|| Error {
        kind: Kind::Config,
        what: "the path of the run folder is not UTF-8".into(),
        place: format!("--out {}", out.display()),
        why: "the path is written into run.json, which is text".into(),
        hint: "choose another folder".into(),
    })?;
    Assignment::from_flag("--out", "output.dir", path)
}

fn report(finished: &Finished) -> String {
    let mut text = String::new();
    if let Some(summary) = &finished.summary {
        let (first, last) = (&summary.first, &summary.last);
        let _ = writeln!(text, "{} steps in {}", last.step + 1, run::duration(summary.seconds));
        let mut losses = vec![("language", first.loss_lm, last.loss_lm)];
        if let Some((from, to)) = summary.alignment {
            losses.push(("alignment", from, to));
        }
        for (name, from, to) in losses {
            let _ = writeln!(text, "  {name:<10} {from:>8.4} → {to:.4}");
        }
    }
    for (name, file) in [("adapter", "adapter"), ("curves", "loss.svg"), ("metrics", "metrics.jsonl")] {
        let _ = writeln!(text, "  {name:<10} {}", escape(&finished.folder.join(file).display().to_string()));
    }
    text
}
