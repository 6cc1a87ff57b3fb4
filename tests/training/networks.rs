//! The networks on the device against PyTorch: everything from text and pictures to gradients, on the reference's cases.

use std::collections::BTreeMap;

use crate::support::cases::{Case, f64s, micro_batches};
use crate::support::{Comparison, device, norm, relative_distance, run};
use viral_compiler::Options;
use viral_compiler::tensor::Tensor;
use viral_model::adapter::Parameter;
use viral_model::graph::adapter_key;
use viral_train::data::{Batch, NONE, buckets};
use viral_train::engine::{Inspection, Session};

/// Largest error of features, states and logits, relative L2.
const STATES: f64 = 1e-4;
/// Largest error of a tensor's gradient, relative L2.
const GRADIENTS: f64 = 1e-3;

#[test]
fn tokens_and_labels_are_those_of_the_reference() {
    for case in Case::all() {
        let bundle = case.bundle();
        let samples = case.expected["samples"].as_array().unwrap();
        assert_eq!(bundle.dataset.len(), samples.len(), "{}", case.name);
        for (index, sample) in samples.iter().enumerate() {
            let record = bundle.dataset.record(index).unwrap();
            let encoded = bundle.prepare.encode(&record).unwrap();
            let place = format!("{}, record {index}", case.name);
            assert_eq!(serde_json::json!(encoded.ids), sample["ids"], "{place}");
            assert_eq!(serde_json::json!(encoded.labels), sample["labels"], "{place}");
            assert_eq!(serde_json::json!(record.image), sample["image"], "{place}");
        }
    }
}

#[test]
fn pixels_are_equal_bit_for_bit() {
    let mut compared = 0;
    for case in Case::all() {
        let Some(tensors) = case.tensors() else { continue };
        let bundle = case.bundle();
        let batch = micro_batches(&bundle).next().unwrap().batch;
        let per_picture = batch.pixels.len() / batch.bucket.images;
        for (row, picture) in pictures(&batch, bundle.geometry.visual_tokens) {
            let ours = &batch.pixels[picture * per_picture..][..per_picture];
            let theirs = &tensors[&format!("pixels.{row}")];
            let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            assert!(bits(ours) == bits(&theirs.values), "{}: row {row}", case.name);
            compared += 1;
        }
    }
    assert!(compared > 0);
}

#[test]
fn features_states_and_logits_agree_with_pytorch() {
    let mut comparison = Comparison::default();
    for case in Case::all() {
        let Some(tensors) = case.tensors() else { continue };
        let ours = first_micro_batch(&case);
        let forward = |name: &&String| !["pixels.", "grad.", "final."].iter().any(|part| name.starts_with(part));
        for name in tensors.keys().filter(forward) {
            let (found, expected) = (ours.get(name).unwrap_or_else(|| panic!("no {name}")), &tensors[name]);
            assert_eq!(found.ty.shape, expected.shape, "{}: {name}", case.name);
            let kind = name.split('.').next().unwrap();
            let error = relative_distance(&found.data, &f64s(&expected.values));
            comparison.note(kind, format!("{}: {name}", case.name), error, STATES);
        }
    }
    comparison.finish();
}

#[test]
fn gradients_of_the_first_step_agree_with_pytorch() {
    let mut comparison = Comparison::default();
    for case in Case::all() {
        let ours = first_gradients(&case);
        let norms = case.numbers("gradient_norms");
        assert!(ours.keys().eq(norms.keys()), "{}: {:?}", case.name, ours.keys());
        for (name, gradient) in &ours {
            let place = format!("{}: {name}", case.name);
            comparison.number("norm of a gradient", &place, norm(&f64s(&gradient.values)), norms[name], GRADIENTS);
        }
        let Some(tensors) = case.tensors() else { continue };
        for (name, gradient) in ours {
            let expected = &tensors[&format!("grad.{name}")];
            assert_eq!(gradient.shape, expected.shape, "{}: {name}", case.name);
            let error = relative_distance(&f64s(&gradient.values), &f64s(&expected.values));
            comparison.note("gradient", format!("{}: {name}", case.name), error, GRADIENTS);
        }
    }
    comparison.finish();
}

/// Features, states and logits of a case's first micro-batch, by the reference's names and without padding.
fn first_micro_batch(case: &Case) -> BTreeMap<String, Tensor> {
    let bundle = case.bundle();
    let micro_batch = micro_batches(&bundle).next().unwrap();
    let inspection = Inspection::new(&bundle, &micro_batch).unwrap();
    let results = run(&inspection.graph, &inspection.leaves, &Options::new(device().target().clone()));

    let (batch, rows) = (&micro_batch.batch, case.expected["rows"].as_array().unwrap());
    let visual_tokens = bundle.geometry.visual_tokens;
    let mut ours = BTreeMap::new();
    let mut first_target = 0;
    for (row, expected) in rows.iter().enumerate() {
        let (length, targets) = (batch.lengths[row] as usize, expected["targets"].as_u64().unwrap() as usize);
        assert_eq!(length as u64, expected["length"].as_u64().unwrap(), "{}: row {row}", case.name);
        for (name, state) in results.iter().filter(|(name, _)| name.starts_with("hidden.")) {
            ours.insert(format!("{name}.{row}"), slice_rows(state, row * batch.bucket.tokens, length));
        }
        ours.insert(format!("logits.{row}"), slice_rows(&results["logits"], first_target, targets));
        first_target += targets;
    }
    assert_eq!(first_target, batch.supervised, "{}", case.name);
    for (row, picture) in pictures(batch, visual_tokens) {
        for (name, result) in [("clip", "vision_features"), ("target", "targets")] {
            ours.insert(format!("{name}.{row}"), slice_rows(&results[result], picture * visual_tokens, visual_tokens));
        }
    }
    ours
}

/// The gradients of a case's first step, by the tensors' names in the adapter directory.
fn first_gradients(case: &Case) -> BTreeMap<String, Parameter> {
    let bundle = case.bundle();
    let buckets = buckets(&bundle.step_plan(), bundle.dataset.shapes());
    let mut session = Session::new(&bundle, device(), &buckets).unwrap_or_else(|error| panic!("{error}"));
    for micro_batch in micro_batches(&bundle).take_while(|micro_batch| micro_batch.step == 0) {
        session.micro_batch(&micro_batch).unwrap();
    }
    session.gradients().unwrap().into_iter().map(|(name, gradient)| (adapter_key(&name), gradient)).collect()
}

/// The rows of a batch that have a picture, each with the picture's number.
fn pictures(batch: &Batch, visual_tokens: usize) -> Vec<(usize, usize)> {
    let rows = batch.visual_index.chunks(batch.bucket.tokens).enumerate();
    rows.filter_map(|(row, index)| {
        let first = *index.iter().find(|&&token| token != NONE)?;
        Some((row, first as usize / visual_tokens))
    })
    .collect()
}

/// `count` rows of the last axis, from row `first` on.
fn slice_rows(x: &Tensor, first: usize, count: usize) -> Tensor {
    let width = *x.ty.shape.last().unwrap();
    Tensor::f32([count, width], x.data[first * width..(first + count) * width].to_vec())
}
