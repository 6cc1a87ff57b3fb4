//! Plans within the limits that every device has: bound on wgpu's device that checks everything and computes nothing.

use std::collections::HashMap;

use crate::graphs;

use viral_compiler::compile::CompileError;
use viral_compiler::eval::evaluate_outputs;
use viral_compiler::ops::Random;
use viral_compiler::plan::{BufferRole, Command, Plan};
use viral_compiler::tensor::Tensor;
use viral_compiler::types::{DType, TensorType};
use viral_compiler::{Graph, Options, Placement, Target, compile};
use viral_runtime::{Buffer, Device, DeviceOptions, Executable, SlotPool};

fn bind(device: &Device, plan: &Plan) -> Result<Executable, viral_runtime::Error> {
    let external = |decl: &viral_compiler::plan::BufferDecl| match &decl.role {
        BufferRole::External(name) => Some((name.clone(), device.buffer(name, decl.bytes).unwrap())),
        BufferRole::Slot => None,
    };
    let buffers: HashMap<String, Buffer> = plan.buffers.iter().filter_map(external).collect();
    Executable::new(device, plan, &|name| buffers.get(name).cloned(), &mut SlotPool::new())
}

#[test]
fn plans_bind_under_default_limits() {
    let device = Device::noop(&DeviceOptions::default()).unwrap();
    assert_eq!(device.target(), &Target::baseline());
    let all = graphs::graphs();
    for (target, (name, graph)) in graphs::targets().iter().flat_map(|target| all.iter().map(move |g| (target, g))) {
        // Subgroups are not among the defaults.
        let target = Target { subgroup: None, ..target.clone() };
        let plan = compile(graph, &Options::new(target)).unwrap_or_else(|error| panic!("{name}: {error}"));
        for kernel in &plan.kernels {
            assert!(kernel.bindings.len() <= 8, "{name}: {} binds {}", kernel.name, kernel.bindings.len());
            assert!(kernel.workgroup.iter().product::<u32>() <= 256, "{name}: {}", kernel.name);
            assert!(!kernel.requires.subgroups && !kernel.requires.f16 && kernel.requires.cooperative_matrix.is_none());
        }
        for command in &plan.commands {
            let Command::Dispatch(dispatch) = command else { continue };
            assert!(dispatch.binds.iter().all(|bind| bind.bytes <= 128 << 20), "{name}");
        }
        let executable = bind(&device, &plan).unwrap_or_else(|error| panic!("{name}: {error}\n{plan}"));
        executable.run().unwrap().wait().unwrap();
    }
}

/// Trained tensors and gradients of a whole model in two flat buffers, as training lays them out.
#[test]
fn flat_buffers_bind_under_default_limits() {
    let device = Device::noop(&DeviceOptions::default()).unwrap();
    let graph = graphs::multimodal();
    let mut options = Options::new(Target::baseline());
    let mut offsets: HashMap<&str, u64> = HashMap::new();
    for leaf in graph.leaves() {
        let buffer = match leaf.name {
            name if name.ends_with(".grad") => "grads",
            name if graph.outputs().iter().any(|(output, _)| *output == format!("{name}.grad")) => "params",
            _ => continue,
        };
        let offset = offsets.entry(buffer).or_default();
        let place = Placement { buffer: buffer.to_owned(), offset: *offset };
        *offset += leaf.ty.bytes().next_multiple_of(256);
        options.places.insert(leaf.name.to_owned(), place);
    }
    assert_eq!(offsets["params"], offsets["grads"]);
    let plan = compile(&graph, &options).unwrap();
    let flat = plan.buffers.iter().filter(
        |buffer| matches!(&buffer.role, BufferRole::External(name) if ["params", "grads"].contains(&name.as_str())),
    );
    assert_eq!(flat.count(), 2);
    bind(&device, &plan).unwrap_or_else(|error| panic!("{error}\n{plan}"));
}

#[test]
fn a_tensor_beyond_the_limits_is_named() {
    let mut graph = Graph::new();
    let x = graph.input("x", DType::F32, &[1 << 13, 1 << 13]);
    let y = graph.scoped("layers.0.huge", |graph| graph.exp(x));
    graph.output("y", y);
    let error = compile(&graph, &Options::new(Target::baseline())).unwrap_err();
    assert_eq!(error, CompileError::TooLarge { name: "x".into(), bytes: 1 << 28, limit: 1 << 27 });
    assert!(error.to_string().contains("use a smaller batch or a shorter sequence"), "{error}");
}

/// More workgroups than one dimension of a grid may have, in every kind of kernel.
#[test]
fn grids_beyond_the_limit_of_a_dimension_are_folded() {
    let (rows, mut random) = (70_001, Random(5));
    let mut graph = Graph::new();
    let table = graph.input("table", DType::F32, &[rows, 3]);
    let index = graph.input("index", DType::U32, &[rows]);
    let norm = graph.mul(table, table);
    let norm = graph.sum(norm, &[1]);
    let unit = graph.div(table, norm);
    graph.output("row", unit);
    let rounds = graph.input("rounds", DType::F32, &[rows, 65]);
    let doubled = graph.scale(rounds, 2.0);
    graph.output("map", doubled);
    let blocks = graph.reshape(rounds, &[rows * 5, 13]);
    let turned = graph.permute(blocks, &[1, 0]);
    graph.output("turned", turned);
    let columns = graph.reshape(table, &[rows, 3, 1]);
    let columns = graph.expand(columns, &[rows, 3, 2]);
    let columns = graph.sum(columns, &[1]);
    graph.output("column", columns);
    let gathered = graph.gather(table, index, false);
    graph.output("gather", gathered);
    let left = graph.reshape(table, &[rows, 1, 3]);
    let right = graph.reshape(table, &[rows, 3, 1]);
    let products = graph.dot(left, right);
    graph.output("dot", products);

    let mut fill = |ty: &TensorType, scale: f64| {
        let data: Vec<f64> = (0..ty.len()).map(|_| (scale * (0.1 + 0.9 * random.real())).floor() / 64.0).collect();
        Tensor::new(ty.clone(), data)
    };
    let mut leaves: HashMap<String, Tensor> =
        graph.leaves().map(|leaf| (leaf.name.to_owned(), fill(leaf.ty, 64.0))).collect();
    let wanted = (0..rows).map(|row| ((row * 7919 + 13) % (rows + 5)) as f64).collect();
    leaves.insert("index".into(), Tensor::new(TensorType::u32([rows]), wanted));

    let expected = evaluate_outputs(&graph, &leaves).unwrap();
    let results = crate::support::run(&graph, &leaves, &Options::new(crate::support::device().target().clone()));
    for (name, expected) in &expected {
        let error = crate::support::relative_error(&results[name], expected);
        assert!(error < 1e-5, "{name}: {error:.1e}");
    }
}
