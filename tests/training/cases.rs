//! Whole runs: the reference's cases step by step against PyTorch, what a run leaves, and how a run without a starting
//! adapter begins.

use std::collections::BTreeMap;

use crate::support::cases::{Case, f64s, read_tensors};
use crate::support::runs::{Run, file_names, read_adapter};
use crate::support::{Comparison, norm, relative_distance};
use serde_json::{Value as Json, json};
use viral_model::adapter::Parameter;
use viral_model::weights::{Checkpoint, NameMap};
use viral_train::Config;
use viral_train::run::StepMetrics;

/// Largest relative error of a loss of the first step, before any update.
const FIRST_LOSS: f64 = 1e-4;
/// Largest relative error of any other figure, and of a tensor after the last step.
const LATER: f64 = 1e-3;
/// Largest relative error of a learning rate: both sides compute it in f64.
const LEARNING_RATE: f64 = 1e-12;

#[test]
fn every_case_trains_as_in_pytorch() {
    let mut comparison = Comparison::default();
    for case in Case::all() {
        let run = Run::new(&case.config());
        compare_steps(&case, &run.metrics(), &mut comparison);
        compare_tensors(&case, &run.tensors(), &mut comparison);
        check_peft_keys(&case, &run);
        check_folder(&case, &run);
        check_as_a_start(&case, &run);
    }
    comparison.finish();
}

#[test]
fn without_an_adapter_a_run_starts_as_specified() {
    for case in Case::all() {
        let mut config = standstill(&case.config());
        config.model.adapter = None;
        check_first_values(&case, &config, &Run::new(&config).tensors());
    }
}

#[test]
fn the_seed_decides_the_random_first_values() {
    let mut config = standstill(&Case::named("multi").config());
    config.model.adapter = None;
    let run = Run::new(&config);
    config.train.seed += 1;
    let other = Run::new(&config);
    // B is zero, so whatever A is, the language model is still the base model.
    assert_eq!(run.metrics()[0].loss_lm, other.metrics()[0].loss_lm);
    let start = run.tensors();
    for (name, value) in other.tensors() {
        let is_random = name.ends_with("lora_A.weight") || is_alignment_weight(&name);
        assert_eq!(value != start[&name], is_random, "{name}");
    }
}

#[test]
fn a_frozen_alignment_projector_keeps_its_first_values() {
    let case = Case::named("gqa");
    for adapter in [case.config().model.adapter, None] {
        let mut config = case.config();
        config.model.adapter = adapter;
        config.train.steps = 2;
        let start = match &config.model.adapter {
            Some(dir) => read_adapter(dir),
            None => Run::new(&standstill(&config)).tensors(),
        };
        config.vra.projector_frozen = true;
        let end = Run::new(&config).tensors();
        assert!(start.keys().eq(end.keys()), "{:?}", end.keys());
        // A only moves once B has.
        for (name, value) in end.into_iter().filter(|(name, _)| !name.ends_with("lora_A.weight")) {
            assert_eq!(value == start[&name], name.starts_with("alignment_projector."), "{name}");
        }
    }
}

fn compare_steps(case: &Case, metrics: &[StepMetrics], comparison: &mut Comparison) {
    let expected = case.expected["steps"].as_array().unwrap();
    assert_eq!(metrics.len(), expected.len(), "{}", case.name);
    for (found, expected) in metrics.iter().zip(expected) {
        let place = |figure: &str| format!("{}: {figure} of step {}", case.name, found.step);
        let of = |figure: &str| expected[figure].as_f64().unwrap();
        let losses = [("loss", found.loss), ("loss_lm", found.loss_lm), ("loss_vra", found.loss_vra)];
        for (figure, found_value) in losses {
            let bound = if found.step == 0 { FIRST_LOSS } else { LATER };
            comparison.number(figure, place(figure), found_value, of(figure), bound);
        }
        comparison.number("grad_norm", place("grad_norm"), found.grad_norm, of("grad_norm"), LATER);
        for (figure, found_value) in [("lr", found.lr), ("lr_projector", found.lr_projector)] {
            comparison.number("learning rate", place(figure), found_value, of(figure), LEARNING_RATE);
        }
        let counts =
            json!({ "step": found.step, "tokens": found.tokens, "supervised_tokens": found.supervised_tokens });
        for (figure, count) in counts.as_object().unwrap() {
            assert_eq!(*count, expected[figure], "{}", place(figure));
        }
        assert!(!found.skipped, "{}", place("skipped"));
    }
}

fn compare_tensors(case: &Case, found: &BTreeMap<String, Parameter>, comparison: &mut Comparison) {
    let norms = case.numbers("final_norms");
    assert!(found.keys().eq(norms.keys()), "{}: {:?}", case.name, found.keys());
    for (name, tensor) in found {
        let place = format!("{}: {name}", case.name);
        comparison.number("norm of a final tensor", &place, norm(&f64s(&tensor.values)), norms[name], LATER);
    }
    let Some(tensors) = case.tensors() else { return };
    for (name, tensor) in found {
        let expected = &tensors[&format!("final.{name}")];
        assert_eq!(tensor.shape, expected.shape, "{}: {name}", case.name);
        let error = relative_distance(&f64s(&tensor.values), &f64s(&expected.values));
        comparison.note("final tensor", format!("{}: {name}", case.name), error, LATER);
    }
}

/// PEFT makes exactly these tensors for the model and the adapter's configuration.
fn check_peft_keys(case: &Case, run: &Run) {
    let expected: Json = serde_json::from_slice(&std::fs::read(case.dir.join("peft_keys.json")).unwrap()).unwrap();
    let found = read_tensors(&run.adapter().join("adapter_model.safetensors"));
    let shapes: BTreeMap<&str, Json> = found.iter().map(|(name, tensor)| (&**name, json!(tensor.shape))).collect();
    let expected: BTreeMap<&str, Json> =
        expected.as_object().unwrap().iter().map(|(name, shape)| (&**name, shape.clone())).collect();
    assert_eq!(shapes, expected, "{}", case.name);
}

fn check_folder(case: &Case, run: &Run) {
    let config = case.config();
    let files = file_names(&run.path());
    for name in ["run.json", "metrics.jsonl", "loss.svg", "adapter"] {
        assert!(files.iter().any(|file| file == name), "{}: {files:?}", case.name);
    }
    assert_eq!(run.finished.folder, run.path());
    let mut expected = vec!["adapter_config.json", "adapter_model.safetensors"];
    expected.extend(config.vra.enabled.then_some("alignment_projector.safetensors"));
    expected.push("mm_projector.safetensors");
    expected.sort_unstable();
    assert_eq!(file_names(&run.adapter()), expected, "{}", case.name);

    let record: Json = serde_json::from_slice(&std::fs::read(run.path().join("run.json")).unwrap()).unwrap();
    assert_eq!(record["status"], "finished");
    assert_eq!(record["steps"], run.metrics().len());
    assert_eq!(record["seed"], config.train.seed);
    assert_eq!(record["config"]["lora"], serde_json::to_value(&config.lora).unwrap());
    assert_eq!(record["fingerprints"].as_object().unwrap().len(), 2 + usize::from(config.vra.enabled));
    for key in ["adapter", "backend", "driver"] {
        assert_ne!(record["device"][key], "", "{key}");
    }
    let svg = std::fs::read_to_string(run.path().join("loss.svg")).unwrap();
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{}", case.name);
}

/// A run that starts from what this one left, and stands still, leaves the same.
fn check_as_a_start(case: &Case, run: &Run) {
    let mut config = standstill(&case.config());
    config.model.adapter = Some(run.adapter());
    assert_eq!(Run::new(&config).tensors(), run.tensors(), "{}", case.name);
}

/// Adapters as PEFT initialises them, alignment projectors as the reference's loader does, everything else the model's.
fn check_first_values(case: &Case, config: &Config, start: &BTreeMap<String, Parameter>) {
    let model = Checkpoint::open(&config.model.path, NameMap::Llava).unwrap();
    let (mut lora, mut alignment) = (Vec::new(), Vec::new());
    for (name, tensor) in start {
        if name.ends_with("lora_A.weight") {
            let root = (tensor.shape[1] as f64).sqrt();
            lora.extend(tensor.values.iter().map(|&value| f64::from(value) * root));
        } else if is_alignment_weight(name) {
            alignment.extend(f64s(&tensor.values));
        } else if name.ends_with("lora_B.weight") || name.starts_with("alignment_projector.") {
            assert!(tensor.values.iter().all(|&value| value == 0.0), "{}: {name}", case.name);
        } else {
            let expected = model.get(&format!("model.{name}")).unwrap().to_f32().unwrap();
            assert!(tensor.values == expected, "{}: {name}", case.name);
        }
    }
    // A uniform distribution on (-1, 1) has the deviation 1 / sqrt(3).
    assert!(lora.iter().all(|value| value.abs() <= 1.0 + 1e-6), "{}", case.name);
    check_deviation(&case.name, &lora, 1.0 / 3f64.sqrt());
    assert_eq!(alignment.is_empty(), !config.vra.enabled);
    if config.vra.enabled {
        check_deviation(&case.name, &alignment, 0.02);
    }
}

/// The values' mean is near 0 and their deviation near `expected`.
fn check_deviation(place: &str, values: &[f64], expected: f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let deviation = (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / n).sqrt();
    // The standard error of the mean is the deviation over sqrt(n), that of the deviation is less.
    let slack = 4.0 * expected / n.sqrt();
    assert!(mean.abs() < slack && (deviation - expected).abs() < slack, "{place}: {mean}, {deviation} of {n} values");
}

fn is_alignment_weight(name: &str) -> bool {
    name.starts_with("alignment_projector.") && name.ends_with(".weight")
}

/// One step without any change.
fn standstill(config: &Config) -> Config {
    let mut config = config.clone();
    config.train.steps = 1;
    (config.train.lr, config.train.projector_lr) = (0.0, 0.0);
    config
}
