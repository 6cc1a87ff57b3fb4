//! Every operation on the device against the f64 interpreter, forward and backward.

use std::collections::HashMap;

use crate::support::{device, relative_error, run};
use viral_compiler::Options;
use viral_compiler::eval::evaluate_outputs;
use viral_compiler::ops::{Op, Random};
use viral_compiler::tensor::Tensor;

#[test]
fn every_operation_agrees_with_the_interpreter() {
    let options = Options::new(device().target().clone());
    let mut random = Random(7);
    let mut failures = Vec::new();
    for sample in Op::samples() {
        let graph = sample.value_and_gradients();
        let mut leaves: HashMap<String, Tensor> =
            sample.tensors(&mut random).into_iter().enumerate().map(|(i, t)| (i.to_string(), t)).collect();
        if let Some(leaf) = graph.leaves().find(|leaf| leaf.name == "w") {
            let data = (0..leaf.ty.len()).map(|_| random.real() - 0.5).collect();
            leaves.insert("w".into(), Tensor::new(leaf.ty.clone(), data));
        }
        let expected = evaluate_outputs(&graph, &leaves).unwrap();
        let results = run(&graph, &leaves, &options);
        let mut names: Vec<&String> = expected.keys().collect();
        names.sort();
        for name in names {
            let (error, bar) = (relative_error(&results[name], &expected[name]), if name == "y" { 1e-4 } else { 1e-3 });
            if error.is_nan() || error > bar {
                failures.push(format!("{} {name}: {error:.2e}", sample.op));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
