//! Tests that every operation gets by being in the registry.

use std::collections::HashMap;

use viral_compiler::eval::{evaluate, evaluate_outputs};
use viral_compiler::grad::gradients;
use viral_compiler::ir::{Graph, Value};
use viral_compiler::ops::{Class, Op, Random, Sample};
use viral_compiler::rows;
use viral_compiler::tensor::Tensor;
use viral_compiler::types::DType;

/// The sample's operation applied to inputs named by position, as the output `y`.
fn graph_of(sample: &Sample) -> (Graph, Vec<Value>, Value) {
    let mut graph = Graph::new();
    let args: Vec<Value> =
        sample.args.iter().enumerate().map(|(i, (ty, _))| graph.input(i.to_string(), ty.dtype, &ty.shape)).collect();
    let y = graph.push(sample.op.clone(), &args);
    graph.output("y", y);
    (graph, args, y)
}

fn leaves(tensors: &[Tensor]) -> HashMap<String, Tensor> {
    tensors.iter().enumerate().map(|(i, t)| (i.to_string(), t.clone())).collect()
}

#[test]
fn every_operation_but_leaves_has_samples() {
    let sampled: Vec<&str> = Op::samples().iter().map(|s| s.op.name()).collect();
    for (group, name, doc) in Op::docs() {
        assert!(!doc.trim().is_empty(), "{name} has no documentation");
        // Its kernels run on devices with cooperative matrices alone, and have tests of their own.
        let is_special = name == "dot_tiles";
        let is_expected = (group != "leaf" && !is_special) || ["constant", "iota"].contains(&name);
        assert_eq!(sampled.contains(&name), is_expected, "{name}");
    }
}

#[test]
fn type_rules_agree_with_evaluation() {
    let mut random = Random(1);
    for sample in Op::samples() {
        let (graph, _, y) = graph_of(&sample);
        graph.verify().unwrap_or_else(|e| panic!("{}: {e}", sample.op));
        let inputs = sample.tensors(&mut random);
        let result = &evaluate_outputs(&graph, &leaves(&inputs)).unwrap()["y"];
        assert_eq!(&result.ty, graph.ty(y), "{}", sample.op);
        assert_eq!(result.data.len(), result.ty.len(), "{}", sample.op);
        assert!(result.data.iter().all(|x| x.is_finite()), "{}", sample.op);
    }
}

#[test]
fn text_form_round_trips() {
    for sample in Op::samples() {
        let (graph, ..) = graph_of(&sample);
        let text = graph.to_string();
        let parsed: Graph = text.parse().unwrap_or_else(|e| panic!("{e}\n{text}"));
        assert_eq!(parsed.to_string(), text);
    }
}

/// Along random directions u of the inputs and w of the result, <w, J·u> from differences equals <Jᵀ·w, u> from autodiff.
#[test]
fn gradients_agree_with_differences() {
    let mut random = Random(2);
    for sample in Op::samples() {
        let (mut graph, args, y) = graph_of(&sample);
        if graph.ty(y).dtype != DType::F32 {
            continue;
        }
        let shape = graph.shape(y).to_vec();
        let weight = graph.input("w", DType::F32, &shape);
        let product = graph.mul(y, weight);
        let loss = graph.sum_all(product);
        graph.output("loss", loss);
        let real = sample.differentiable();
        let wanted: Vec<Value> = real.iter().map(|&i| args[i]).collect();
        let grads = gradients(&mut graph, loss, &wanted);
        for (position, gradient) in real.iter().zip(&grads) {
            if let Some(gradient) = gradient {
                graph.output(format!("d{position}"), *gradient);
            }
        }
        graph.verify().unwrap();
        for _ in 0..3 {
            let inputs = sample.tensors(&mut random);
            let mut directions: Vec<Tensor> = inputs.iter().map(|t| Tensor::map(&[t], &t.ty, |_| 0.0)).collect();
            for &i in &real {
                directions[i].data.iter_mut().for_each(|x| *x = random.real() - 0.5);
            }
            let w: Vec<f64> = (0..graph.ty(y).len()).map(|_| random.real() - 0.5).collect();
            let w = Tensor::new(graph.ty(weight).clone(), w);
            let outputs = |step: f64| {
                let moved: Vec<Tensor> = inputs
                    .iter()
                    .zip(&directions)
                    .map(|(x, u)| Tensor::map(&[x, u], &x.ty, |v| v[0] + step * v[1]))
                    .collect();
                let mut leaves = leaves(&moved);
                leaves.insert("w".into(), w.clone());
                evaluate_outputs(&graph, &leaves).unwrap()
            };
            let h = 1e-5;
            let measured = (outputs(h)["loss"].data[0] - outputs(-h)["loss"].data[0]) / (2.0 * h);
            let here = outputs(0.0);
            let derived: f64 = real
                .iter()
                .filter_map(|i| here.get(&format!("d{i}")).map(|d| (i, d)))
                .map(|(&i, d)| d.data.iter().zip(&directions[i].data).map(|(a, b)| a * b).sum::<f64>())
                .sum();
            // An operation that stops gradients has none by definition.
            let expected = if matches!(sample.op, Op::StopGradient(_)) { 0.0 } else { measured };
            let scale = 1.0 + measured.abs();
            assert!((derived - expected).abs() < 1e-6 * scale, "{}: {derived} against {expected}", sample.op);
        }
    }
}

#[test]
fn composites_equal_their_expansions() {
    let mut random = Random(3);
    for sample in Op::samples().into_iter().filter(|s| s.op.class() == Class::Composite) {
        let inputs = sample.tensors(&mut random);
        let run = |expanded: bool| {
            let mut graph = Graph::new();
            let args: Vec<Value> = sample
                .args
                .iter()
                .enumerate()
                .map(|(i, (ty, _))| graph.input(i.to_string(), ty.dtype, &ty.shape))
                .collect();
            let y = match expanded {
                true => sample.op.expand(&mut graph, &args).expect("a composite has an expansion"),
                false => graph.push(sample.op.clone(), &args),
            };
            let squares = graph.mul(y, y);
            let loss = graph.sum_all(squares);
            let wanted: Vec<Value> = sample.differentiable().into_iter().map(|i| args[i]).collect();
            let grads = gradients(&mut graph, loss, &wanted);
            for (i, g) in grads.iter().enumerate().filter_map(|(i, g)| g.map(|g| (i, g))) {
                graph.output(i.to_string(), g);
            }
            graph.output("y", y);
            let results = evaluate(&graph, &leaves(&inputs)).unwrap();
            let pick = |v: Value| results[v.index()].clone().unwrap().data;
            (pick(y), grads.into_iter().map(|g| g.map(pick)).collect::<Vec<_>>())
        };
        let (value, grads) = run(false);
        let (expanded_value, expanded_grads) = run(true);
        let close = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(x, y)| (x - y).abs() < 1e-9 * (1.0 + y.abs()));
        assert!(close(&value, &expanded_value), "{}", sample.op);
        for (own, expanded) in grads.iter().zip(&expanded_grads) {
            match (own, expanded) {
                (Some(own), Some(expanded)) => assert!(close(own, expanded), "gradient of {}", sample.op),
                (own, expanded) => assert_eq!(own.is_some(), expanded.is_some(), "gradient of {}", sample.op),
            }
        }
    }
}

/// Rows that are taken before an operation that works by rows are the rows that could be taken after it.
#[test]
fn what_is_said_to_work_by_rows_does() {
    let mut random = Random(5);
    let mut seen = Vec::new();
    for sample in Op::samples() {
        let (mut graph, args, y) = graph_of(&sample);
        let types: Vec<_> = args.iter().map(|&arg| graph.ty(arg)).collect();
        let (width, above) = graph.shape(y).split_last().map_or((0, 0), |(&w, above)| (w, above.iter().product()));
        let is_matrix = graph.ty(y).dtype == DType::F32 && graph.shape(y).len() > 1;
        let Some(by_rows) = sample.op.by_rows(&types).filter(|_| is_matrix && above > 1) else { continue };
        if by_rows.iter().any(|&at| types[at].dtype != DType::F32) {
            continue;
        }
        let index = graph.input("index", DType::U32, &[1]);
        let (flat, _) = graph.flatten_rows(y);
        let mut inputs = leaves(&sample.tensors(&mut random));
        inputs.insert("index".into(), Tensor::new(graph.ty(index).clone(), vec![(above - 1) as f64]));
        graph.take_outputs();
        let before = rows::at(&mut graph, flat, index);
        let after = graph.gather(flat, index, true);
        assert_ne!(before, after, "{}: nothing was taken before", sample.op);
        graph.output("before", before);
        graph.output("after", after);
        graph.verify().unwrap();
        let results = evaluate_outputs(&graph, &inputs).unwrap();
        assert_eq!(results["before"].data.len(), width);
        assert_eq!(results["before"], results["after"], "{}", sample.op);
        seen.push(sample.op.name());
    }
    for name in ["rms_norm", "layer_norm", "dot", "lora_linear", "swiglu", "add", "maximum"] {
        assert!(seen.contains(&name), "{name}: {seen:?}");
    }
}
