//! Two tiny kernels and hand-written plans of them.
#![allow(dead_code)] // Each test binary uses its own part of this module.

use std::collections::HashMap;

use viral_compiler::plan::{
    Bind, BufferDecl, BufferId, BufferRole, Command, Dispatch, KernelId, MemoryReport, Plan, Port,
};
use viral_compiler::types::TensorType;
use viral_runtime::{AdapterChoice, Buffer, Device, DeviceOptions, Executable, SlotPool};
use viral_shaders::{Access, Kernel, Requirements};

/// Uniform buffer offsets are multiples of this under WebGPU's default limits, and so on every device.
pub(crate) const ALIGN: u64 = 256;

/// The machine's best device; the test fails where there is none.
pub(crate) fn device() -> Device {
    device_with(&DeviceOptions::default())
}

/// As [`device`].
pub(crate) fn device_with(options: &DeviceOptions) -> Device {
    Device::open(&AdapterChoice::default(), options).unwrap_or_else(|error| {
        panic!(
            "this test needs a device; cargo starts it through scripts/software-vulkan, which provides one where it can: \
             {error}"
        )
    })
}

/// `y[i] = a[i] + b[i]`
pub(crate) fn add_kernel() -> Kernel {
    kernel(
        "add",
        "struct Params { n: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x < params.n { y[id.x] = a[id.x] + b[id.x]; }
}",
        vec![Access::Read, Access::Read, Access::ReadWrite],
        1,
    )
}

/// `y[i] = factor * x[i]`
pub(crate) fn scale_kernel() -> Kernel {
    kernel(
        "scale",
        "struct Params { n: u32, factor: f32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x < params.n { y[id.x] = params.factor * x[id.x]; }
}",
        vec![Access::Read, Access::ReadWrite],
        2,
    )
}

pub(crate) fn kernel(name: &str, wgsl: &str, bindings: Vec<Access>, param_words: u32) -> Kernel {
    Kernel {
        name: name.to_owned(),
        wgsl: wgsl.to_owned(),
        bindings,
        param_words,
        workgroup: [64, 1, 1],
        requires: Requirements::default(),
    }
}

/// `out = factor * (a + b)` over `n` elements, with the sum in a slot.
///
/// Buffers: 0 `a`, 1 `b`, 2 `out`, 3 the slot. Inputs `a` and `b`, output `out`.
pub(crate) fn sum_and_scale(n: u32, factor: f32) -> Plan {
    let bytes = u64::from(n) * 4;
    let external = |name: &str| BufferDecl { role: BufferRole::External(name.to_owned()), bytes };
    let slot = BufferDecl { role: BufferRole::Slot, bytes: bytes.next_multiple_of(16) };
    let mut params = vec![0; 2 * ALIGN as usize];
    params[0..4].copy_from_slice(&n.to_le_bytes());
    params[256..260].copy_from_slice(&n.to_le_bytes());
    params[260..264].copy_from_slice(&factor.to_le_bytes());
    let port = |name: &str, buffer: u32| Port {
        name: name.to_owned(),
        ty: TensorType::f32([n as usize]),
        bind: whole(buffer, bytes),
    };
    Plan {
        buffers: vec![external("a"), external("b"), external("out"), slot],
        kernels: vec![add_kernel(), scale_kernel()],
        commands: vec![
            dispatch(0, n, 0, vec![whole(0, bytes), whole(1, bytes), whole(3, bytes)], "sum"),
            dispatch(1, n, ALIGN as u32, vec![whole(3, bytes), whole(2, bytes)], "scaled"),
        ],
        params,
        inputs: vec![port("a", 0), port("b", 1)],
        state: vec![],
        outputs: vec![port("out", 2)],
        memory: MemoryReport::default(),
    }
}

/// `x = factor * (factor * x)` over `n` elements, `times` times: a chain in which every dispatch depends on the one before.
///
/// Buffers: 0 `x`, 1 a slot.
pub(crate) fn scale_chain(n: u32, factor: f32, times: usize) -> Plan {
    let bytes = u64::from(n) * 4;
    let mut params = n.to_le_bytes().to_vec();
    params.extend_from_slice(&factor.to_le_bytes());
    let there = dispatch(0, n, 0, vec![whole(0, bytes), whole(1, bytes)], "there");
    let back = dispatch(0, n, 0, vec![whole(1, bytes), whole(0, bytes)], "back");
    Plan {
        buffers: vec![
            BufferDecl { role: BufferRole::External("x".to_owned()), bytes },
            BufferDecl { role: BufferRole::Slot, bytes: bytes.next_multiple_of(16) },
        ],
        kernels: vec![scale_kernel()],
        commands: std::iter::repeat_n([there, back], times).flatten().collect(),
        params,
        inputs: vec![],
        state: vec![Port { name: "x".to_owned(), ty: TensorType::f32([n as usize]), bind: whole(0, bytes) }],
        outputs: vec![],
        memory: MemoryReport::default(),
    }
}

pub(crate) fn dispatch(kernel: u32, n: u32, params_offset: u32, binds: Vec<Bind>, label: &str) -> Command {
    Command::Dispatch(Dispatch {
        kernel: KernelId(kernel),
        binds,
        params_offset,
        groups: [n.div_ceil(64), 1, 1],
        label: label.to_owned(),
        flops: n.into(),
        traffic: u64::from(n) * 12,
    })
}

pub(crate) fn whole(buffer: u32, bytes: u64) -> Bind {
    Bind { buffer: BufferId(buffer), offset: 0, bytes }
}

/// Allocates every external buffer of `plan`.
pub(crate) fn externals(device: &Device, plan: &Plan) -> HashMap<String, Buffer> {
    let named = plan.buffers.iter().filter_map(|decl| match &decl.role {
        BufferRole::External(name) => Some((name, decl.bytes)),
        BufferRole::Slot => None,
    });
    named.map(|(name, bytes)| (name.clone(), device.buffer(name, bytes).unwrap())).collect()
}

/// Binds `plan` to its own buffers.
pub(crate) fn bind(device: &Device, plan: &Plan) -> Executable {
    let externals = externals(device, plan);
    Executable::new(device, plan, &|name| externals.get(name).cloned(), &mut SlotPool::new()).unwrap()
}

/// Little-endian bytes of numbers.
pub(crate) fn to_bytes(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// Numbers without a pattern that a wrong index would survive.
pub(crate) fn numbers(n: u32, seed: u32) -> Vec<f32> {
    (0..n).map(|i| (i.wrapping_add(seed).wrapping_mul(2_654_435_761) >> 8) as f32 / 16_777_216.0 - 0.5).collect()
}
