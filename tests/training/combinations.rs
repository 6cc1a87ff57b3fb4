//! Every language model, vision encoder and teacher on the device against PyTorch: features, and training in combinations.

use std::collections::HashMap;
use std::path::Path;

use crate::support::cases::{f64s, micro_batches, open, read_tensors};
use crate::support::combinations::{Combination, folder, llava_config, parts, teacher};
use crate::support::counter::{content, probe};
use crate::support::runs::Run;
use crate::support::{Comparison, device, relative_distance, run};
use serde_json::Value as Json;
use viral_compiler::tensor::Tensor;
use viral_compiler::types::DType;
use viral_compiler::{Graph, Options, Value};
use viral_model::adapter::Parameter;
use viral_model::config::LlavaConfig;
use viral_model::graph::{LeafSource, adapter_key, vision};
use viral_train::engine::Inspection;

/// Largest error of features, states and logits, relative L2.
const STATES: f64 = 1e-4;
/// Largest error of a gradient, of a later loss and of a trained tensor.
const LATER: f64 = 1e-3;

#[test]
fn features_of_every_encoder_and_teacher_agree_with_pytorch() {
    let expected = read_tensors(&folder().join("features.safetensors"));
    let mut comparison = Comparison::default();
    let mut compared = 0;
    for name in parts("encoder").keys() {
        let json = llava_config("vicuna", name).to_string();
        let config = LlavaConfig::from_json(Path::new(name), json.as_bytes()).unwrap();
        let side = config.vision.image_size;
        let name = format!("encoder.{name}");
        compare_features(&mut comparison, &expected[&name], name, side, |g, x| vision::features(g, &config, x));
        compared += 1;
    }
    for name in parts("teacher").keys() {
        let teacher = teacher(name);
        for (key, expected) in expected.iter().filter(|(key, _)| key.starts_with(&format!("teacher.{name}."))) {
            let grid: usize = key.rsplit('.').next().unwrap().parse().unwrap();
            let side = grid * teacher.patch();
            compare_features(&mut comparison, expected, key.clone(), side, |g, x| teacher.features(g, x, None));
            compared += 1;
        }
    }
    assert_eq!(compared, expected.len());
    comparison.finish();
}

#[test]
fn every_combination_trains_as_in_pytorch() {
    let mut comparison = Comparison::default();
    for combination in Combination::all() {
        compare_first_step(&combination, &mut comparison);
        compare_training(&combination, &mut comparison);
    }
    comparison.finish();
}

/// Features of the picture that the reference has, with contents by name.
fn compare_features(
    comparison: &mut Comparison,
    expected: &Parameter,
    name: String,
    side: usize,
    features: impl FnOnce(&mut Graph, Value) -> Value,
) {
    let mut g = Graph::new();
    let pixels = g.input("pixels", DType::F32, &[1, 3, side, side]);
    // What a leaf is called in the graph is in front of its name in the file for teachers only.
    let features = features(&mut g, pixels);
    g.output("features", features);
    g.check().unwrap_or_else(|error| panic!("{name}: {error}"));
    let stored: HashMap<String, Vec<usize>> = stored_shapes(&g, &name);
    let leaves = g.leaves().map(|leaf| {
        let load = |_, tensor: &str| Ok::<_, String>((stored[tensor].clone(), content(tensor, &stored[tensor])));
        let values = match leaf.name {
            "pixels" => content("pixels", &leaf.ty.shape),
            weight => LeafSource::of(weight).content(load).unwrap_or_else(|error| panic!("{name}: {error}")),
        };
        (leaf.name.to_owned(), Tensor::new(leaf.ty.clone(), f64s(&values)))
    });
    let leaves: HashMap<String, Tensor> = leaves.collect();
    let results = run(&g, &leaves, &Options::new(device().target().clone()));
    let found = &results["features"];
    assert_eq!(found.ty.shape, expected.shape, "{name}");
    comparison.note("features", name, relative_distance(&found.data, &f64s(&expected.values)), STATES);
}

/// Shapes of the stored tensors that a graph's weights are made of.
fn stored_shapes(g: &Graph, name: &str) -> HashMap<String, Vec<usize>> {
    match name.strip_prefix("teacher.").and_then(|rest| rest.rsplit_once('.')) {
        Some((teacher_name, _)) => {
            let inventory = viral_model::weights::Inventory::teacher(&*teacher(teacher_name));
            inventory.required.into_iter().map(|spec| (spec.name, spec.shape)).collect()
        }
        None => g.leaves().map(|leaf| (leaf.name.to_owned(), leaf.ty.shape.clone())).collect(),
    }
}

/// Features, targets, states, logits and gradients of the first micro-batch.
fn compare_first_step(combination: &Combination, comparison: &mut Comparison) {
    let bundle = open(&combination.config());
    let micro_batch = micro_batches(&bundle).next().unwrap();
    let inspection = Inspection::new(&bundle, &micro_batch).unwrap();
    let results = run(&inspection.graph, &inspection.leaves, &Options::new(device().target().clone()));
    let (length, n_visual) = (micro_batch.batch.lengths[0] as usize, bundle.geometry.visual_tokens);
    let mut gradients = 0;
    for (name, expected) in combination.expected["first"].as_object().unwrap() {
        let (rows, bound) = match name.as_str() {
            "vision_features" | "targets" => (n_visual, STATES),
            "logits" => (micro_batch.batch.supervised, STATES),
            name if name.starts_with("hidden.") => (length, STATES),
            _ => (0, LATER),
        };
        let found = if rows > 0 {
            let tensor = &results[name];
            tensor.data[..rows * tensor.ty.shape.last().unwrap()].to_vec()
        } else {
            gradients += 1;
            let key = name.strip_prefix("grad.").unwrap();
            let output = results.iter().find(|(output, _)| {
                output.strip_suffix(".grad").is_some_and(|parameter| adapter_key(parameter) == key)
            });
            output.unwrap_or_else(|| panic!("no gradient of {key}")).1.data.clone()
        };
        compare_probe(comparison, &combination.name, name, &found, expected, bound);
    }
    assert_eq!(gradients, results.keys().filter(|name| name.ends_with(".grad")).count(), "{}", combination.name);
}

/// Losses and norms of every step, and the tensors after the last one.
fn compare_training(combination: &Combination, comparison: &mut Comparison) {
    let run = Run::new(&combination.config());
    let (found, expected) = (run.metrics(), combination.expected["steps"].as_array().unwrap());
    assert_eq!((found.len(), expected.is_empty()), (expected.len(), false), "{}", combination.name);
    for (step, expected) in found.iter().zip(expected) {
        let bound = if step.step == 0 { STATES } else { LATER };
        let figures =
            [("loss_lm", step.loss_lm, bound), ("loss_vra", step.loss_vra, bound), ("norm", step.grad_norm, LATER)];
        for ((figure, found, bound), expected) in figures.into_iter().zip(expected.as_array().unwrap()) {
            let place = format!("{}: {figure} of step {}", combination.name, step.step);
            comparison.number(figure, place, found, expected.as_f64().unwrap(), bound);
        }
    }
    let (tensors, expected) = (run.tensors(), combination.expected["last"].as_object().unwrap());
    assert!(tensors.keys().eq(expected.keys()), "{}: {:?}", combination.name, tensors.keys());
    for (name, tensor) in &tensors {
        compare_probe(comparison, &combination.name, name, &f64s(&tensor.values), &expected[name], LATER);
    }
}

/// A product with a vector of numbers uniform in (-1, 1) is about the norm over the root of 3.
fn compare_probe(comparison: &mut Comparison, case: &str, name: &str, found: &[f64], expected: &Json, bound: f64) {
    let expected: Vec<f64> = expected.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
    let plain = name.strip_prefix("grad.").unwrap_or(name);
    let distance = probe(plain, found).iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    let kind = name.split('.').next().unwrap();
    comparison.note(kind, format!("{case}: {name}"), 3f64.sqrt() * distance / expected[0].max(1e-12), bound);
}
