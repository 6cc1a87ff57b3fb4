//! Attention: both shapes of its kernels and its expansion against the interpreter, what they keep in memory, and equal bits
//! however often it is computed.

use std::collections::HashMap;

use crate::support::{device, relative_error, run};
use viral_compiler::eval::evaluate_outputs;
use viral_compiler::grad::gradients;
use viral_compiler::ops::{Op, Random, Sample};
use viral_compiler::passes::{BLOCK, Remat};
use viral_compiler::plan::{Command, Plan};
use viral_compiler::tensor::Tensor;
use viral_compiler::types::DType;
use viral_compiler::{Graph, Options, Target, compile};
use viral_shaders::DeviceClass;

fn samples() -> impl Iterator<Item = Sample> {
    Op::samples().into_iter().filter(|sample| sample.op.name().starts_with("attention"))
}

/// Random numbers for all inputs.
fn fill(graph: &Graph, random: &mut Random) -> HashMap<String, Tensor> {
    let leaves = graph.leaves().map(|leaf| {
        let data = (0..leaf.ty.len()).map(|_| 2.0 * random.real() - 1.0).collect();
        let tensor = Tensor::new(leaf.ty.clone(), data);
        (leaf.name.to_owned(), Tensor::from_bytes(leaf.ty, &tensor.to_bytes()))
    });
    leaves.collect()
}

/// `tests/kernels/operations.rs` runs the samples in the shape that the device prefers; here are the other shape, for GPUs, and the
/// expansion.
#[test]
fn every_form_agrees_with_the_interpreter() {
    let forms = [
        ("GPU kernels", Options::new(Target::baseline())),
        ("expansion", Options { fused: false, ..Options::new(device().target().clone()) }),
    ];
    let mut random = Random(11);
    let mut failures = Vec::new();
    for sample in samples() {
        let graph = sample.value_and_gradients();
        let mut leaves = fill(&graph, &mut random);
        leaves.extend(sample.tensors(&mut random).into_iter().enumerate().map(|(i, tensor)| (i.to_string(), tensor)));
        let expected = evaluate_outputs(&graph, &leaves).unwrap();
        for (form, options) in &forms {
            for (name, result) in run(&graph, &leaves, options) {
                let error = relative_error(&result, &expected[&name]);
                if error.is_nan() || error > 2e-5 {
                    failures.push(format!("{form}, {} {name}: {error:.2e}", sample.op));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Attention of `x (2, tokens, width)` with itself, in blocks, and the gradient of its sum.
fn blocks(tokens: usize, heads: usize, width: usize, count: usize) -> Graph {
    let mut graph = Graph::new();
    let shape = [2, tokens, heads, width];
    let input = graph.input("x", DType::F32, &shape);
    let factor = graph.param("factor", &shape);
    let mut x = input;
    for _ in 0..count {
        x = graph.tag(x, BLOCK);
        let q = graph.mul(x, factor);
        let k = graph.tanh(q);
        x = graph.attention(q, k, x, true, 0.5);
    }
    let squares = graph.mul(x, x);
    let loss = graph.sum_all(squares);
    let gradient = gradients(&mut graph, loss, &[factor])[0].unwrap();
    graph.output("y", x);
    graph.output("gradient", gradient);
    graph
}

fn kernels(plan: &Plan) -> Vec<&str> {
    let dispatches = plan.commands.iter().filter_map(|command| match command {
        Command::Dispatch(dispatch) => Some(plan.kernels[dispatch.kernel.0 as usize].name.as_str()),
        Command::Clear(_) => None,
    });
    dispatches.filter(|name| name.starts_with("attention")).collect()
}

#[test]
fn nothing_of_the_size_of_the_scores_is_stored() {
    let graph = blocks(300, 2, 8, 1);
    let scores = 300 * 300 * 4;
    for class in [DeviceClass::Gpu, DeviceClass::Cpu] {
        let options = Options::new(Target { class, ..Target::baseline() });
        let plan = compile(&graph, &options).unwrap();
        let largest = plan.buffers.iter().map(|buffer| buffer.bytes).max().unwrap();
        assert!(largest < scores, "{largest} bytes\n{plan}");
        let expanded = compile(&graph, &Options { fused: false, ..options }).unwrap();
        assert!(expanded.memory.slots > scores, "the bound distinguishes nothing\n{expanded}");
    }
}

/// One launch forward, which writes the log-sum-exp, too; two backward, where the first block's values want no gradient. A
/// second computation adds one launch a block.
#[test]
fn results_of_one_kernel_share_its_launch() {
    let graph = blocks(9, 2, 8, 3);
    let count = |remat| {
        let plan = compile(&graph, &Options { remat, ..Options::new(Target::baseline()) }).unwrap();
        let names = kernels(&plan);
        [
            "attention_tile_out_lse_8",
            "attention_tile_out_8",
            "grad_q_tile_8",
            "grad_kv_tile_dk_dv_8",
            "grad_kv_tile_dk_8",
        ]
        .map(|name| names.iter().filter(|kernel| kernel.ends_with(name)).count())
    };
    assert_eq!(count(Remat::None), [3, 0, 3, 2, 1]);
    assert_eq!(count(Remat::Block), [3, 2, 3, 2, 1]);
    assert_eq!(count(Remat::Cheap), [3, 0, 3, 2, 1]);
}

#[test]
fn second_computations_have_the_bits_of_the_first() {
    let graph = blocks(37, 2, 8, 3);
    let leaves = fill(&graph, &mut Random(5));
    for target in [device().target().clone(), Target::baseline()] {
        let results = [Remat::None, Remat::Block, Remat::Cheap]
            .map(|remat| run(&graph, &leaves, &Options { remat, ..Options::new(target.clone()) }));
        assert_eq!(results[0], results[1]);
        assert_eq!(results[0], results[2]);
    }
}

/// Operands that are views: heads before positions, and one projection for all three.
#[test]
fn strided_operands_need_no_copy() {
    let mut graph = Graph::new();
    let (batch, tokens, heads, width) = (2, 21, 3, 8);
    let all = graph.input("qkv", DType::F32, &[batch, heads, tokens, 3 * width]);
    let [q, k, v] = [0, 1, 2].map(|part| {
        let x = graph.slice(all, 3, part * width, width);
        graph.permute(x, &[0, 2, 1, 3])
    });
    let y = graph.attention(q, k, v, true, 0.3);
    graph.output("y", y);
    let leaves = fill(&graph, &mut Random(3));
    let expected = evaluate_outputs(&graph, &leaves).unwrap();
    for target in [device().target().clone(), Target::baseline()] {
        let options = Options::new(target);
        let plan = compile(&graph, &options).unwrap();
        assert_eq!(plan.commands.len(), 1, "{plan}");
        let error = relative_error(&run(&graph, &leaves, &options)["y"], &expected["y"]);
        assert!(error < 1e-5, "{error:.2e}");
    }
}

/// Scores up to 200 above that of the first key, in every block and out of order: what weights are relative to has to
/// move, and sums of earlier blocks with it.
#[test]
fn scores_far_from_the_first_are_weighed_in_full() {
    let (tokens, heads, width) = (150, 2, 8);
    for causal in [false, true] {
        let mut graph = Graph::new();
        let [q, k, v] = ["q", "k", "v"].map(|name| graph.input(name, DType::F32, &[1, tokens, heads, width]));
        let y = graph.attention(q, k, v, causal, 1.0);
        let sum = graph.sum_all(y);
        let dv = gradients(&mut graph, sum, &[v]).remove(0).unwrap();
        graph.output("y", y);
        // What it is computed from has the log-sum-exp, to within the precision of a number of this size.
        graph.output("dv", dv);
        let mut leaves = fill(&graph, &mut Random(5));
        // All queries are (1, 0, ..), and a key's first element is its score.
        let row = |i: usize| i / (heads * width);
        for i in 0..tokens * heads * width {
            let first = i % width == 0;
            let score = (row(i) * 37 % tokens) as f64 * 200.0 / tokens as f64 - 100.0;
            leaves.get_mut("q").unwrap().data[i] = if first { 1.0 } else { 0.0 };
            leaves.get_mut("k").unwrap().data[i] = if first { score.round() } else { 0.0 };
        }
        let expected = evaluate_outputs(&graph, &leaves).unwrap();
        for target in [device().target().clone(), Target::baseline()] {
            for (name, result) in run(&graph, &leaves, &Options::new(target)) {
                let error = relative_error(&result, &expected[&name]);
                assert!(error < 1e-5, "causal {causal}, {name}: {error:.2e}");
            }
        }
    }
}
