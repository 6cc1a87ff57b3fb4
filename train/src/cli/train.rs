//! `viral-wgpu train`: a training run, from a configuration or made up.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::cache;
use super::options::Options;
use super::output;
use crate::config::{Assignment, Config};
use crate::demo;
use crate::engine::{self, Finished, Resume, Training};
use crate::error::{Error, Kind, Result, escape};
use crate::run::{self, Interrupt};
use crate::store::{self, Checkpoints, SystemDisk};

/// Fine-tune a model as a configuration says, or try it with --demo
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  viral-wgpu train --demo
  viral-wgpu train my.toml --dry-run
  viral-wgpu train my.toml --resume
  viral-wgpu train my.toml --tune full
  viral-wgpu train --resume runs/low/checkpoints/step-2000
  viral-wgpu train my.toml --out runs/low --set train.lr=1e-4 --set vra.layers=[12]
  viral-wgpu train configs/stage2.toml --out runs/c --set recipe.row=table4/c-encoder

`viral-wgpu config recipes` lists the rows of the paper's tables.")]
pub(super) struct Args {
    /// Configuration file
    #[arg(required_unless_present_any = ["demo", "resume"])]
    config: Option<PathBuf>,
    /// Make up a tiny model, teacher, tokenizer and pictures, and train on them for a minute or so
    #[arg(long, conflicts_with_all = ["config", "dry_run"])]
    demo: bool,
    /// Run folder
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Go on from the newest whole checkpoint of the run folder, or from a run folder or checkpoint named here
    #[arg(long, value_name = "DIR", num_args = 0..=1, conflicts_with = "demo")]
    resume: Option<Option<PathBuf>>,
    /// Let this key differ from the checkpoint's configuration; may be repeated
    #[arg(long, value_name = "KEY", requires = "resume")]
    allow_change: Vec<String>,
    /// Time every kernel of some steps (3 unless a number is given): trace.json for Perfetto, and tables at the end
    #[arg(long, value_name = "STEPS", num_args = 0..=1, require_equals = true, default_missing_value = "3")]
    profile: Option<u64>,
    /// Open and check everything, show memory and steps, but do not train
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    options: Options,
}

pub(super) fn run(args: Args) -> Result<()> {
    let named = args.resume.clone().flatten();
    let origin = named.as_deref().map(Origin::of).transpose()?;
    let config = match (&args.config, &origin) {
        (Some(file), None) => load(&args.options, file, args.out.as_deref())?,
        (Some(file), Some(origin)) => load(&args.options, file, Some(&origin.run))?,
        (None, Some(origin)) => load(&args.options, &origin.config()?, Some(&origin.run))?,
        (None, None) if args.resume.is_some() => return Err(nothing_named()),
        (None, None) => demo_config(&args.options, args.out.as_deref())?,
    };
    config.check_paths()?;
    if args.dry_run {
        return output::print(&engine::dry_run(&config, cache::tuning().as_deref())?);
    }
    let mut training = Training::new(&config)
        .interruptible(Interrupt::listen()?)
        .profiled(args.profile.unwrap_or(0))
        .pipelines(cache::pipelines())
        .tuning(cache::tuning());
    if args.resume.is_some() {
        let checkpoint = origin.and_then(|origin| origin.checkpoint);
        training = training.resume(Resume { checkpoint, allow: args.allow_change });
    }
    output::print(&report(&training.run()?))
}

/// What `--resume DIR` names.
struct Origin {
    run: PathBuf,
    checkpoint: Option<PathBuf>,
}

impl Origin {
    /// A run folder, or a checkpoint inside one.
    fn of(dir: &Path) -> Result<Self> {
        let absolute = std::path::absolute(dir).map_err(|error| Error::io("resolve the path", dir, &error))?;
        if store::step_of(&absolute).is_some()
            && let Some(run) = absolute.parent().and_then(Path::parent)
            && absolute.is_dir()
        {
            return Ok(Self { run: run.to_owned(), checkpoint: Some(absolute) });
        }
        if absolute.join("run.json").is_file() || absolute.join("checkpoints").is_dir() {
            return Ok(Self { run: absolute, checkpoint: None });
        }
        Err(Error {
            kind: Kind::Config,
            what: "there is no run to resume".into(),
            place: format!("--resume {}", dir.display()),
            why: "expected a run folder, or one of its checkpoints/step-N".into(),
            hint: "`viral-wgpu train CONFIG.toml --resume` goes on with the run folder of a configuration".into(),
        })
    }

    /// The configuration that the newest checkpoint was made with.
    fn config(&self) -> Result<PathBuf> {
        let newest = || Checkpoints::new(&self.run, Arc::new(SystemDisk)).newest().map(|(_, path)| path);
        let checkpoint = self.checkpoint.clone().or_else(newest).ok_or_else(|| Error {
            kind: Kind::Config,
            what: "the run has no checkpoint".into(),
            place: self.run.display().to_string(),
            why: "it stopped before the first one, so its configuration is not known".into(),
            hint: "name the configuration: `viral-wgpu train CONFIG.toml --resume`".into(),
        })?;
        Ok(checkpoint.join("config.toml"))
    }
}

fn nothing_named() -> Error {
    Error {
        kind: Kind::Config,
        what: "nothing says which run to resume".into(),
        place: "--resume".into(),
        why: "there is neither a configuration nor a folder".into(),
        hint: "`viral-wgpu train CONFIG.toml --resume`, or `viral-wgpu train --resume RUN_FOLDER`".into(),
    }
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
        for (name, loss) in [("alignment", summary.alignment), ("reconstruction", summary.reconstruction)] {
            losses.extend(loss.map(|(from, to)| (name, from, to)));
        }
        for (name, from, to) in losses {
            let _ = writeln!(text, "  {name:<14} {from:>8.4} → {to:.4}");
        }
    }
    if let Some(profile) = &finished.profile {
        let _ = writeln!(text, "\n{profile}");
    }
    let trace = finished.profile.as_ref().map(|_| ("trace", "trace.json"));
    let files = [("adapter", "adapter"), ("curves", "loss.svg"), ("metrics", "metrics.jsonl")];
    for (name, file) in files.into_iter().chain(trace) {
        let _ = writeln!(text, "  {name:<14} {}", escape(&finished.folder.join(file).display().to_string()));
    }
    text
}
