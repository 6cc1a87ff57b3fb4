//! The program is stopped by signals, at any time, and goes on as if it had not been.
//!
//! `VIRAL_KILLS` says how often it is killed, `VIRAL_LONG` how many steps a long run has; `scripts/reliability` asks for more.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::support::runs::Bits;
use viral_train::data::rng::Mt19937;
use viral_train::run::read_metrics;

const STEPS: usize = 60;
/// Steps of a run that does not come to its end by itself while a test looks at it.
const MANY_STEPS: usize = 5000;

/// Starts a training run of the smallest case.
fn start(run: &Path, resume: bool) -> Child {
    start_long(run, resume, STEPS)
}

fn start_long(run: &Path, resume: bool, steps: usize) -> Child {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = crate::program();
    command.arg("train").arg(root.join("tests/fixtures/lm_only/config.toml")).arg("--out").arg(run);
    for set in [format!("train.steps={steps}"), "train.save_every=7".into(), "train.keep_checkpoints=2".into()] {
        command.args(["--set", &set]);
    }
    if resume {
        command.arg("--resume");
    }
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn count(variable: &str, usual: usize) -> usize {
    std::env::var(variable).map_or(usual, |text| text.parse().expect("a number"))
}

fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args([name, &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

fn recorded(run: &Path) -> usize {
    std::fs::read_to_string(run.join("metrics.jsonl")).map_or(0, |text| text.lines().count())
}

/// Waits until a run has recorded `steps` steps.
fn await_steps(child: &mut Child, run: &Path, steps: usize) {
    let begin = Instant::now();
    while recorded(run) < steps {
        assert!(child.try_wait().unwrap().is_none(), "the run has ended early");
        assert!(begin.elapsed() < Duration::from_secs(300), "no step");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn end(mut child: Child) -> ExitStatus {
    child.wait().unwrap()
}

///
#[test]
fn signals_and_kills_cost_nothing_but_time() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, stopped): (PathBuf, PathBuf) = (folder.path().join("whole"), folder.path().join("stopped"));
    let begin = Instant::now();
    assert!(end(start(&whole, false)).success());
    let usual = begin.elapsed();

    let mut child = start(&stopped, false);
    await_steps(&mut child, &stopped, 3);
    signal(&child, "-TERM");
    assert_eq!(end(child).code(), Some(143));
    let checkpoints = crate::support::runs::file_names(&stopped.join("checkpoints"));
    assert!(!checkpoints.is_empty(), "SIGTERM leaves a checkpoint");

    let mut random = Mt19937::new(1);
    let kills = count("VIRAL_KILLS", 1);
    let (mut finished, mut in_steps) = (false, 0);
    for kill in 0..kills {
        // A run that has come to its end is begun again, so that there is always one to kill.
        let mut child = if std::mem::take(&mut finished) {
            Bits::of(&whole).assert_equal(&Bits::of(&stopped), &[], &format!("before kill {kill}"));
            std::fs::remove_dir_all(&stopped).unwrap();
            start(&stopped, false)
        } else {
            start(&stopped, true)
        };
        // Half of the kills meet the run in its start, the others between its steps or in them.
        let before = recorded(&stopped);
        while kill % 2 == 1 && recorded(&stopped) == before && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(usual.mul_f64(0.3 * f64::from(random.next_u32()) / f64::from(u32::MAX)));
        child.kill().unwrap();
        finished = end(child).success();
        // A process that goes on cuts off the steps behind its checkpoint and does them again.
        in_steps += usize::from(!finished && recorded(&stopped) != before);
    }

    let before = recorded(&stopped);
    let mut child = start(&stopped, true);
    if !finished {
        // One figure more than the killed process left is the child's own: it listens to signals by then.
        while recorded(&stopped) <= before && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(5));
        }
        if child.try_wait().unwrap().is_none() {
            signal(&child, "-INT");
        }
        let code = end(child).code();
        assert!(matches!(code, Some(130 | 0)), "{code:?}");
        child = start(&stopped, true);
    }
    assert!(end(child).success());
    Bits::of(&whole).assert_equal(&Bits::of(&stopped), &[], &format!("{kills} kills"));
    println!(
        "{kills} kills at random times, {in_steps} of them between the first and the last step, all resumed bit for bit"
    );
}

/// however long a run is, it needs the memory that it needed at its beginning.
#[test]
fn a_long_run_needs_no_more_memory_than_a_short_one() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let steps = count("VIRAL_LONG", 60);
    assert!(end(start_long(&run, false, steps)).success());
    let metrics = read_metrics(&run.join("metrics.jsonl")).unwrap();
    assert_eq!(metrics.len(), steps);
    let device: Vec<u64> = metrics.iter().skip(1).map(|step| step.device_bytes).collect();
    assert!(device.iter().all(|bytes| *bytes == device[0]), "device memory changes");
    const KIB: u64 = 1024;
    let host = |step: usize| metrics[step].host_bytes.map(|bytes| bytes / KIB);
    println!("{steps} steps: device {} KiB from step 1 on", device[0] / KIB);
    for step in [1, 10, 20, 50, 75, 100].map(|percent| (steps * percent / 100).max(1) - 1) {
        println!("  after {:>6} steps: host {} KiB", step + 1, host(step).unwrap_or(0));
    }
    // Allocators keep some of what is given back, so a process settles before it stays as it is.
    if let (Some(settled), Some(last)) = (host(steps / 2), host(steps - 1)) {
        assert!(last <= settled + 2 * KIB, "host memory has grown from {settled} to {last} KiB");
    }
}

/// while one process trains, a second one leaves the folder alone; and a lock left behind is no obstacle.
#[test]
fn two_processes_cannot_train_in_one_folder() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let mut first = start_long(&run, false, MANY_STEPS);
    await_steps(&mut first, &run, 8);
    assert_eq!(end(start_long(&run, true, MANY_STEPS)).code(), Some(10));
    first.kill().unwrap();
    end(first);
    assert!(!std::fs::read(run.join(".lock")).unwrap().is_empty(), "the dead process has left its number");
    // A second signal does not wait for the step. The first process's figures are still there: one more is the child's.
    let before = recorded(&run);
    let mut child = start_long(&run, true, MANY_STEPS);
    await_steps(&mut child, &run, before + 1);
    signal(&child, "-INT");
    signal(&child, "-INT");
    assert_eq!(end(child).code(), Some(130));
}
