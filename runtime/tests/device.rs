//! Numbers on the machine's best device: a GPU, or Mesa's software device.

mod common;

use common::*;
use viral_compiler::plan::{Bind, BufferId, Command, Plan};
use viral_runtime::{
    AdapterChoice, Backend, Checks, Device, DeviceOptions, Error, Executable, Phase, SlotPool, Stream, StreamOptions,
    list,
};

fn read(device: &Device, executable: &Executable, output: &str) -> Vec<f32> {
    let port = executable.output(output).unwrap();
    device.read_as(&port.buffer, port.offset..port.offset + port.bytes).unwrap()
}

fn write(device: &Device, executable: &Executable, input: &str, values: &[f32]) {
    let port = executable.input(input).unwrap();
    device.write(&port.buffer, port.offset, &to_bytes(values)).unwrap();
}

fn sum_and_scale_reference(a: &[f32], b: &[f32], factor: f32) -> Vec<f32> {
    a.iter().zip(b).map(|(a, b)| factor * (a + b)).collect()
}

#[test]
fn a_plan_computes_with_any_checks() {
    let (a, b) = (numbers(1000, 1), numbers(1000, 2));
    for checks in [Checks::Full, Checks::Bounds, Checks::Off] {
        let device = device_with(&DeviceOptions { checks, ..Default::default() });
        let executable = bind(&device, &sum_and_scale(1000, -3.0));
        write(&device, &executable, "a", &a);
        write(&device, &executable, "b", &b);
        executable.run().unwrap().wait().unwrap();
        assert_eq!(read(&device, &executable, "out"), sum_and_scale_reference(&a, &b, -3.0), "{checks:?}");
    }
}

#[test]
fn a_plan_computes_on_every_adapter() {
    let (a, b) = (numbers(1000, 1), numbers(1000, 2));
    for adapter in list().iter().filter(|adapter| adapter.unsuitable.is_none()) {
        let choice = AdapterChoice { backend: adapter.backend, adapter: Some(adapter.index.to_string()) };
        let device = Device::open(&choice, &DeviceOptions::default()).unwrap();
        assert_eq!(device.adapter(), adapter);
        let executable = bind(&device, &sum_and_scale(1000, 0.5));
        write(&device, &executable, "a", &a);
        write(&device, &executable, "b", &b);
        executable.run().unwrap().wait().unwrap();
        assert_eq!(read(&device, &executable, "out"), sum_and_scale_reference(&a, &b, 0.5), "{adapter}");
    }
}

#[test]
fn two_runs_give_identical_bits() {
    let run = || {
        let device = device();
        let executable = bind(&device, &scale_chain(4096, 0.999, 100));
        let port = executable.state("x").unwrap();
        device.write(&port.buffer, 0, &to_bytes(&numbers(4096, 5))).unwrap();
        executable.run().unwrap();
        device.read(&port.buffer, 0..port.bytes).unwrap()
    };
    assert_eq!(run(), run());
}

#[test]
fn dispatches_and_clears_run_in_order() {
    let device = device();
    let mut plan = scale_chain(256, 2.0, 1);
    // Twice: double into the slot, clear the middle of the slot, double back.
    plan.commands.insert(1, Command::Clear(Bind { buffer: BufferId(1), offset: 256, bytes: 512 }));
    plan.commands = std::iter::repeat_n(plan.commands, 2).flatten().collect();
    let executable = bind(&device, &plan);
    let port = executable.state("x").unwrap();
    let before = numbers(256, 3);
    device.write(&port.buffer, 0, &to_bytes(&before)).unwrap();
    executable.run().unwrap();
    let after: Vec<f32> = device.read_as(&port.buffer, 0..port.bytes).unwrap();
    let expected: Vec<f32> =
        before.iter().enumerate().map(|(i, x)| if (64..192).contains(&i) { 0.0 } else { 16.0 * x }).collect();
    assert_eq!(after, expected);
}

#[test]
fn plans_share_slots() {
    let device = device();
    let plans = [sum_and_scale(100, 2.0), sum_and_scale(1000, 3.0), sum_and_scale(10, 4.0)];
    let mut slots = SlotPool::new();
    plans.iter().for_each(|plan| slots.reserve(plan));
    assert_eq!(slots.bytes(), 4000);
    let executables = plans.each_ref().map(|plan| {
        let externals = externals(&device, plan);
        Executable::new(&device, plan, &|name| externals.get(name).cloned(), &mut slots).unwrap()
    });
    let slot_labels = executables.each_ref().map(|executable| executable.buffers()[3].bytes());
    assert_eq!(slot_labels, [4000; 3]);
    for round in 0..3 {
        for ((plan, executable), factor) in plans.iter().zip(&executables).zip([2.0, 3.0, 4.0]) {
            let n = plan.inputs[0].ty.shape[0] as u32;
            let (a, b) = (numbers(n, round), numbers(n, round + 100));
            write(&device, executable, "a", &a);
            write(&device, executable, "b", &b);
            executable.run().unwrap();
            assert_eq!(read(&device, executable, "out"), sum_and_scale_reference(&a, &b, factor));
        }
    }
}

#[test]
fn externals_may_be_bound_at_a_range() {
    // `a` and `b` are parts of one buffer, as weights in an arena are.
    let n = 100;
    let device = device();
    let mut plan = sum_and_scale(n, 1.0);
    plan.buffers[0].bytes = 1024 + 400;
    let range = |offset| Bind { buffer: BufferId(0), offset, bytes: 400 };
    if let Command::Dispatch(sum) = &mut plan.commands[0] {
        sum.binds[0] = range(512);
        sum.binds[1] = range(1024);
    }
    plan.inputs[0].bind = range(512);
    plan.inputs[1].bind = range(1024);
    let executable = bind(&device, &plan);
    let (a, b) = (numbers(n, 1), numbers(n, 2));
    write(&device, &executable, "a", &a);
    write(&device, &executable, "b", &b);
    executable.run().unwrap();
    assert_eq!(read(&device, &executable, "out"), sum_and_scale_reference(&a, &b, 1.0));
    let arena = executable.input("a").unwrap().buffer.clone();
    let untouched: Vec<f32> = device.read_as(&arena, 0..512).unwrap();
    assert_eq!(untouched, [0.0; 128]);
}

#[test]
fn a_stream_allocates_nothing_after_its_first_step() {
    let device = device();
    let executable = bind(&device, &sum_and_scale(1000, 2.0));
    let (a, b, out) =
        ["a", "b", "out"].map(|name| executable.input(name).or(executable.output(name)).unwrap().buffer.clone()).into();
    // Two inputs of 4000 bytes do not fit into one window, so every step waits for a part of its input.
    let mut stream = Stream::new(&device, StreamOptions { upload_bytes: 5000, replays_ahead: 2 }).unwrap();
    let mut previous = None;
    let mut after_first = None;
    let check = |stream: &mut Stream, (step, ticket)| {
        let result = stream.take(ticket).unwrap();
        let expected = sum_and_scale_reference(&numbers(1000, step), &numbers(1000, step + 1000), 2.0);
        assert_eq!(result, to_bytes(&expected), "step {step}");
    };
    for step in 0..20 {
        stream.write(&a, 0, &to_bytes(&numbers(1000, step))).unwrap();
        stream.write(&b, 0, &to_bytes(&numbers(1000, step + 1000))).unwrap();
        stream.run(&executable).unwrap();
        let ticket = stream.read_later(&out, 0..4000).unwrap();
        if let Some(previous) = previous.replace((step, ticket)) {
            check(&mut stream, previous);
        }
        // Reading one step late needs two buffers, the second of which is made in step 1.
        if step == 1 {
            after_first = Some(device.memory());
        }
    }
    assert_eq!(Some(device.memory()), after_first);
    check(&mut stream, previous.unwrap());
}

#[test]
fn tickets_may_be_taken_in_any_order_and_dropped() {
    let device = device();
    let buffer = device.buffer("buffer", 64).unwrap();
    let mut stream = Stream::new(&device, StreamOptions::default()).unwrap();
    let write_and_read = |stream: &mut Stream, value: f32| {
        stream.write(&buffer, 8, &value.to_le_bytes()).unwrap();
        stream.read_later(&buffer, 8..12).unwrap()
    };
    let tickets = [1.0, 2.0, 3.0].map(|value| write_and_read(&mut stream, value));
    let [first, second, third] = tickets;
    assert_eq!(stream.take_f32(third).unwrap(), 3.0);
    assert_eq!(stream.take_f32(first).unwrap(), 1.0);
    drop(second);
    let created = device.memory().created_buffers;
    for step in 0..10 {
        let [dropped, taken] = [4.0, 5.0].map(|value| write_and_read(&mut stream, value + step as f32));
        drop(dropped);
        assert_eq!(stream.take_f32(taken).unwrap(), 5.0 + step as f32);
    }
    assert_eq!(device.memory().created_buffers, created);

    let mut other = Stream::new(&device, StreamOptions::default()).unwrap();
    let foreign = write_and_read(&mut stream, 9.0);
    assert!(matches!(other.take(foreign), Err(Error::Refused { .. })));
}

#[test]
fn transfers_of_any_size_and_place() {
    let device = device();
    // Larger than the windows of both directions, and with an incomplete last word.
    let content: Vec<u8> = (0..70_000_003_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let buffer = device.buffer("large", content.len() as u64 + 64).unwrap();
    device.write(&buffer, 8, &content).unwrap();
    let back = device.read(&buffer, 8..8 + content.len() as u64).unwrap();
    assert!(back == content, "70 MB came back changed");
    assert_eq!(device.read(&buffer, 9..9).unwrap(), []);
    assert_eq!(device.read(&buffer, 13..24).unwrap(), content[5..16]);
    let end = 8 + content.len() as u64;
    assert_eq!(
        device.read(&buffer, end - 2..end + 3).unwrap(),
        [content[content.len() - 2..].to_vec(), vec![0; 3]].concat()
    );
}

/// Small and large, from several threads, and with an incomplete last word; what is written later comes after it.
#[test]
fn buffers_are_filled_before_they_are_used() {
    const SIZES: [usize; 4] = [40, 65_536, 70_003, 5 << 20];
    let device = device();
    let content = |bytes: usize| (0..bytes).map(|i| (i * 7 % 251) as u8).collect::<Vec<u8>>();
    let owner = &device;
    let buffers = std::thread::scope(|scope| {
        let threads = SIZES.map(|bytes| {
            scope.spawn(move || {
                let mut filling = owner.filling("filled", bytes as u64 + 100).unwrap();
                filling.write(8, &content(bytes)).unwrap();
                filling.write(0, &[8; 8]).unwrap();
                filling.write(0, &[9; 5]).unwrap();
                assert!(matches!(filling.write(bytes as u64 + 120, &[1; 4]), Err(Error::OutOfRange { .. })));
                assert!(matches!(filling.write(2, &[1; 4]), Err(Error::Unaligned { .. })));
                filling.finish()
            })
        });
        threads.map(|thread| thread.join().unwrap())
    });
    for (buffer, bytes) in buffers.iter().zip(SIZES) {
        let found = device.read(buffer, 0..bytes as u64 + 100).unwrap();
        assert!(found == [vec![9; 5], vec![0; 3], content(bytes), vec![0; 92]].concat(), "{bytes} B");
        device.write(buffer, 4, &[1; 4]).unwrap();
        assert_eq!(device.read(buffer, 0..12).unwrap(), [vec![9; 4], vec![1; 4], content(4)].concat());
    }
}

/// Also where others have been before, beside others, and in more memory than is taken from the system at a time.
#[test]
fn buffers_begin_as_zeros_and_share_no_byte() {
    const SIZES: [u64; 6] = [16, 60_000, 65_536, 70_000, 3 << 20, 129 << 20];
    let device = device_with(&DeviceOptions::default());
    for round in 1..=2u8 {
        let buffers = SIZES.map(|bytes| device.buffer("zeros", bytes).unwrap());
        for (index, (buffer, bytes)) in buffers.iter().zip(SIZES).enumerate() {
            let content = device.read(buffer, 0..bytes).unwrap();
            assert!(content.iter().all(|&byte| byte == 0), "round {round}: {bytes} B");
            device.write(buffer, 0, &vec![round * 10 + index as u8; bytes as usize]).unwrap();
        }
        for (index, (buffer, bytes)) in buffers.iter().zip(SIZES).enumerate() {
            let content = device.read(buffer, 0..bytes).unwrap();
            assert!(content.iter().all(|&byte| byte == round * 10 + index as u8), "round {round}: {bytes} B");
        }
    }
    assert_eq!(device.memory().live_buffers, 1, "all that is left is what reads go through");
}

#[test]
fn a_profiled_run_has_a_row_for_every_dispatch() {
    let device = device();
    if !device.adapter().timestamps {
        assert!(matches!(
            bind(&device, &scale_chain(64, 1.0, 1)).run_profiled(&mut |_| ()),
            Err(Error::Unsupported { .. })
        ));
        return;
    }
    // More dispatches than one query set holds, with clears between them.
    let n = 3000;
    let mut plan = scale_chain(64, 1.0, n / 2);
    plan.commands.insert(1000, Command::Clear(whole(1, 4)));
    let executable = bind(&device, &plan);
    let mut phases = Vec::new();
    let rows = executable.run_profiled(&mut |phase| phases.push(phase)).unwrap();
    assert_eq!(rows.len(), n);
    assert_eq!(phases, [Phase::Encode, Phase::Submit, Phase::Wait, Phase::End].repeat(2));
    assert_eq!(rows[0].start, 0.0);
    assert!(rows.iter().is_sorted_by(|a, b| a.start <= b.start));
    assert!(rows.iter().all(|row| row.kernel == "scale" && row.flops == 64 && row.traffic == 768));
    let at = |i: usize| rows[i].label.as_str();
    assert_eq!((at(0), at(1), at(n - 1)), ("there", "back", "back"));
    let total: f64 = rows.iter().map(|row| row.nanoseconds).sum();
    assert!(total > 0.0 && total < 60e9, "{total} ns");

    // It is a run like any other, and a second one allocates nothing.
    let memory = device.memory();
    let port = executable.state("x").unwrap();
    device.write(&port.buffer, 0, &to_bytes(&[1.5; 64])).unwrap();
    executable.run_profiled(&mut |_| ()).unwrap();
    assert_eq!(device.memory(), memory);
    assert_eq!(device.read_as::<f32>(&port.buffer, 0..256).unwrap(), [1.5; 64]);
}

#[test]
fn cut_plans_give_the_same_numbers() {
    let device = device();
    let run = |plan: &Plan, submissions: usize| {
        let executable = bind(&device, plan);
        assert_eq!(executable.submissions(), submissions);
        let port = executable.state("x").unwrap();
        device.write(&port.buffer, 0, &to_bytes(&numbers(64, 7))).unwrap();
        let mut stream = Stream::new(&device, StreamOptions::default()).unwrap();
        stream.run(&executable).unwrap();
        let ticket = stream.read_later(&port.buffer, 0..256).unwrap();
        stream.take(ticket).unwrap()
    };
    let mut plan = scale_chain(64, 1.01, 20);
    let whole = run(&plan, 1);
    for command in &mut plan.commands {
        if let Command::Dispatch(dispatch) = command {
            dispatch.flops = 1 << 50;
        }
    }
    assert_eq!(run(&plan, 40), whole);
}

#[test]
fn optional_features_work_where_the_target_has_them() {
    let device = device();
    let mut plan = scale_chain(64, 3.0, 1);
    if device.target().f16 {
        plan.kernels[0].requires.f16 = true;
        let body = plan.kernels[0].wgsl.replace("params.factor * x[id.x]", "f32(f16(params.factor) * f16(x[id.x]))");
        plan.kernels[0].wgsl = format!("enable f16;\n{body}");
    }
    if device.target().subgroup.is_some() {
        plan.kernels[0].requires.subgroups = true;
        plan.kernels[0].wgsl = plan.kernels[0].wgsl.replace("params.n {", "subgroupMax(params.n) {");
    }
    let executable = bind(&device, &plan);
    let port = executable.state("x").unwrap();
    device.write(&port.buffer, 0, &to_bytes(&[0.25; 64])).unwrap();
    executable.run().unwrap();
    assert_eq!(device.read_as::<f32>(&port.buffer, 0..256).unwrap(), [2.25; 64]);
}

#[test]
fn pipelines_are_kept_on_disk() {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("pipeline-cache");
    drop(std::fs::remove_dir_all(&folder));
    let options = DeviceOptions { pipeline_cache: Some(folder.clone()), ..Default::default() };
    let run = || {
        let device = device_with(&options);
        let executable = bind(&device, &sum_and_scale(100, 2.0));
        write(&device, &executable, "a", &[1.0; 100]);
        executable.run().unwrap();
        assert_eq!(read(&device, &executable, "out"), [2.0; 100]);
        (device.adapter().pipeline_cache, device.damaged_pipeline_cache().map(std::path::Path::to_owned))
    };
    let (kept, damaged) = run();
    assert_eq!(damaged, None, "there was no file");
    if !kept {
        return;
    }
    let files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    assert_eq!(run(), (true, None));
    // A damaged file is a cache miss that a caller can tell, nothing more.
    std::fs::write(&files[0], b"damaged").unwrap();
    assert_eq!(run(), (true, Some(files[0].clone())));
    assert!(std::fs::read(&files[0]).unwrap().len() > 7);
}

#[test]
fn the_list_shows_what_opens() {
    let adapters = list();
    let best = device().adapter().clone();
    assert_eq!(adapters.iter().find(|adapter| adapter.unsuitable.is_none()), Some(&best));
    assert!(adapters.iter().enumerate().all(|(index, adapter)| adapter.index == index));
    let open = |adapter: &str| {
        let choice = AdapterChoice { backend: Backend::Auto, adapter: Some(adapter.to_owned()) };
        Device::open(&choice, &DeviceOptions::default()).map(|device| device.adapter().clone())
    };
    assert_eq!(open(&best.index.to_string()).unwrap(), best);
    assert_eq!(open(&best.name.to_uppercase()).unwrap(), best);
    match open("no such adapter").unwrap_err() {
        Error::UnknownAdapter { wanted, available } => {
            assert_eq!(wanted, "no such adapter");
            assert_eq!(available.len(), adapters.len());
            assert!(available[best.index].contains(&best.name), "{available:?}");
        }
        other => panic!("{other}"),
    }
}

/// What one thread's poll finds done may be another one's; each still gets what it waits for.
#[test]
fn threads_share_a_device() {
    const ROUNDS: u32 = 200;
    let device = device_with(&DeviceOptions::default());
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let device = device.clone();
            scope.spawn(move || {
                let executable = bind(&device, &sum_and_scale(64, 2.0));
                let mut stream = Stream::new(&device, StreamOptions::default()).unwrap();
                for round in 0..ROUNDS {
                    let (a, b) = (numbers(64, 2 * round + 1000 * thread), numbers(64, 2 * round + 1));
                    for (name, values) in [("a", &a), ("b", &b)] {
                        let port = executable.input(name).unwrap();
                        stream.write(&port.buffer, port.offset, &to_bytes(values)).unwrap();
                    }
                    stream.run(&executable).unwrap();
                    let port = executable.output("out").unwrap();
                    let ticket = stream.read_later(&port.buffer, port.offset..port.offset + port.bytes).unwrap();
                    let found = stream.take(ticket).unwrap();
                    assert_eq!(
                        found,
                        to_bytes(&sum_and_scale_reference(&a, &b, 2.0)),
                        "thread {thread}, round {round}"
                    );
                }
            });
        }
    });
}
