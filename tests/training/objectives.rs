//! Every objective, residual, stage and method against PyTorch: losses, gradients and ten optimiser steps.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::support::cases::{micro_batches, open};
use crate::support::runs::{Run, file_names};
use crate::support::{Comparison, device};
use serde_json::Value as Json;
use viral_model::adapter::Parameter;
use viral_model::graph::{Trainable, adapter_key};
use viral_model::weights::{Checkpoint, NameMap};
use viral_train::Config;
use viral_train::config::{Assignment, Overrides};
use viral_train::data::buckets;
use viral_train::engine::{Bundle, Session};
use viral_train::run::Outcome;

/// Largest error of a loss of the first step, relative where the loss is above 1.
const FIRST_LOSS: f64 = 1e-5;
/// Largest relative error of a gradient, of a later step's figures and of a tensor after the last step.
const OTHERS: f64 = 1e-3;

#[test]
fn every_objective_trains_as_in_pytorch() {
    let mut comparison = Comparison::default();
    let cases = std::fs::read(fixture("cases.json")).unwrap();
    let cases: BTreeMap<String, Json> = serde_json::from_slice(&cases).unwrap();
    for (name, case) in &cases {
        let trained = train(&load(case["set"].as_array().unwrap().iter().map(|key| key.as_str().unwrap())));
        compare(name, case, &trained, &mut comparison);
    }
    comparison.finish();
}

#[test]
fn a_run_leaves_what_its_stage_and_method_train() {
    let standstill = ["vra.enabled=false", "train.steps=1", "train.lr=0.0", "train.projector_lr=0.0"];
    let config = |keys: &[&str]| load(standstill.iter().chain(keys).copied());
    let base = config(&[]).model.path;

    let pretrained = Run::new(&config(&[r#"train.stage="pretrain""#]));
    assert_eq!(file_names(&pretrained.adapter()), ["mm_projector.bin", "mm_projector.safetensors"]);
    assert!(!pretrained.path().join("model").exists());

    // A full run that changes nothing leaves its model byte for byte, and nothing but the projector beside it.
    let full = Run::new(&config(&[r#"train.method="full""#]));
    assert_eq!(file_names(&full.adapter()), ["mm_projector.safetensors"]);
    let model = full.path().join("model");
    assert_eq!(file_names(&model), file_names(&base));
    for name in file_names(&base) {
        assert!(std::fs::read(model.join(&name)).unwrap() == std::fs::read(base.join(&name)).unwrap(), "{name}");
    }

    // One that trains changes every tensor of the language model and of the projector, and only these.
    let moved = Run::new(&load(["vra.enabled=false", "train.steps=2", "train.lr=0.05", r#"train.method="full""#]));
    let open = |dir: &Path| Checkpoint::open(dir, NameMap::Llava).unwrap();
    let (before, after) = (open(&base), open(&moved.path().join("model")));
    assert!(before.names().eq(after.names()));
    for name in before.names() {
        let [before, after] = [&before, &after].map(|checkpoint| checkpoint.get(name).unwrap());
        assert_eq!((before.dtype(), before.shape()), (after.dtype(), after.shape()), "{name}");
        assert_eq!(before.bytes() != after.bytes(), Trainable::FULL.contains(name), "{name}");
    }
    let exact = &moved.tensors()["multi_modal_projector.linear_1.weight"];
    let stored = after.get("model.multi_modal_projector.linear_1.weight").unwrap();
    assert_eq!(stored.bytes(), stored.dtype().encode(&exact.values));
}

/// The second stage starts from what the first one has left, in either form, and trains to the same bits.
#[test]
fn the_second_stage_starts_from_the_first() {
    let pretrain = [r#"train.stage="pretrain""#, "vra.enabled=false", "train.steps=2", "train.projector_lr=0.01"];
    let first = Run::new(&load(pretrain));
    let mut second = load(["train.steps=1"]);
    let untouched = Run::new(&second);
    second.model.adapter = Some(first.adapter());
    let from_adapter = Run::new(&second);
    second.model.adapter = None;
    second.model.projector = Some(first.adapter().join("mm_projector.bin"));
    from_adapter.bits().assert_equal(&Run::new(&second).bits(), &[], "mm_projector.bin");
    assert!(untouched.bits().metrics != from_adapter.bits().metrics, "the first stage makes no difference");
}

/// What was trained with a residual is run with the same one, or not at all.
#[test]
fn the_residual_goes_with_the_adapter() {
    let keys = ["vra.enabled=false", "train.steps=1", "residual.enabled=true", "residual.layers=[1, 3]"];
    let run = Run::new(&load(keys));
    let text = std::fs::read(run.adapter().join("residual_config.json")).unwrap();
    let stored: Json = serde_json::from_slice(&text).unwrap();
    assert_eq!(stored, serde_json::json!({"source": "post_projection", "layers": [1, 3], "positions": "visual"}));

    let again = |changed: &[&str]| {
        let mut config = load(keys.iter().chain(changed).copied());
        config.model.adapter = Some(run.adapter());
        Bundle::open(&config)
    };
    assert!(again(&[]).is_ok());
    for changed in [&["residual.layers=[2]"], &["residual.positions=all"], &["residual.enabled=false"]] {
        let error = again(changed).err().unwrap();
        assert_eq!(error.kind.exit_code(), 2, "{error}");
        let (key, value) = changed[0].trim_start_matches("residual.").split_once('=').unwrap();
        let says = if key == "positions" { format!("{key} = {value:?}") } else { format!("{key} = {value}") };
        for part in ["residual_config.json", "it has source = \"post_projection\", layers = [1, 3]", &says] {
            assert!(error.to_string().contains(part), "no {part} in {error}");
        }
    }
}

fn load<'a>(keys: impl IntoIterator<Item = &'a str>) -> Config {
    let set = keys.into_iter().map(|key| Assignment::from_set(key).unwrap()).collect();
    let config = Config::load(&fixture("config.toml"), &Overrides { set, ..Overrides::default() });
    config.unwrap_or_else(|error| panic!("{error}"))
}

/// What a run yields, by the tensors' names in the adapter directory.
struct Trained {
    steps: Vec<Outcome>,
    gradients: BTreeMap<String, Parameter>,
    last: BTreeMap<String, Parameter>,
}

fn train(config: &Config) -> Trained {
    let bundle = open(config);
    let buckets = buckets(&bundle.step_plan(), bundle.dataset.shapes());
    let mut session = Session::new(&bundle, device(), &buckets).unwrap_or_else(|error| panic!("{error}"));
    let (mut steps, mut gradients) = (Vec::new(), BTreeMap::new());
    let schedule = viral_train::data::LrSchedule::new(config.train.schedule, bundle.step_plan().steps(), 0.0);
    for micro_batch in micro_batches(&bundle) {
        session.micro_batch(&micro_batch).unwrap();
        if micro_batch.index + 1 == micro_batch.of {
            if micro_batch.step == 0 {
                gradients = by_key(session.gradients().unwrap());
            }
            session.step(micro_batch.step, schedule.factor(micro_batch.step)).unwrap();
            steps.push(session.last().unwrap().unwrap());
        }
    }
    Trained { steps, gradients, last: by_key(session.parameters().unwrap()) }
}

fn compare(name: &str, case: &Json, trained: &Trained, comparison: &mut Comparison) {
    let steps = case["steps"].as_array().unwrap();
    assert_eq!(trained.steps.len(), steps.len(), "{name}");
    for (found, expected) in trained.steps.iter().zip(steps) {
        let place = |figure: &str| format!("{name}: {figure} of step {}", found.step);
        let losses = [("loss", found.loss), ("loss_lm", found.loss_lm), ("loss_vra", found.loss_vra)];
        // Behind the gradients' norm, where the case has one.
        let losses = losses.into_iter().enumerate().chain([(4, ("loss_ross", found.loss_ross))]);
        for (position, (figure, value)) in losses {
            let expected = expected[position].as_f64().unwrap_or(0.0);
            let (kind, bound) = if found.step == 0 { ("first loss", FIRST_LOSS) } else { ("later loss", OTHERS) };
            comparison.note(kind, place(figure), (value - expected).abs() / expected.abs().max(1.0), bound);
        }
        comparison.number("grad_norm", place("grad_norm"), found.grad_norm, expected[3].as_f64().unwrap(), OTHERS);
    }
    let tensors = case["tensors"].as_object().unwrap();
    for (kind, found, first) in [("gradient", &trained.gradients, 0), ("final tensor", &trained.last, 2)] {
        assert!(found.keys().eq(tensors.keys()), "{name}: {:?}", found.keys());
        for (tensor, expected) in tensors {
            let [norm, checksum] = [first, first + 1].map(|at| expected[at].as_f64().unwrap());
            let (found_norm, found_checksum) = figures(&found[tensor].values);
            // Errors of independent elements make a checksum wrong by about their norm.
            for (figure, error) in [("norm", found_norm - norm), ("checksum", found_checksum - checksum)] {
                let relative = if error == 0.0 { 0.0 } else { error.abs() / norm };
                comparison.note(&format!("{figure} of a {kind}"), format!("{name}: {tensor}"), relative, OTHERS);
            }
        }
    }
}

/// Euclidean norm, and the sum of `cos(i) x_i`.
fn figures(values: &[f32]) -> (f64, f64) {
    let values = values.iter().map(|&value| f64::from(value));
    let checksum = values.clone().enumerate().map(|(index, value)| (index as f64).cos() * value).sum();
    (values.map(|value| value * value).sum::<f64>().sqrt(), checksum)
}

fn by_key(tensors: BTreeMap<String, Parameter>) -> BTreeMap<String, Parameter> {
    tensors.into_iter().map(|(name, tensor)| (adapter_key(&name), tensor)).collect()
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/objectives").join(name)
}
