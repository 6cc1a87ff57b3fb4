//! Choices that a measurement may take: each computes what the rule's computes.

use std::collections::HashMap;

use crate::support::{device, relative_error, run};
use viral_compiler::compile::compile_traced;
use viral_compiler::eval::evaluate_outputs;
use viral_compiler::ops::Random;
use viral_compiler::tensor::Tensor;
use viral_compiler::tunables::{Question, questions};
use viral_compiler::types::{DType, TensorType};
use viral_compiler::{Graph, Options, Target, Tuning};

/// Random leaves, as their types store them once the options are applied. Log-sum-exps are above every score.
fn leaves(graph: &Graph, options: &Options) -> HashMap<String, Tensor> {
    let mut random = Random(7);
    let mut leaf = |name: &str, ty: &TensorType| {
        let ty = TensorType::new(options.storage.get(name).copied().unwrap_or(ty.dtype), ty.shape.clone());
        let above = if name == "lse" { 8.0 } else { 0.0 };
        let values = Tensor::from_fn(&ty, |_| above + 2.0 * random.real() - 1.0);
        Tensor::from_bytes(&ty, &values.to_bytes())
    };
    graph.leaves().map(|found| (found.name.to_owned(), leaf(found.name, found.ty))).collect()
}

/// Every choice gives what the interpreter computes. Returns how many there were.
fn check(question: &Question) -> usize {
    let choices: Vec<&String> = [&question.rule].into_iter().chain(&question.others).collect();
    for choice in &choices {
        let options = question.options_for(choice, &Tuning::default());
        let leaves = leaves(question.graph(), &options);
        // With storage types as the compiler puts them, which the interpreter decodes as the device does.
        let mut stored = None;
        let compiled = compile_traced(question.graph(), &options, &mut |stage, graph| {
            if stage == "storage" {
                stored = Some(graph.clone());
            }
        });
        compiled.unwrap();
        let expected = evaluate_outputs(&stored.unwrap(), &leaves).unwrap();
        for (name, found) in run(question.graph(), &leaves, &options) {
            let error = relative_error(&found, &expected[&name]);
            assert!(error < 1e-5, "{} {}: {choice}: {name}: {error:.2e}", question.tunable, question.class);
        }
    }
    choices.len()
}

/// Products of sizes at which something is small, and attention with its gradients.
fn graph(storage: DType) -> (Graph, Vec<(String, DType)>) {
    let mut g = Graph::new();
    let mut stored = Vec::new();
    let mut product = |g: &mut Graph, index: usize, transposed: [bool; 2], [m, n, k]: [usize; 3]| {
        let mut factor = |name: &str, transposed: bool, rows: usize, columns: usize| {
            let shape = if transposed { [columns, rows] } else { [rows, columns] };
            let name = format!("{name}{index}");
            let value = g.weight(&name, &shape);
            if name.starts_with('b') && storage.can_store(&shape) {
                stored.push((name, storage));
            }
            if transposed { g.transpose(value) } else { value }
        };
        let (a, b) = (factor("a", transposed[0], m, k), factor("b", transposed[1], k, n));
        let c = g.dot(a, b);
        g.output(format!("c{index}"), c);
    };
    let problems = [
        ([false, true], [200, 132, 96]),
        ([false, false], [9, 128, 512]),
        ([true, false], [16, 64, 520]),
        ([false, true], [130, 20, 256]),
        ([false, true], [70, 33, 129]),
    ];
    for (index, (transposed, extents)) in problems.into_iter().enumerate() {
        product(&mut g, index, transposed, extents);
    }
    (g, stored)
}

#[test]
fn every_choice_computes_the_same() {
    let mut choices: HashMap<&str, usize> = HashMap::new();
    for target in [device().target().clone(), Target::baseline()] {
        let is_own = target == *device().target();
        for storage in [DType::F32, DType::BF16].into_iter().take(if is_own { 2 } else { 1 }) {
            let (graph, stored) = graph(storage);
            let options = Options { storage: stored.into_iter().collect(), ..Options::new(target.clone()) };
            for question in questions(&graph, &options).unwrap() {
                *choices.entry(question.tunable).or_default() += check(&question);
            }
        }
        for (causal, backward) in [(true, true), (false, false)].into_iter().filter(|_| is_own) {
            let mut g = Graph::new();
            let [q, k, v] = [("q", 4), ("k", 2), ("v", 2)].map(|(name, heads)| g.param(name, &[1, 70, heads, 8]));
            let y = g.attention(q, k, v, causal, 0.3);
            let loss = g.sum_all(y);
            g.output("y", y);
            let wanted = if backward { &[q, k, v][..] } else { &[] };
            for (i, gradient) in viral_compiler::grad::gradients(&mut g, loss, wanted).into_iter().enumerate() {
                g.output(format!("gradient {i}"), gradient.unwrap());
            }
            let asked = questions(&g, &Options::new(target.clone())).unwrap();
            for question in asked.iter().filter(|question| question.tunable == "attention") {
                *choices.entry(question.tunable).or_default() += check(question);
            }
        }
    }
    assert_eq!(choices["attention"], 2 * 3);
    assert!(choices["tiling"] > 30 && choices["parts"] > 15, "{choices:?}");
}
