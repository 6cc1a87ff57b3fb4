//! Plans of presets: within default limits, as large as the device's own books say, and computing what they should.

use std::path::{Path, PathBuf};

use super::*;
use crate::config::{Assignment, Overrides};
use crate::demo::{self, Preset};
use crate::engine::{measure_step, open_device};
use tempfile::TempDir;
use viral_runtime::{AdapterChoice, Device, DeviceOptions};

/// A roof under which nobody looks.
const ROOF: Roofline = Roofline { flops: 1e12, matrix_flops: 1e12, bytes: 1e11 };

/// The models of a preset in a folder, without weights.
struct Folder {
    file: PathBuf,
    _dir: TempDir,
}

impl Folder {
    fn of(preset: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = demo::configurations(dir.path(), Preset::find(preset).unwrap()).unwrap();
        Self { file, _dir: dir }
    }

    fn config(&self, set: &[&str]) -> Config {
        let set = set.iter().map(|text| Assignment::from_set(text).unwrap()).collect();
        Config::load(&self.file, &Overrides { set, ..Overrides::default() }).unwrap()
    }
}

/// The sizes of the paper on the cards that people have, under the limits that every device keeps.
#[test]
fn published_models_fit_their_cards_within_default_limits() {
    let target = Target::baseline();
    let shape = StepShape { batch: 1, tokens: 1024, targets: 128 };
    for (preset, set, most) in [
        ("llava-1.5-7b", &["model.base=bf16"][..], 24e9),
        ("llava-1.5-7b", &["model.base=nf4", "train.moments=f8"], 10e9),
        ("llava-1.5-13b", &["model.base=nf4", "train.moments=f8"], 16e9),
    ] {
        let folder = Folder::of(preset);
        let config = folder.config(&[set, &["train.precision=bf16"]].concat());
        assert!(config.vra.enabled && config.lora.r == 128);
        let Plans { layout, micro_batch, update, .. } = Plans::compile(&config, shape, &target).unwrap();
        for (name, dispatch) in micro_batch.iter().chain([&update]).flat_map(dispatches) {
            assert!(dispatch.binds.len() <= 8, "{preset}: {name} binds {}", dispatch.binds.len());
            assert!(
                dispatch.binds.iter().all(|bind| bind.bytes <= 128 << 20),
                "{preset}: {name}: {:?}",
                dispatch.binds
            );
        }
        let total = total_memory(micro_batch.iter().chain([&update]), &layout).total();
        println!("{preset} {set:?}: {:.2} GB", total as f64 / 1e9);
        assert!((total as f64) < most, "{preset} {set:?}: {:.2} GB", total as f64 / 1e9);
    }
}

fn dispatches(plan: &Plan) -> impl Iterator<Item = (&str, &viral_compiler::plan::Dispatch)> {
    plan.commands.iter().filter_map(|command| match command {
        Command::Dispatch(dispatch) => Some((plan.kernels[dispatch.kernel.0 as usize].name.as_str(), dispatch)),
        Command::Clear(_) => None,
    })
}

/// What carries inputs up is as large as this model, so it is left out of what errors are measured by.
#[test]
fn planned_memory_is_what_the_device_holds() {
    let folder = Folder::of("tiny");
    let device = open_device(&folder.config(&[]), None).unwrap();
    for set in [&[][..], &["train.precision=bf16"], &["model.base=nf4", "train.moments=f8"]] {
        let config = folder.config(set);
        let shape = StepShape { batch: 1, tokens: 96, targets: 8 };
        let speed = measure_step(&config, &device, &ROOF, shape, 1, false).unwrap();
        let (planned, measured) = (speed.planned.total_bytes(), speed.device_bytes);
        let own = (planned - speed.planned.memory.transfers) as f64;
        let error = (measured as f64 - planned as f64) / own;
        println!("{set:?}: planned {planned}, measured {measured}, {:.2}% of the model", 100.0 * error);
        assert!((-0.1..0.05).contains(&error), "{set:?}: planned {planned}, measured {measured}");
        assert!(speed.losses.len() == 2 && speed.losses.iter().all(|loss| loss.is_finite()), "{:?}", speed.losses);
    }
}

/// Tables of tokens of 2.5 MB on a device that binds 1 MiB.
#[test]
fn a_device_that_binds_little_computes_the_same() {
    let folder = Folder::of("tiny");
    set_vocabulary(&folder.file.with_file_name("llava").join("config.json"), 5000);
    let device = |binding_limit| {
        let options = DeviceOptions { binding_limit, ..DeviceOptions::default() };
        Device::open(&AdapterChoice::default(), &options).unwrap()
    };
    let [large, small] = [None, Some(1 << 20)].map(device);
    let losses = |device: &Device, set: &[&str]| {
        let config = folder.config(set);
        let shape = StepShape { batch: 1, tokens: 48, targets: 8 };
        measure_step(&config, device, &ROOF, shape, 1, false).unwrap().losses
    };
    for set in [&["train.max_length=48"][..], &["model.base=bf16"]] {
        let (whole, parts) = (losses(&large, set), losses(&small, set));
        assert!(whole[0].is_finite() && whole.len() == 2);
        for (whole, parts) in whole.iter().zip(&parts) {
            assert!((whole - parts).abs() <= 1e-6 * whole.abs(), "{set:?}: {whole} and {parts}");
        }
    }
}

fn set_vocabulary(file: &Path, size: usize) {
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    config["text_config"]["vocab_size"] = size.into();
    std::fs::write(file, config.to_string()).unwrap();
}

#[test]
fn arithmetic_that_is_done_twice_counts_once() {
    let folder = Folder::of("tiny");
    let target = Target::baseline();
    let shape = StepShape { batch: 1, tokens: 96, targets: 8 };
    let planned = |remat: &str| plan(&folder.config(&[remat]), shape, &target, Some(&ROOF)).unwrap();
    let (kept, repeated) = (planned("train.remat=none"), planned("train.remat=block"));
    assert_eq!(kept.micro_batch.repeated_flops, 0);
    assert!(repeated.micro_batch.flops > kept.micro_batch.flops * 11 / 10);
    let ratio = repeated.model_flops() as f64 / kept.model_flops() as f64;
    assert!((ratio - 1.0).abs() < 0.02, "{ratio}");
    let expected = kept.expected.unwrap();
    assert!(expected.micro_batch_seconds >= kept.micro_batch.flops as f64 / ROOF.flops);
    assert!(expected.update_seconds >= kept.update.bytes as f64 / ROOF.bytes);
}
