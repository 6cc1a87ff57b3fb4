//! `cargo bench`: kernels and compilation, on the device that a run would take.
//!
//! Each kernel is a graph of one operation, compiled and replayed as in a training step; a time is from submission to
//! completion. Throughput counts floating-point operations (matrix products) or bytes touched once (everything else), in
//! criterion's "elements" and "bytes" a second. `cargo bench -- dot` runs a part; `-- --save-baseline NAME` keeps results
//! to compare with.

use std::collections::HashMap;
use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use viral_compiler::passes::Remat;
use viral_compiler::plan::{Command, Plan};
use viral_compiler::types::DType;
use viral_compiler::{Graph, Options, Value, compile};
use viral_runtime::{AdapterChoice, Buffer, Device, DeviceOptions, Executable, SlotPool};

/// M, N, K of matrix products: squares, and those of a decoder of width 512 over 1,110 tokens with adapters of rank 16.
const PRODUCTS: [[usize; 3]; 6] =
    [[512, 512, 512], [1024, 1024, 1024], [1110, 512, 1408], [1110, 1408, 512], [1110, 16, 512], [1110, 512, 16]];

fn main_device() -> Device {
    Device::open(&AdapterChoice::default(), &DeviceOptions::default()).unwrap_or_else(|error| panic!("{error}"))
}

/// The plan of a graph, bound to buffers of zeros.
fn bind(device: &Device, graph: &Graph) -> (Plan, Executable) {
    let plan = compile(graph, &Options::new(device.target().clone())).unwrap_or_else(|error| panic!("{error}"));
    let buffers: HashMap<&str, Buffer> = plan
        .inputs
        .iter()
        .chain(&plan.state)
        .chain(&plan.outputs)
        .map(|port| (port.name.as_str(), device.buffer(&port.name, port.bind.bytes.next_multiple_of(16)).unwrap()))
        .collect();
    let executable = Executable::new(device, &plan, &|name| buffers.get(name).cloned(), &mut SlotPool::new()).unwrap();
    (plan, executable)
}

/// Floating-point operations and bytes of one replay.
fn work(plan: &Plan) -> (u64, u64) {
    plan.commands.iter().fold((0, 0), |(flops, traffic), command| match command {
        Command::Dispatch(dispatch) => (flops + dispatch.flops, traffic + dispatch.traffic),
        Command::Clear(_) => (flops, traffic),
    })
}

fn products(criterion: &mut Criterion) {
    let device = main_device();
    let mut group = criterion.benchmark_group("dot");
    for [m, n, k] in PRODUCTS {
        for form in ["nn", "nt", "tn"] {
            let mut graph = Graph::new();
            let mut operand = |name: &str, [rows, columns]: [usize; 2], transposed: bool| {
                let stored = if transposed { [columns, rows] } else { [rows, columns] };
                let value = graph.input(name, DType::F32, &stored);
                if transposed { graph.transpose(value) } else { value }
            };
            let a = operand("a", [m, k], form.starts_with('t'));
            let b = operand("b", [k, n], form.ends_with('t'));
            let product = graph.dot(a, b);
            graph.output("c", product);
            let (plan, executable) = bind(&device, &graph);
            group.throughput(Throughput::Elements(work(&plan).0));
            group.bench_function(BenchmarkId::new(form, format!("{m}x{n}x{k}")), |bencher| {
                bencher.iter(|| executable.run().unwrap().wait().unwrap());
            });
        }
    }
    group.finish();
}

/// A graph of one operation on `x (1110, 512)`, or on what it asks for.
type Build = fn(&mut Graph, Value) -> Value;

fn rows(criterion: &mut Criterion) {
    let device = main_device();
    let mut group = criterion.benchmark_group("rows");
    let operations: [(&str, Build); 5] = [
        ("add", |g, x| g.add(x, x)),
        ("gelu", |g, x| g.gelu(x)),
        ("rms_norm", |g, x| {
            let weight = g.input("weight", DType::F32, &[512]);
            g.rms_norm(x, weight, 1e-5)
        }),
        ("layer_norm", |g, x| {
            let (weight, bias) = (g.input("weight", DType::F32, &[512]), g.input("bias", DType::F32, &[512]));
            g.layer_norm(x, weight, bias, 1e-5)
        }),
        ("sum_rows", |g, x| g.sum(x, &[0])),
    ];
    for (name, build) in operations {
        let mut graph = Graph::new();
        let x = graph.input("x", DType::F32, &[1110, 512]);
        let y = build(&mut graph, x);
        graph.output("y", y);
        let (plan, executable) = bind(&device, &graph);
        group.throughput(Throughput::Bytes(work(&plan).1));
        group.bench_function(name, |bencher| bencher.iter(|| executable.run().unwrap().wait().unwrap()));
    }
    group.finish();
}

/// Compilation of a decoder's forward and backward pass, by policy of rematerialisation.
fn compilation(criterion: &mut Criterion) {
    let mut graph = Graph::new();
    let mut x = graph.input("x", DType::F32, &[256, 128]);
    let mut params = Vec::new();
    for layer in 0..8 {
        x = graph.tag(x, viral_compiler::passes::BLOCK);
        let norm = graph.weight(format!("{layer}.norm"), &[128]);
        let [gate, up, down] = [("gate", [256, 128]), ("up", [256, 128]), ("down", [128, 256])]
            .map(|(name, shape)| graph.param(format!("{layer}.{name}"), &shape));
        params.extend([gate, up, down]);
        let n = graph.rms_norm(x, norm, 1e-5);
        let (gate, up) = (graph.linear(n, gate, None), graph.linear(n, up, None));
        let h = graph.swiglu(gate, up);
        let h = graph.linear(h, down, None);
        x = graph.add(x, h);
    }
    let loss = graph.sum_all(x);
    for (index, gradient) in viral_compiler::grad::gradients(&mut graph, loss, &params).into_iter().enumerate() {
        graph.output(format!("gradient.{index}"), gradient.expect("every layer adds to the loss"));
    }
    let mut group = criterion.benchmark_group("compile");
    for (name, remat) in [("none", Remat::None), ("block", Remat::Block)] {
        let options = Options { remat, ..Options::new(viral_compiler::Target::baseline()) };
        group.bench_function(name, |bencher| bencher.iter(|| compile(black_box(&graph), &options).unwrap()));
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = products, rows, compilation
}
criterion_main!(benches);
