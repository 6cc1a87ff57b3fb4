//! `viral-wgpu runs`: look at what runs have left behind.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Subcommand;
use serde_json::Value;

use super::output;
use crate::error::{Error, Kind, Result, escape};
use crate::run::{StepMetrics, loss_svg, read_metrics};
use crate::store::{Checkpoints, Manifest, SystemDisk};

/// List, show, compare, draw and verify the runs in a folder
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// One line a run: state, steps, losses
    Ls {
        /// Folder that holds run folders
        #[arg(default_value = "runs")]
        dir: PathBuf,
    },
    /// What a run is: device, inputs, last figures, checkpoints
    Show {
        /// Run folder
        run: PathBuf,
    },
    /// What two runs differ in: settings, inputs, device, results
    Diff {
        /// Run folder
        first: PathBuf,
        /// Run folder
        second: PathBuf,
    },
    /// Draw the curves of a run again
    Plot {
        /// Run folder
        run: PathBuf,
        /// File to write
        #[arg(long, value_name = "FILE", default_value = "loss.svg")]
        out: PathBuf,
    },
    /// Check that checkpoints are as they were written and that no step is missing
    Verify {
        /// Run folder
        run: PathBuf,
    },
}

pub(super) fn run(args: Args) -> Result<()> {
    match args.action {
        Action::Ls { dir } => ls(&dir),
        Action::Show { run } => show(&run),
        Action::Diff { first, second } => diff(&first, &second),
        Action::Plot { run, out } => plot(&run, &out),
        Action::Verify { run } => verify(&run),
    }
}

fn ls(dir: &Path) -> Result<()> {
    let entries = fs::read_dir(dir).map_err(|error| Error::io("list the runs", dir, &error))?;
    let mut runs: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    runs.retain(|run| run.join("run.json").is_file());
    runs.sort();
    let mut text = format!("{:<24} {:<12} {:>15} {:>9} {:>9}  started\n", "run", "state", "steps", "lm", "vra");
    for run in runs {
        let record = record(&run)?;
        let metrics = metrics(&run)?;
        let name = run.file_name().unwrap_or(run.as_os_str()).to_string_lossy().into_owned();
        let steps = format!("{}/{}", metrics.len(), number(&record["steps"]));
        let figure = |value: fn(&StepMetrics) -> f64| {
            metrics.last().map_or_else(|| "–".to_owned(), |last| format!("{:.4}", value(last)))
        };
        let (lm, vra) = (figure(|last| last.loss_lm), figure(|last| last.loss_vra));
        let (state, started) = (plain(&record["status"]), plain(&record["started"]));
        let _ = writeln!(text, "{:<24} {state:<12} {steps:>15} {lm:>9} {vra:>9}  {started}", escape(&name));
    }
    output::print(&text)
}

fn show(run: &Path) -> Result<()> {
    let record = record(run)?;
    let metrics = metrics(run)?;
    let mut text = format!("{}\n", escape(&run.display().to_string()));
    for (name, value) in [
        ("state", &record["status"]),
        ("started", &record["started"]),
        ("version", &record["version"]),
        ("device", &record["device"]["adapter"]),
        ("driver", &record["device"]["driver"]),
        ("seed", &record["seed"]),
        ("resumed from", &record["resumed_from"]),
    ] {
        if !value.is_null() {
            let _ = writeln!(text, "  {name:<14} {}", plain(value));
        }
    }
    for (name, hash) in record["fingerprints"].as_object().into_iter().flatten() {
        let _ = writeln!(text, "  {name:<14} {}", plain(hash));
    }
    let _ = writeln!(text, "  {:<14} {} of {}", "steps", metrics.len(), number(&record["steps"]));
    if let (Some(first), Some(last)) = (metrics.first(), metrics.last()) {
        let _ = writeln!(text, "  {:<14} {:.4} → {:.4}", "language loss", first.loss_lm, last.loss_lm);
        let _ = writeln!(text, "  {:<14} {:.4} → {:.4}", "alignment loss", first.loss_vra, last.loss_vra);
        if metrics.iter().any(|step| step.loss_ross != 0.0) {
            let _ = writeln!(text, "  {:<14} {:.4} → {:.4}", "reconstruction", first.loss_ross, last.loss_ross);
        }
        if let Some((step, last)) = metrics.iter().rev().find_map(|line| Some((line.step, line.validation.as_ref()?))) {
            let (lm, vra, done) = (last.loss_lm, last.loss_vra, step + 1);
            let _ = writeln!(text, "  {:<14} language {lm:.4}, alignment {vra:.4} after {done} steps", "validation");
        }
        let skipped = metrics.iter().filter(|step| step.skipped).count();
        let _ = writeln!(text, "  {:<14} {skipped} steps", "skipped");
        let _ = writeln!(text, "  {:<14} {:.0}", "tokens/s", last.tokens_per_second);
    }
    let best = checkpoints(run).best();
    for step in checkpoints(run).steps() {
        let best = best.filter(|best| best.step == step);
        let best = best.map_or_else(String::new, |best| format!("  best, validation lm {:.4}", best.loss_lm));
        let path = checkpoints(run).path(step).display().to_string();
        let _ = writeln!(text, "  {:<14} {}{best}", "checkpoint", escape(&path));
    }
    output::print(&text)
}

fn diff(first: &Path, second: &Path) -> Result<()> {
    let (a, b) = (record(first)?, record(second)?);
    let mut rows = Vec::new();
    for part in ["version", "platform", "device", "fingerprints", "config"] {
        compare(part, &a[part], &b[part], &mut rows);
    }
    let (metrics_a, metrics_b) = (metrics(first)?, metrics(second)?);
    let same = metrics_a.iter().zip(&metrics_b);
    let same = same
        .take_while(|(a, b)| (a.loss.to_bits(), a.grad_norm.to_bits()) == (b.loss.to_bits(), b.grad_norm.to_bits()));
    let equal = same.count();
    let mut text = String::new();
    for (name, one, other) in &rows {
        let _ = writeln!(text, "{name:<32} {one:<28} {other}");
    }
    if rows.is_empty() {
        text.push_str("settings, inputs and device are equal\n");
    }
    let _ = writeln!(text, "{equal} steps have equal bits, of {} and {}", metrics_a.len(), metrics_b.len());
    if let (Some(one), Some(other)) = (metrics_a.last(), metrics_b.last()) {
        let _ = writeln!(text, "{:<32} {:<28.6} {:.6}", "last language loss", one.loss_lm, other.loss_lm);
        let _ = writeln!(text, "{:<32} {:<28.6} {:.6}", "last alignment loss", one.loss_vra, other.loss_vra);
    }
    output::print(&text)
}

/// The leaves in which two values differ, by path.
fn compare(path: &str, a: &Value, b: &Value, rows: &mut Vec<(String, String, String)>) {
    match (a, b) {
        (Value::Object(one), Value::Object(other)) => {
            let names = one.keys().chain(other.keys().filter(|name| !one.contains_key(*name)));
            for name in names {
                compare(&format!("{path}.{name}"), &a[name.as_str()], &b[name.as_str()], rows);
            }
        }
        _ if a == b => {}
        _ => rows.push((escape(path.strip_prefix("config.").unwrap_or(path)), plain(a), plain(b))),
    }
}

fn plot(run: &Path, out: &Path) -> Result<()> {
    let metrics = metrics(run)?;
    let name = run.file_name().unwrap_or(run.as_os_str()).to_string_lossy().into_owned();
    fs::write(out, loss_svg(&metrics, &name)).map_err(|error| Error::io("write", out, &error))?;
    output::print(&format!("{}\n", escape(&out.display().to_string())))
}

fn verify(run: &Path) -> Result<()> {
    let record = record(run)?;
    let metrics = metrics(run)?;
    let mut failed = Vec::new();
    if let Some((expected, found)) = metrics.iter().enumerate().find(|(step, line)| line.step != *step as u64) {
        failed.push(format!("metrics.jsonl: step {} stands where step {expected} belongs", found.step));
    }
    let mut text = format!("{} steps recorded\n", metrics.len());
    if plain(&record["status"]) == "finished" {
        if metrics.len() as u64 != record["steps"].as_u64().unwrap_or(0) {
            failed.push("metrics.jsonl: the run is finished, but steps are missing".into());
        }
        if !run.join("adapter").is_dir() {
            failed.push("adapter: the run is finished, but there is no adapter".into());
        }
    }
    for step in checkpoints(run).steps() {
        match Manifest::verify(&checkpoints(run).path(step)) {
            Ok(manifest) => {
                let bytes: u64 = manifest.files.values().map(|entry| entry.bytes).sum();
                let _ = writeln!(text, "step-{step}: {} files, {bytes} bytes, as written", manifest.files.len());
            }
            Err(error) => failed.push(format!("step-{step}: {}: {}", error.place, error.why)),
        }
    }
    output::print(&text)?;
    if failed.is_empty() {
        return Ok(());
    }
    Err(Error {
        kind: Kind::Verification,
        what: "the run is not as it was written".into(),
        place: run.display().to_string(),
        why: failed.join("\n"),
        hint: "`viral-wgpu train --resume` passes damaged checkpoints over".into(),
    })
}

fn checkpoints(run: &Path) -> Checkpoints {
    Checkpoints::new(run, Arc::new(SystemDisk))
}

/// `run.json`.
fn record(run: &Path) -> Result<Value> {
    let file = run.join("run.json");
    let none = |why: String| Error {
        kind: Kind::Config,
        what: "this is no run folder".into(),
        place: run.display().to_string(),
        why,
        hint: "`viral-wgpu runs ls DIR` lists the runs in a folder".into(),
    };
    let text = fs::read(&file).map_err(|error| none(format!("run.json: {error}")))?;
    serde_json::from_slice(&text).map_err(|error| none(format!("run.json: {error}")))
}

fn metrics(run: &Path) -> Result<Vec<StepMetrics>> {
    let file = run.join("metrics.jsonl");
    if file.exists() { read_metrics(&file) } else { Ok(Vec::new()) }
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => "–".into(),
        Value::String(text) => escape(text),
        other => escape(&other.to_string()),
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}
