//! What the integration tests share: the device and running a graph on it, comparing numbers, the reference's cases,
//! training them, and their weights in other files.

#![allow(dead_code, reason = "every test binary compiles all of this and uses a part")]

pub(crate) mod cases;
pub(crate) mod combinations;
pub(crate) mod counter;
pub(crate) mod runs;
pub(crate) mod torch;
pub(crate) mod weights;

use std::collections::HashMap;
use std::sync::OnceLock;

use viral_compiler::plan::{BufferRole, Port};
use viral_compiler::tensor::Tensor;
use viral_compiler::{Graph, Options, compile};
use viral_runtime::{AdapterChoice, Buffer, Device, DeviceOptions, Executable, SlotPool};

/// The device under test, opened once.
///
/// # Panics
/// If there is none: `cargo test` brings a software device where there is no GPU.
pub(crate) fn device() -> &'static Device {
    static DEVICE: OnceLock<Device> = OnceLock::new();
    DEVICE.get_or_init(|| {
        Device::open(&AdapterChoice::default(), &DeviceOptions::default()).unwrap_or_else(|error| panic!("{error}"))
    })
}

/// Compiles a graph, runs it once and returns its outputs.
pub(crate) fn run(graph: &Graph, leaves: &HashMap<String, Tensor>, options: &Options) -> HashMap<String, Tensor> {
    run_on(device(), graph, leaves, options)
}

/// As [`run`], on another device.
pub(crate) fn run_on(
    device: &Device,
    graph: &Graph,
    leaves: &HashMap<String, Tensor>,
    options: &Options,
) -> HashMap<String, Tensor> {
    let plan = compile(graph, options).unwrap_or_else(|error| panic!("{error}\n{graph}"));
    let mut buffers: HashMap<String, Buffer> = HashMap::new();
    for declared in &plan.buffers {
        if let BufferRole::External(name) = &declared.role {
            let bytes = declared.bytes.next_multiple_of(16).max(16);
            buffers.insert(name.clone(), device.buffer(name, bytes).unwrap());
        }
    }
    let buffer_of = |port: &Port| match &plan.buffers[port.bind.buffer.0 as usize].role {
        BufferRole::External(name) => &buffers[name],
        BufferRole::Slot => panic!("`{}` is a port and lies in a slot", port.name),
    };
    for port in plan.inputs.iter().chain(&plan.state) {
        if let Some(tensor) = leaves.get(&port.name) {
            device.write(buffer_of(port), port.bind.offset, &tensor.to_bytes()).unwrap();
        }
    }
    let executable = Executable::new(device, &plan, &|name| buffers.get(name).cloned(), &mut SlotPool::new())
        .unwrap_or_else(|error| panic!("{error}\n{graph}"));
    executable.run().unwrap().wait().unwrap();
    let read = |port: &Port| {
        let range = port.bind.offset..port.bind.offset + port.ty.bytes();
        let bytes = device.read(buffer_of(port), range).unwrap();
        (port.name.clone(), Tensor::from_bytes(&port.ty, &bytes))
    };
    plan.outputs.iter().map(read).collect()
}

/// Euclidean distance of two tensors relative to the second one's norm.
pub(crate) fn relative_error(a: &Tensor, b: &Tensor) -> f64 {
    relative_distance(&a.data, &b.data)
}

/// Euclidean distance of two lists of numbers relative to the second one's norm.
///
/// # Panics
/// If they have different lengths.
pub(crate) fn relative_distance(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let distance: f64 = a.iter().zip(b).map(|(x, y)| (x - y) * (x - y)).sum();
    let norm: f64 = b.iter().map(|y| y * y).sum();
    (distance / norm.max(1e-12)).sqrt()
}

/// Euclidean norm.
pub(crate) fn norm(values: &[f64]) -> f64 {
    values.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// Errors of many figures against their bounds; all that are too large are reported together.
#[derive(Default)]
pub(crate) struct Comparison {
    /// Largest error of each kind of figure, with the figure's name.
    worst: Vec<(String, f64, String)>,
    failures: Vec<String>,
}

impl Comparison {
    /// Notes the error of the figure `name`, one of many of a `kind`. Not a number is too large, too.
    pub(crate) fn note(&mut self, kind: &str, name: impl Into<String>, error: f64, bound: f64) {
        let name = name.into();
        if error.is_nan() || error > bound {
            self.failures.push(format!("{name}: {error:.2e}, more than {bound:.0e}"));
        }
        match self.worst.iter_mut().find(|(known, ..)| known == kind) {
            Some((_, worst, _)) if *worst >= error => {}
            Some(entry) => *entry = (kind.to_owned(), error, name),
            None => self.worst.push((kind.to_owned(), error, name)),
        }
    }

    /// Notes a single number by its error relative to what is expected; equal numbers have none.
    pub(crate) fn number(&mut self, kind: &str, name: impl Into<String>, found: f64, expected: f64, bound: f64) {
        let error = if found == expected { 0.0 } else { (found - expected).abs() / expected.abs() };
        self.note(kind, name, error, bound);
    }

    /// Prints the worst of each kind, for `cargo test -- --nocapture`, and fails if anything was too large.
    pub(crate) fn finish(self) {
        assert!(!self.worst.is_empty(), "nothing was compared");
        for (kind, error, name) in &self.worst {
            println!("{kind}: at most {error:.1e} ({name})");
        }
        assert!(self.failures.is_empty(), "{}", self.failures.join("\n"));
    }
}
