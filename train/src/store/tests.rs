//! What is left of checkpoints when writing them fails at every possible place.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;

use super::faults::{Fault, FaultyDisk};
use super::*;
use crate::data::rng::Mt19937;
use crate::error::Kind;

/// A new folder, in memory where the system has such: what a failing disk leaves is imagined here, so that every write of many
/// checkpoints would wait for a true one in vain.
fn folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Files as a checkpoint of `step` has them, of several pieces each.
fn parts(step: u64) -> Vec<Part<'static>> {
    let tensors = (0..3).map(|piece| vec![(step as u8).wrapping_mul(7) ^ piece; 40].into()).collect();
    vec![Part::pieces("optimizer.safetensors", tensors), Part::text("cursor.json", format!("{{\"step\": {step}}}\n"))]
}

/// Saves three checkpoints of which two are kept; the steps whose saving returned without an error.
fn save_three(run: &Path, disk: &FaultyDisk) -> Vec<u64> {
    let checkpoints = Checkpoints::new(run, Arc::new(disk.clone()));
    let save = |&step: &u64| {
        let best = Best { step: if step == 20 { 10 } else { step }, loss_lm: 1.0 / step as f64 };
        let saved = checkpoints.save(step, parts(step)).and_then(|_| checkpoints.mark_best(Some(&best)));
        saved.and_then(|()| checkpoints.retain(2)).is_ok()
    };
    [10, 20, 30].into_iter().take_while(save).collect()
}

fn on_system_disk(run: &Path) -> Checkpoints {
    Checkpoints::new(run, Arc::new(SystemDisk))
}

/// The newest whole checkpoint is the last one that was completed, or the one that was being written.
#[track_caller]
fn check(run: &Path, completed: &[u64], place: &str) {
    let newest = on_system_disk(run).newest().map(|(step, _)| step);
    let last = completed.last().copied();
    let under_way = [10, 20, 30].get(completed.len()).copied();
    assert!(newest == last || newest == under_way, "{place}: {newest:?} after {last:?}");
    if let Some(step) = newest {
        let text = fs::read_to_string(on_system_disk(run).path(step).join("cursor.json")).unwrap();
        assert_eq!(text, format!("{{\"step\": {step}}}\n"), "{place}");
    }
}

#[test]
fn checkpoints_are_saved_found_and_thinned_out() {
    let run = folder();
    assert!(on_system_disk(run.path()).newest().is_none());
    assert_eq!(save_three(run.path(), &FaultyDisk::default()), [10, 20, 30]);
    let checkpoints = on_system_disk(run.path());
    assert_eq!(checkpoints.steps(), [20, 30]);
    assert_eq!(checkpoints.newest().unwrap().0, 30);
    checkpoints.go_back_to(20).unwrap();
    assert_eq!(checkpoints.steps(), [20]);
    assert!(run.path().join("checkpoints/superseded-step-30.1/MANIFEST.json").exists());
    checkpoints.save(40, parts(40)).unwrap();
    checkpoints.retain(0).unwrap();
    assert_eq!(checkpoints.steps(), [20, 40]);
    // The best one is no surplus.
    let best = Best { step: 20, loss_lm: 1.5 };
    checkpoints.mark_best(Some(&best)).unwrap();
    checkpoints.save(50, parts(50)).unwrap();
    checkpoints.retain(1).unwrap();
    assert_eq!((checkpoints.steps(), checkpoints.best()), (vec![20, 50], Some(best)));
    checkpoints.mark_best(None).unwrap();
    checkpoints.retain(1).unwrap();
    assert_eq!((checkpoints.steps(), checkpoints.best()), (vec![50], None));
}

#[test]
fn every_kind_of_damage_is_noticed() {
    let run = folder();
    let checkpoints = on_system_disk(run.path());
    let path = checkpoints.save(1, parts(1)).unwrap();
    let file = path.join("optimizer.safetensors");
    let whole = fs::read(&file).unwrap();
    let damage: [(&str, &dyn Fn()); 5] = [
        ("bytes", &|| fs::write(&file, [&whole[..119], &[9]].concat()).unwrap()),
        ("bytes", &|| fs::write(&file, &whole[..100]).unwrap()),
        ("SHA-256", &|| fs::write(&file, vec![0; 120]).unwrap()),
        ("optimizer.safetensors", &|| fs::remove_file(&file).unwrap()),
        ("written last", &|| fs::remove_file(path.join(MANIFEST)).unwrap()),
    ];
    for (index, (expected, act)) in damage.into_iter().enumerate() {
        act();
        let error = Manifest::verify(&path).unwrap_err();
        assert_eq!(error.kind.exit_code(), 11);
        let expected = if index == 0 { "SHA-256" } else { expected };
        assert!(error.to_string().contains(expected), "{error}");
    }
    fs::write(path.join(MANIFEST), r#"{"files": {"../x": {"bytes": 0, "sha256": ""}}}"#).unwrap();
    assert!(Manifest::verify(&path).unwrap_err().why.contains("no name of a file"));
}

/// R-01 and R-06 on the disk's side: the n-th operation fails, for every n, and everything after it.
#[test]
fn whichever_operation_fails_an_earlier_checkpoint_is_whole() {
    let run = folder();
    let disk = FaultyDisk::default();
    save_three(run.path(), &disk);
    let operations = disk.operations();
    assert!(operations > 40, "{operations}");
    for fault in [Fault::Full, Fault::Killed] {
        for at in 0..operations {
            let run = folder();
            let disk = FaultyDisk::failing(at, fault);
            let completed = save_three(run.path(), &disk);
            assert!(disk.has_failed());
            check(run.path(), &completed, &format!("{fault:?} at {at}"));
            // And the run goes on from there.
            let checkpoints = on_system_disk(run.path());
            let step = checkpoints.newest().map_or(0, |(step, _)| step);
            checkpoints.go_back_to(step).unwrap();
            checkpoints.save(99, parts(99)).unwrap();
            assert_eq!(checkpoints.newest().unwrap().0, 99, "{fault:?} at {at}");
        }
    }
}

#[test]
fn a_full_disk_is_told_with_what_is_needed_and_free() {
    let run = folder();
    let checkpoints = |disk: FaultyDisk| Checkpoints::new(run.path(), Arc::new(disk));
    let error = checkpoints(FaultyDisk::with_available(100)).save(7, parts(7)).unwrap_err();
    assert_eq!(error.kind, Kind::Io);
    let text = error.to_string();
    for part in ["step-7", "132 bytes are needed", "100 bytes are free", "train.keep_checkpoints"] {
        assert!(text.contains(part), "no {part} in {text}");
    }
    assert_eq!(fs::read_dir(run.path().join("checkpoints")).unwrap().count(), 0, "nothing was begun");
    let error = checkpoints(FaultyDisk::failing(3, Fault::Full)).save(7, parts(7)).unwrap_err();
    assert!(error.to_string().contains("132 bytes are needed"), "{error}");
}

/// R-05: the power fails after the n-th operation, for every n, and of what was not flushed anything may be left.
#[test]
fn a_loss_of_power_leaves_the_last_completed_checkpoint() {
    let run = folder();
    let disk = FaultyDisk::default();
    // What each step had done when its saving returned, by number of operations.
    let mut completed = Vec::new();
    let checkpoints = Checkpoints::new(run.path(), Arc::new(disk.clone()));
    for step in [10, 20, 30] {
        checkpoints.save(step, parts(step)).unwrap();
        completed.push((disk.operations(), step));
        checkpoints.retain(2).unwrap();
    }
    let mut random = Mt19937::new(5);
    let mut resumed_later = 0;
    for after in 0..=disk.operations() {
        for _ in 0..8 {
            let left = folder();
            disk.after_power_loss(run.path(), after, &mut random, left.path());
            let done: Vec<u64> = completed.iter().filter(|(at, _)| *at <= after).map(|&(_, step)| step).collect();
            check(left.path(), &done, &format!("after {after}"));
            let newest = on_system_disk(left.path()).newest().map(|(step, _)| step);
            resumed_later += usize::from(newest > done.last().copied());
        }
    }
    assert!(resumed_later > 0, "some checkpoint is whole before its saving has returned");
}
