//! Runs that are killed while they write a checkpoint, and runs that meet figures that are not finite.
//!
//! `VIRAL_KILLS` and `VIRAL_INJECTIONS` say how many of each; `scripts/reliability` asks for many.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use viral_runtime::AdapterChoice;

use super::session::Culprit;
use super::*;
use crate::config::Overrides;
use crate::data::MicroBatch;
use crate::data::rng::Mt19937;
use crate::store::faults::{Fault, FaultyDisk};

/// A case of the reference, for a run in `folder`.
fn config(case: &str, folder: &Path) -> Config {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(case).join("config.toml");
    let mut config = Config::load(&file, &Overrides::default()).unwrap_or_else(|error| panic!("{error}"));
    config.output.dir = folder.join("run");
    config
}

/// The device of all runs here, of which each would compile the same kernels.
fn device() -> Device {
    static DEVICE: OnceLock<Device> = OnceLock::new();
    DEVICE.get_or_init(|| Device::open(&AdapterChoice::default(), &DeviceOptions::default()).unwrap()).clone()
}

/// As the function of the engine.
fn train(config: &Config) -> Result<Finished> {
    Training::new(config).on(device()).run()
}

fn count(variable: &str, usual: usize) -> usize {
    std::env::var(variable).map_or(usual, |text| text.parse().expect("a number"))
}

/// What does not depend on the clock: figures and files of the adapter.
fn bits(run: &Path) -> (Vec<String>, BTreeMap<PathBuf, Vec<u8>>) {
    let metrics = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let figures = metrics.lines().map(|line| {
        let mut figures: serde_json::Value = serde_json::from_str(line).unwrap();
        for time in ["seconds", "tokens_per_second", "device_bytes", "host_bytes"] {
            figures.as_object_mut().unwrap().remove(time);
        }
        figures.to_string()
    });
    let files = fs::read_dir(run.join("adapter")).unwrap().map(|entry| entry.unwrap().path());
    let adapter = files.map(|file| (file.file_name().unwrap().into(), fs::read(&file).unwrap()));
    (figures.collect(), adapter.collect())
}

/// the process ends at an operation of a checkpoint's writing, here some of them, in `scripts/reliability` every one.
#[test]
fn a_run_killed_while_it_writes_goes_on_bit_for_bit() {
    let run = |disk: FaultyDisk, folder: &Path| {
        let mut config = config("lm_only", folder);
        (config.train.steps, config.train.save_every, config.train.keep_checkpoints) = (3, 1, 1);
        let result = Training { disk: Arc::new(disk), ..Training::new(&config).on(device()) }.run();
        (result, config)
    };
    let folder = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let (finished, config) = run(disk.clone(), folder.path());
    finished.unwrap_or_else(|error| panic!("{error}"));
    let whole = bits(&config.output.dir);
    let operations = disk.operations();
    let kills = count("VIRAL_KILLS", 1).min(operations);
    for kill in 0..kills {
        // Spread over the run, its middle first.
        let at = (operations / 2 + kill * operations / kills) % operations;
        let folder = tempfile::tempdir().unwrap();
        let (killed, config) = run(FaultyDisk::failing(at, Fault::Killed), folder.path());
        assert_eq!(killed.unwrap_err().kind, crate::error::Kind::Io);
        let resumed = Training::new(&config).on(device()).resume(Resume::default()).run();
        resumed.unwrap_or_else(|error| panic!("killed at operation {at}: {error}"));
        assert_eq!(bits(&config.output.dir).0, whole.0, "killed at operation {at} of {operations}");
        assert!(bits(&config.output.dir).1 == whole.1, "killed at operation {at} of {operations}: adapters differ");
    }
    println!("{kills} kills at {operations} operations, all resumed bit for bit");
}

/// Where a bad number is put.
#[derive(Clone, Copy, Debug)]
enum Place {
    Pixels,
    FrozenWeight,
    Activation,
    Gradient,
    Param,
    FirstMoment,
    SecondMoment,
}

const PLACES: [Place; 7] = [
    Place::Pixels,
    Place::FrozenWeight,
    Place::Activation,
    Place::Gradient,
    Place::Param,
    Place::FirstMoment,
    Place::SecondMoment,
];

/// a bad number anywhere leaves the state as it was, and the first tensor that has one is named.
#[test]
fn bad_numbers_change_nothing_and_are_traced() {
    let folder = tempfile::tempdir().unwrap();
    let config = config("gqa", folder.path());
    let bundle = Bundle::open(&config).unwrap_or_else(|error| panic!("{error}"));
    let plan = Arc::new(bundle.step_plan());
    let buckets = buckets(&plan, bundle.dataset.shapes());
    let mut session = Session::new(&bundle, &device(), &buckets).unwrap();
    let (dataset, prepare) = (bundle.dataset.clone(), bundle.prepare.clone());
    let mut steps: Vec<Vec<MicroBatch>> = Vec::new();
    for micro_batch in Loader::start(dataset, prepare, bundle.geometry, plan, 0, 1).unwrap() {
        let micro_batch = micro_batch.unwrap();
        match steps.last_mut().filter(|step| step[0].step == micro_batch.step) {
            Some(step) => step.push(micro_batch),
            None => steps.push(vec![micro_batch]),
        }
    }
    // A sound step first, so that no moment is zero.
    let sound = |session: &mut Session, step: u64| {
        for micro_batch in &steps[0] {
            session.micro_batch(micro_batch).unwrap();
        }
        session.step(step, 0.1).unwrap();
        assert!(!session.last().unwrap().unwrap().skipped, "step {step}");
    };
    sound(&mut session, 1);

    let mut random = Mt19937::new(3);
    let injections = count("VIRAL_INJECTIONS", PLACES.len());
    for injection in 0..injections {
        let place = PLACES[injection % PLACES.len()];
        let bad = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][injection % 3];
        let before = session.fingerprint();
        let mut step = steps[0].clone();
        let restore = session.inject(place, bad, &mut step, &mut random);
        for micro_batch in &step {
            session.micro_batch(micro_batch).unwrap();
        }
        if matches!(place, Place::Gradient) {
            session.inject_gradient(bad);
        }
        session.step(2, 1.0).unwrap();
        let outcome = session.last().unwrap().unwrap();
        assert!(outcome.skipped, "{place:?}: {outcome:?}");
        let culprit = session.diagnose(&bundle, &step).unwrap();
        restore(&mut session);
        check(place, &culprit, &step);
        assert!(session.fingerprint() == before, "{place:?}: the state has changed");
        assert!(session.gradients().unwrap().values().all(|gradient| gradient.values.iter().all(|&x| x == 0.0)));
    }
    sound(&mut session, 2);
    println!("{injections} injections, all skipped with unchanged state and traced");
}

#[track_caller]
fn check(place: Place, culprit: &Culprit, step: &[MicroBatch]) {
    let Culprit { tensor, elements, layer, samples } = culprit;
    let known: Vec<&String> = step.iter().flat_map(|micro_batch| &micro_batch.batch.samples).collect();
    let has_samples = !samples.is_empty() && samples.iter().all(|sample| known.contains(&sample));
    let is_traced = match place {
        Place::Pixels => tensor == "pixels" && *elements == 1 && layer.is_none() && has_samples,
        Place::FrozenWeight => tensor.ends_with(".weight") && layer.is_some() && samples.is_empty(),
        Place::Activation => tensor.starts_with("hidden.") && layer.is_some() && has_samples,
        // By the time that anybody looks, the gradients have been cleared.
        Place::Gradient => tensor.is_empty() && has_samples,
        Place::Param => tensor.contains("lora_A") && *elements == 1 && samples.is_empty(),
        Place::FirstMoment => tensor.starts_with("first moment of ") && *elements == 1,
        Place::SecondMoment => tensor.starts_with("second moment of ") && *elements == 1,
    };
    assert!(is_traced, "{place:?}: {culprit:?}");
}

impl Session {
    /// Puts a bad number somewhere; the function that comes back takes it away again.
    fn inject(
        &mut self,
        place: Place,
        bad: f32,
        step: &mut [MicroBatch],
        random: &mut Mt19937,
    ) -> Box<dyn FnOnce(&mut Session)> {
        let mut draw = |limit: usize| random.next_u32() as usize % limit;
        match place {
            Place::Pixels => {
                let batch = step.iter_mut().map(|micro_batch| &mut micro_batch.batch).find(|b| !b.pixels.is_empty());
                let pixels = &mut batch.expect("a picture").pixels;
                let at = draw(pixels.len());
                pixels[at] = bad;
                Box::new(|_| {})
            }
            Place::FrozenWeight => self.poke("mlp.down_proj.weight", draw(40), bad),
            Place::Activation => self.poke("layers.1.post_attention_layernorm.weight", draw(8), 3e37),
            Place::Gradient => Box::new(|_| {}),
            Place::Param => self.poke_state(layout::Flat::Param, "lora_A", bad),
            Place::FirstMoment => self.poke_state(layout::Flat::FirstMoment, "lora_A", bad),
            Place::SecondMoment => self.poke_state(layout::Flat::SecondMoment, "lora_B", bad),
        }
    }
}

/// a step in which nothing is supervised has no language loss, not one of 0, and its samples are named.
#[test]
fn a_step_without_supervised_tokens_has_no_language_loss() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config("gqa", folder.path());
    // The header is right and the pixels are not, so that the picture's row is known and teaches nothing.
    let picture = fs::read(config.data.images.join("square.png")).unwrap();
    let mut damaged = picture.clone();
    damaged[picture.len() / 2..picture.len() / 2 + 8].iter_mut().for_each(|byte| *byte ^= 0xff);
    fs::write(folder.path().join("damaged.png"), damaged).unwrap();
    fs::write(folder.path().join("whole.png"), picture).unwrap();
    let record = |id: &str, image: &str| {
        serde_json::json!({"id": id, "image": image, "conversations": [
            {"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A square."}]})
    };
    let records = serde_json::json!([record("bad", "damaged.png"), record("good", "whole.png")]);
    config.data.train = folder.path().join("train.json");
    fs::write(&config.data.train, records.to_string()).unwrap();
    config.data.images = folder.path().to_owned();
    config.data.on_bad_sample = crate::config::OnBadSample::Skip;
    (config.train.batch, config.train.accumulation, config.train.steps) = (1, 1, 2);
    train(&config).unwrap_or_else(|error| panic!("{error}"));

    let text = fs::read_to_string(config.output.dir.join("metrics.jsonl")).unwrap();
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines[0]["loss_lm"].is_null() && lines[0]["loss"].is_null(), "{text}");
    assert_eq!(lines[0]["supervised_tokens"], 0);
    assert!(lines[1]["loss_lm"].as_f64().unwrap() > 0.0, "{text}");
    assert!(lines.iter().all(|line| line["skipped"] == false), "{text}");

    let bundle = Bundle::open(&config).unwrap_or_else(|error| panic!("{error}"));
    let plan = Arc::new(bundle.step_plan());
    let loader = Loader::start(bundle.dataset.clone(), bundle.prepare.clone(), bundle.geometry, plan, 0, 1).unwrap();
    let warnings: Vec<Option<String>> = loader.map(|batch| guard::unsupervised(&batch.unwrap())).collect();
    let warning = warnings[0].as_ref().unwrap();
    assert!(warning.contains("step 0") && warning.contains("bad (record 0)"), "{warning}");
    assert_eq!(warnings[1], None);
}

#[test]
fn three_bad_steps_end_a_run() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config("gqa", folder.path());
    config.vra.weight = 1e38;
    config.train.steps = 5;
    let error = train(&config).unwrap_err();
    assert_eq!(error.kind.exit_code(), 7, "{error}");
    assert!(error.what.contains("step 2"), "{error}");
    let run = &config.output.dir;
    let metrics = crate::run::read_metrics(&run.join("metrics.jsonl")).unwrap();
    assert_eq!(metrics.iter().map(|step| step.skipped).collect::<Vec<_>>(), [true; 3]);
    let incidents = fs::read_to_string(run.join("incidents.jsonl")).unwrap();
    assert_eq!(incidents.lines().count(), 3);
    assert!(incidents.contains("\"kind\":\"not_finite\"") && incidents.contains("\"samples\":[\""), "{incidents}");
    assert!(!run.join("adapter").exists());
}
