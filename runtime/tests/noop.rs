//! Everything about plans and buffers that can be checked without a GPU, on wgpu's device that computes nothing, under
//! WebGPU's default limits.

mod common;

use common::*;
use viral_compiler::plan::{Bind, BufferId, Command, Dispatch, KernelId, Plan};
use viral_runtime::{Buffer, Device, DeviceOptions, Error, Executable, SlotPool, Stream, StreamOptions};
use viral_shaders::{Access, Requirements, Target};

fn noop() -> Device {
    Device::noop(&DeviceOptions::default()).unwrap()
}

fn try_bind(device: &Device, plan: &Plan) -> Result<Executable, Error> {
    let externals = externals(device, plan);
    Executable::new(device, plan, &|name| externals.get(name).cloned(), &mut SlotPool::new())
}

fn first_dispatch(plan: &mut Plan) -> &mut Dispatch {
    match &mut plan.commands[0] {
        Command::Dispatch(dispatch) => dispatch,
        Command::Clear(_) => panic!("the first command is a dispatch"),
    }
}

#[test]
fn the_target_is_the_baseline() {
    assert_eq!(*noop().target(), Target::baseline());
}

#[test]
fn a_plan_replays_under_default_limits() {
    let device = noop();
    let mut plan = sum_and_scale(1000, 2.0);
    plan.commands.insert(1, Command::Clear(whole(2, 4000)));
    let executable = bind(&device, &plan);
    executable.run().unwrap().wait().unwrap();
    assert_eq!(executable.submissions(), 1);
    assert_eq!(executable.buffers().len(), 4);
    let port = executable.output("out").unwrap();
    assert_eq!((port.offset, port.bytes, port.buffer.label()), (0, 4000, "out"));
    assert!(executable.input("a").is_some() && executable.input("out").is_none() && executable.state("a").is_none());
}

#[test]
fn the_books_follow_every_buffer() {
    let device = noop();
    assert_eq!(device.memory().live_bytes, 0);
    let first = device.buffer("first", 100).unwrap();
    assert_eq!(first.bytes(), 112);
    let second = device.buffer("second", 16).unwrap();
    drop(first);
    let usage = device.memory();
    assert_eq!((usage.live_buffers, usage.live_bytes, usage.peak_bytes), (1, 16, 128));
    assert_eq!((usage.created_buffers, usage.created_bytes), (2, 128));
    drop(second.clone());
    assert_eq!(device.memory().live_buffers, 1);
    drop(second);
    assert_eq!(device.memory().live_bytes, 0);
}

#[test]
fn an_executable_holds_its_buffers() {
    let device = noop();
    let executable = bind(&device, &sum_and_scale(1000, 2.0));
    // Three externals, a slot, the parameters.
    assert_eq!(device.memory().live_buffers, 5);
    drop(executable);
    assert_eq!(device.memory().live_buffers, 0);
}

#[test]
fn a_missing_buffer_is_named() {
    let device = noop();
    let plan = sum_and_scale(1000, 2.0);
    let given = |name: &str| (name != "b").then(|| device.buffer(name, 4000).unwrap());
    let error = Executable::new(&device, &plan, &given, &mut SlotPool::new()).unwrap_err();
    assert_eq!(error, Error::MissingBuffer { name: "b".into() });
    assert_eq!(error.to_string(), "the plan needs a buffer named `b`, which was not provided");
}

#[test]
fn a_small_buffer_is_named() {
    let device = noop();
    let plan = sum_and_scale(1000, 2.0);
    let given = |name: &str| Some(device.buffer(name, if name == "out" { 3984 } else { 4000 }).unwrap());
    let error = Executable::new(&device, &plan, &given, &mut SlotPool::new()).unwrap_err();
    assert_eq!(error, Error::BufferTooSmall { name: "out".into(), needed: 4000, given: 3984 });
}

#[test]
fn a_full_device_fails_at_any_allocation() {
    let plan = sum_and_scale(1000, 2.0);
    let attempt = |limit: u64| -> Result<(), Error> {
        let device = Device::noop(&DeviceOptions { memory_limit: Some(limit), ..Default::default() })?;
        let a = device.buffer("a", 4000)?;
        let b = device.buffer("b", 4000)?;
        let out = device.buffer("out", 4000)?;
        let given = |name: &str| -> Option<Buffer> {
            [&a, &b, &out].into_iter().find(|buffer| buffer.label() == name).cloned()
        };
        let executable = Executable::new(&device, &plan, &given, &mut SlotPool::new())?;
        let mut stream = Stream::new(&device, StreamOptions { upload_bytes: 1024, replays_ahead: 2 })?;
        stream.write(&a, 0, &[1; 2000])?;
        stream.run(&executable)?;
        let ticket = stream.read_later(&out, 0..16)?;
        stream.take(ticket)?;
        Ok(())
    };
    let mut failed = Vec::new();
    let mut limit = 0;
    loop {
        match attempt(limit) {
            Ok(()) => break,
            Err(Error::OutOfMemory { what, bytes, in_use }) => {
                assert!(in_use <= limit && in_use + bytes > limit);
                // The next attempt gets past this allocation.
                limit = in_use + bytes;
                failed.push(what);
            }
            Err(other) => panic!("{other}"),
        }
    }
    let expected = ["a", "b", "out", "slot 0", "kernel parameters", "upload staging", "upload staging", "read staging"];
    assert_eq!(failed, expected);
}

#[test]
fn a_buffer_above_the_limit_is_an_error() {
    let device = noop();
    let limit = 256 << 20;
    let error = device.buffer("table", limit + 1).unwrap_err();
    assert_eq!(error, Error::BufferTooLarge { what: "table".into(), bytes: limit + 1, limit });
    assert!(matches!(device.buffer("table", u64::MAX), Err(Error::BufferTooLarge { .. })));
    assert_eq!(device.memory().created_buffers, 0);
}

#[test]
fn a_closed_device_is_lost_everywhere() {
    let device = noop();
    let plan = sum_and_scale(1000, 2.0);
    let executable = bind(&device, &plan);
    let mut stream = Stream::new(&device, StreamOptions::default()).unwrap();
    let buffer = device.buffer("buffer", 16).unwrap();
    let ticket = stream.read_later(&buffer, 0..4).unwrap();
    device.close();
    let lost = |error: Error| matches!(error, Error::DeviceLost { .. });
    assert!(lost(device.check().unwrap_err()));
    assert!(lost(device.wait().unwrap_err()));
    assert!(lost(device.buffer("late", 16).unwrap_err()));
    assert!(lost(device.write(&buffer, 0, &[0; 4]).unwrap_err()));
    assert!(lost(device.read(&buffer, 0..4).unwrap_err()));
    assert!(lost(executable.run().unwrap_err()));
    assert!(lost(stream.run(&executable).unwrap_err()));
    assert!(lost(stream.take(ticket).unwrap_err()));
    assert!(lost(Executable::new(&device, &plan, &|_| None, &mut SlotPool::new()).unwrap_err()));
}

#[test]
fn a_kernel_above_the_device_is_refused() {
    let device = noop();
    let requirements = [
        (Requirements { f16: true, ..Default::default() }, "16-bit floats"),
        (Requirements { int64: true, ..Default::default() }, "64-bit integers"),
        (Requirements { subgroups: true, ..Default::default() }, "subgroup operations"),
        (Requirements { cooperative_matrix: Some(8), ..Default::default() }, "cooperative matrices"),
    ];
    for (requires, expected) in requirements {
        let mut plan = sum_and_scale(16, 1.0);
        plan.kernels[1].requires = requires;
        match try_bind(&device, &plan).unwrap_err() {
            Error::MissingFeature { kernel, feature, .. } => assert_eq!((&*kernel, feature), ("scale", expected)),
            other => panic!("{other}"),
        }
    }
}

#[test]
fn a_wrong_kernel_is_rejected_by_name_and_the_device_lives_on() {
    let device = noop();
    let mut plan = sum_and_scale(16, 1.0);
    plan.kernels[1].wgsl = plan.kernels[1].wgsl.replace("params.factor *", "params.factor * nothing *");
    match try_bind(&device, &plan).unwrap_err() {
        Error::ShaderRejected { kernel, message } => {
            assert_eq!(kernel, "scale");
            assert!(message.contains("nothing"), "{message}");
        }
        other => panic!("{other}"),
    }
    // An interface that differs from the kernel's own declaration.
    let mut plan = sum_and_scale(16, 1.0);
    plan.kernels[0].bindings[2] = Access::Read;
    assert!(matches!(try_bind(&device, &plan), Err(Error::ShaderRejected { kernel, .. }) if kernel == "add"));
    bind(&device, &sum_and_scale(16, 1.0)).run().unwrap().wait().unwrap();
}

#[test]
fn a_plan_that_contradicts_itself_is_refused() {
    type Damage = fn(&mut Plan);
    let cases: [(&str, Damage); 11] = [
        ("there is no kernel 9", |plan| first_dispatch(plan).kernel = KernelId(9)),
        ("there is no buffer 9", |plan| first_dispatch(plan).binds[1].buffer = BufferId(9)),
        ("has 3 bindings, 2 are given", |plan| first_dispatch(plan).binds.truncate(2)),
        ("4004 bytes from 0 on lie outside buffer 0 of 4000 bytes", |plan| first_dispatch(plan).binds[0].bytes = 4004),
        ("lie outside buffer 0", |plan| {
            first_dispatch(plan).binds[0] = Bind { buffer: BufferId(0), offset: u64::MAX - 3, bytes: 4 };
        }),
        ("a range of 256 bytes from 128 on is not aligned (to 4 and 256)", |plan| {
            first_dispatch(plan).binds[0] = Bind { buffer: BufferId(0), offset: 128, bytes: 256 };
        }),
        ("a range of 0 bytes", |plan| first_dispatch(plan).binds[0].bytes = 0),
        ("70000 workgroups, the device allows 65535", |plan| first_dispatch(plan).groups[1] = 70_000),
        ("parameters at byte 4", |plan| first_dispatch(plan).params_offset = 4),
        ("parameters at byte 512", |plan| first_dispatch(plan).params_offset = 512),
        ("kernel `add` reads and writes buffer `a`", |plan| first_dispatch(plan).binds[2].buffer = BufferId(0)),
    ];
    let device = noop();
    for (expected, damage) in cases {
        let mut plan = sum_and_scale(1000, 2.0);
        damage(&mut plan);
        match try_bind(&device, &plan) {
            Err(Error::InvalidPlan { at, why }) => {
                assert!(at == "sum" && why.contains(expected), "{expected}: {at}: {why}")
            }
            other => panic!("{expected}: {other:?}"),
        }
    }
    let mut plan = sum_and_scale(1000, 2.0);
    plan.commands.push(Command::Clear(whole(2, 5000)));
    assert!(matches!(try_bind(&device, &plan), Err(Error::InvalidPlan { at, .. }) if at == "clear"));
    device.check().unwrap();
}

#[test]
fn a_binding_above_the_limit_is_refused() {
    let device = noop();
    let bytes: u64 = 129 << 20;
    let mut plan = sum_and_scale(1000, 2.0);
    plan.buffers[0].bytes = bytes;
    first_dispatch(&mut plan).binds[0].bytes = bytes;
    match try_bind(&device, &plan).unwrap_err() {
        Error::InvalidPlan { why, .. } => assert!(why.contains("the device allows 134217728"), "{why}"),
        other => panic!("{other}"),
    }
}

#[test]
fn equal_kernels_are_one_pipeline() {
    let device = noop();
    let first = bind(&device, &sum_and_scale(1000, 2.0));
    assert_eq!(device.pipeline_count(), 2);
    let second = bind(&device, &sum_and_scale(500, 3.0));
    let chain = bind(&device, &scale_chain(64, 0.5, 3));
    assert_eq!(device.pipeline_count(), 2);
    drop((first, second, chain));

    // Twenty distinct kernels, so that several threads compile; the plan names each twice.
    let mut plan = scale_chain(64, 0.5, 1);
    plan.kernels = (0..40).map(|i| kernel_number(i % 20)).collect();
    bind(&device, &plan);
    assert_eq!(device.pipeline_count(), 22);
}

fn kernel_number(i: u32) -> viral_shaders::Kernel {
    let mut kernel = scale_kernel();
    kernel.wgsl = kernel.wgsl.replace("params.factor *", &format!("params.factor * {i}.0 *"));
    kernel
}

#[test]
fn plans_share_slots_by_rank() {
    let device = noop();
    let small = scale_chain(64, 0.5, 1);
    let mut large = scale_chain(1024, 0.5, 1);
    large
        .buffers
        .push(viral_compiler::plan::BufferDecl { role: viral_compiler::plan::BufferRole::Slot, bytes: 1 << 20 });
    let mut slots = SlotPool::new();
    slots.reserve(&small);
    slots.reserve(&large);
    // The small plan's only slot shares the larger of the two.
    assert_eq!(slots.bytes(), (1 << 20) + 4096);
    assert_eq!(device.memory().created_buffers, 0);

    let x = device.buffer("x", 4096).unwrap();
    let mut bind = |plan: &Plan| Executable::new(&device, plan, &|_| Some(x.clone()), &mut slots).unwrap();
    let (small, large) = (bind(&small), bind(&large));
    assert_eq!(small.buffers()[1].bytes(), 1 << 20);
    assert_eq!(large.buffers()[1].bytes(), 4096);
    // `x`, two slots, two parameter buffers.
    assert_eq!(device.memory().created_buffers, 5);
}

#[test]
fn long_plans_are_cut() {
    let device = noop();
    let mut plan = scale_chain(64, 0.5, 50);
    for command in &mut plan.commands {
        if let Command::Dispatch(dispatch) = command {
            dispatch.flops = 1_000_000_000_000;
        }
    }
    let executable = bind(&device, &plan);
    assert_eq!(executable.submissions(), 100);
    executable.run().unwrap().wait().unwrap();
}

#[test]
fn an_empty_plan_runs() {
    let device = noop();
    let mut plan = scale_chain(64, 0.5, 0);
    plan.params.clear();
    let executable = bind(&device, &plan);
    assert_eq!(executable.submissions(), 0);
    executable.run().unwrap().wait().unwrap();
}

#[test]
fn transfers_stay_inside_their_buffer() {
    let device = noop();
    let buffer = device.buffer("buffer", 64).unwrap();
    let outside = Error::OutOfRange { buffer: "buffer".into(), offset: 60, end: 68, size: 64 };
    assert_eq!(device.write(&buffer, 60, &[0; 8]).unwrap_err(), outside);
    assert_eq!(device.read(&buffer, 60..68).unwrap_err(), outside);
    let mut stream = Stream::new(&device, StreamOptions::default()).unwrap();
    assert_eq!(stream.write(&buffer, 60, &[0; 8]).unwrap_err(), outside);
    assert_eq!(stream.read_later(&buffer, 60..68).unwrap_err(), outside);
    let unaligned = |offset, bytes| Error::Unaligned { buffer: "buffer".into(), offset, bytes };
    assert_eq!(device.write(&buffer, 2, &[0; 4]).unwrap_err(), unaligned(2, 4));
    assert_eq!(stream.write(&buffer, 0, &[0; 3]).unwrap_err(), unaligned(0, 3));
    assert_eq!(stream.read_later(&buffer, 1..5).unwrap_err(), unaligned(1, 4));
    device.check().unwrap();
}

#[test]
fn time_stamps_are_optional() {
    let error = bind(&noop(), &sum_and_scale(16, 1.0)).run_profiled(&mut |_| ()).unwrap_err();
    assert!(matches!(error, Error::Unsupported { what: "time stamps", .. }), "{error}");
}

#[test]
fn handles_may_move_between_threads() {
    fn assert_shared<T: Send + Sync>() {}
    fn assert_sent<T: Send>() {}
    assert_shared::<Device>();
    assert_shared::<Buffer>();
    assert_shared::<Executable>();
    assert_shared::<Error>();
    assert_sent::<Stream>();
}
