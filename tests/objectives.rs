//! Every objective, residual, stage and method against PyTorch: losses, gradients and ten optimiser steps.

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;
use support::cases::{micro_batches, open};
use support::{Comparison, device};
use viral_model::adapter::Parameter;
use viral_model::graph::adapter_key;
use viral_train::Config;
use viral_train::config::{Assignment, Overrides};
use viral_train::data::buckets;
use viral_train::engine::Session;
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
        let set = case["set"].as_array().unwrap().iter();
        let set = set.map(|assignment| Assignment::from_set(assignment.as_str().unwrap()).unwrap()).collect();
        let config = Config::load(&fixture("config.toml"), &Overrides { set, ..Overrides::default() });
        let trained = train(&config.unwrap_or_else(|error| panic!("{name}: {error}")));
        compare(name, case, &trained, &mut comparison);
    }
    comparison.finish();
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
        for (position, (figure, value)) in losses.into_iter().enumerate() {
            let expected = expected[position].as_f64().unwrap();
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
