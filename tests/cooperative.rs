//! Products on cooperative matrices: kernels that are wrong are found, and right ones give what the interpreter computes from
//! operands rounded to 16-bit floats.

mod support;

use std::process::Command;
use std::sync::OnceLock;

use viral_runtime::{AdapterChoice, Device, DeviceOptions, matrices};
use viral_shaders::coop::{self, Spec};

/// Mesa's software device has cooperative matrices in vectors of eight lanes only, which is a setting from before the driver
/// is loaded: so the test `name` runs in a process of its own, and this one is done when that has succeeded. `true` there.
fn in_eight_lanes(name: &str) -> bool {
    const WIDTH: (&str, &str) = ("LP_NATIVE_VECTOR_WIDTH", "256");
    if !cfg!(target_os = "linux") || std::env::var(WIDTH.0).is_ok_and(|width| width == WIDTH.1) {
        return true;
    }
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/software-vulkan"));
    command.args(std::env::args().next()).args(["--exact", name, "--nocapture"]).env(WIDTH.0, WIDTH.1);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    false
}

/// The device under test, with cooperative matrices.
fn device() -> &'static Device {
    static DEVICE: OnceLock<Device> = OnceLock::new();
    DEVICE.get_or_init(|| {
        let options = DeviceOptions { cooperative_matrix: true, ..Default::default() };
        let device = Device::open(&AdapterChoice::default(), &options).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(device.cooperative_fault(), None);
        assert!(device.target().cooperative_matrix.is_some(), "no cooperative matrices: {:?}", device.adapter());
        device
    })
}

#[test]
fn a_kernel_that_is_wrong_somewhere_is_found() {
    if !in_eight_lanes("a_kernel_that_is_wrong_somewhere_is_found") {
        return;
    }
    let start = std::time::Instant::now();
    let device = device();
    eprintln!("opened {:?}", start.elapsed());
    let broken = |from: &'static str, to: &'static str| {
        let link = |spec: &Spec| {
            let mut kernel = coop::kernel(spec, device.target());
            assert!(kernel.wgsl.contains(from), "{from}");
            kernel.wgsl = kernel.wgsl.replace(from, to);
            kernel
        };
        matrices::fault_of(device, &link).unwrap()
    };
    // None of them leaves C, which nothing would keep it from: a wrong stride, a tile too few along the sums, wrong tiles, and
    // text that does not compile.
    for (from, to, told) in [
        ("let stride = p.c_row;", "let stride = p.c_row - 8u;", " instead of "),
        ("step < p.k / EDGE;", "step + 1u < p.k / EDGE;", " instead of "),
        ("b_tile(place, column_tile + 1u)", "b_tile(place, column_tile)", " instead of "),
        ("coopMultiplyAdd(left3, right1, sums31)", "coopMultiplyAdd(left3, right0, sums31)", " instead of "),
        ("4u * (part / 2u)", "4u * (part % 2u)", " instead of "),
        ("coopMultiplyAdd(left0", "coopMultiplyAd(left0", " was rejected: "),
    ] {
        let fault = broken(from, to);
        assert!(fault.as_ref().is_some_and(|fault| fault.contains(told)), "{to}: {fault:?}");
    eprintln!("{to} {:?}", start.elapsed());
    }
}
