//! `cargo bench`: kernels, compilation, recording and whole steps, on the device that a run would take.
//!
//! Kernels and shapes are those of `viral-wgpu bench kernels`, from the same list; a time here is from submission to
//! completion. Throughput counts floating-point operations or bytes, in criterion's "elements" and "bytes" a second.
//! `cargo bench -- q_proj` runs a part; `-- --save-baseline NAME` keeps results to compare with.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use viral_compiler::passes::Remat;
use viral_compiler::types::DType;
use viral_compiler::{Graph, Options, compile};
use viral_runtime::{AdapterChoice, Device, DeviceOptions};
use viral_train::config::{Config, Overrides, Precision};
use viral_train::data::{Loader, MicroBatch, buckets};
use viral_train::demo;
use viral_train::engine::{Bundle, Session};
use viral_train::measure::kernels::bind;
use viral_train::measure::shapes::cases;

/// Models of which every kernel is measured; the others take too long for a sample of twenty.
const MODELS: [&str; 2] = ["square", "small"];

fn main_device() -> Device {
    Device::open(&AdapterChoice::default(), &DeviceOptions::default()).unwrap_or_else(|error| panic!("{error}"))
}

fn kernels(criterion: &mut Criterion) {
    let device = main_device();
    for case in cases().into_iter().filter(|case| MODELS.contains(&case.model)) {
        let mut group = criterion.benchmark_group(case.model);
        group.throughput(match case.problem.flops() {
            0 => Throughput::Bytes(case.problem.bytes()),
            flops => Throughput::Elements(flops),
        });
        // Bound when it runs, so that a filter leaves out the work as well.
        let mut bound = None;
        group.bench_function(BenchmarkId::new(case.name, case.problem.shape()), |bencher| {
            let (_, executable) = bound.get_or_insert_with(|| bind(&device, case, Precision::F32).unwrap());
            bencher.iter(|| executable.run().unwrap().wait().unwrap());
        });
        group.finish();
    }
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

/// A training step of the tiny preset: recording alone, and from start to end.
fn steps(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let config = demo::init(&folder.path().join("tiny"), &demo::TINY, 1).unwrap();
    let config = Config::load(&config, &Overrides::default()).unwrap();
    let bundle = Bundle::open(&config).unwrap();
    let plan = Arc::new(bundle.step_plan());
    let shapes = buckets(&plan, bundle.dataset.shapes());
    let mut session = Session::new(&bundle, &main_device(), &shapes).unwrap();
    let mut loader =
        Loader::start(bundle.dataset.clone(), bundle.prepare.clone(), bundle.geometry, plan, 0, 1).unwrap();
    let batch: MicroBatch = loader.next().unwrap().unwrap();
    drop(loader);

    let step = |session: &mut Session| {
        let start = Instant::now();
        session.micro_batch(&batch).unwrap();
        session.step(batch.step, 0.0).unwrap();
        let recorded = start.elapsed();
        session.last().unwrap();
        recorded
    };
    let mut group = criterion.benchmark_group("step");
    group.bench_function("record", |bencher| {
        bencher.iter_custom(|times| (0..times).map(|_| step(&mut session)).sum::<Duration>());
    });
    group.bench_function("tiny", |bencher| bencher.iter(|| step(&mut session)));
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = kernels, compilation, steps
}
criterion_main!(benches);
