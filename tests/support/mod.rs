//! What the integration tests share: the device, and running a graph on it.

use std::collections::HashMap;
use std::sync::OnceLock;

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
    let device = device();
    let plan = compile(graph, options).unwrap_or_else(|error| panic!("{error}\n{graph}"));
    let mut buffers: HashMap<String, Buffer> = HashMap::new();
    for port in plan.inputs.iter().chain(&plan.state).chain(&plan.outputs) {
        let bytes = port.ty.bytes().next_multiple_of(16).max(16);
        let buffer = device.buffer(&port.name, bytes).unwrap();
        if let Some(tensor) = leaves.get(&port.name) {
            device.write(&buffer, 0, &tensor.to_bytes()).unwrap();
        }
        buffers.insert(port.name.clone(), buffer);
    }
    let executable = Executable::new(device, &plan, &|name| buffers.get(name).cloned(), &mut SlotPool::new())
        .unwrap_or_else(|error| panic!("{error}\n{graph}"));
    executable.run().unwrap().wait().unwrap();
    let read = |port: &viral_compiler::plan::Port| {
        let bytes = device.read(&buffers[&port.name], 0..port.ty.bytes()).unwrap();
        (port.name.clone(), Tensor::from_bytes(&port.ty, &bytes))
    };
    plan.outputs.iter().map(read).collect()
}

/// Euclidean distance of two tensors relative to the second one's norm.
pub(crate) fn relative_error(a: &Tensor, b: &Tensor) -> f64 {
    let distance: f64 = a.data.iter().zip(&b.data).map(|(x, y)| (x - y) * (x - y)).sum();
    let norm: f64 = b.data.iter().map(|y| y * y).sum();
    (distance / norm.max(1e-12)).sqrt()
}
