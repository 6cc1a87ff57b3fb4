//! Matrix products with everything that the operation `dot` does not show: batches with strides of their own, epilogues,
//! accumulation, both tilings. Against sums in f64.

use std::collections::HashMap;

use crate::support::{device, relative_distance};
use viral_compiler::plan::{Bind, BufferDecl, BufferId, BufferRole, Command, Dispatch, KernelId, MemoryReport, Plan};
use viral_runtime::{Buffer, Executable, SlotPool};
use viral_shaders::gemm::{Form, Hook, Operand, Problem, Shape, Skew, Spec, launch_shape, link};
use viral_shaders::{Access, Kernel, Launch};

/// Numbers without a pattern that a wrong index would survive.
fn numbers(count: usize, seed: u32) -> Vec<f32> {
    let number = |i: u32| (i.wrapping_add(seed).wrapping_mul(2_654_435_761) >> 8) as f32 / 16_777_216.0 - 0.5;
    (0..count as u32).map(number).collect()
}

/// Runs one kernel over `buffers` and returns what they hold then.
fn run(kernel: Kernel, launch: Launch, buffers: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let bytes = |numbers: &Vec<f32>| (4 * numbers.len() as u64).next_multiple_of(16);
    let name = |i: usize| format!("buffer {i}");
    let bind = |i: usize| Bind { buffer: BufferId(i as u32), offset: 0, bytes: bytes(&buffers[i]) };
    let dispatch = Dispatch {
        kernel: KernelId(0),
        binds: (0..buffers.len()).map(bind).collect(),
        params_offset: 0,
        groups: launch.groups,
        label: String::new(),
        flops: 0,
        traffic: 0,
    };
    assert_eq!(launch.params.len(), kernel.param_words as usize);
    let external = |i: usize| BufferDecl { role: BufferRole::External(name(i)), bytes: bytes(&buffers[i]) };
    let plan = Plan {
        buffers: (0..buffers.len()).map(external).collect(),
        kernels: vec![kernel],
        commands: vec![Command::Dispatch(dispatch)],
        params: launch.params.iter().flat_map(|word| word.to_le_bytes()).collect(),
        inputs: vec![],
        state: vec![],
        outputs: vec![],
        memory: MemoryReport::default(),
    };
    let memory: HashMap<String, Buffer> = buffers
        .iter()
        .enumerate()
        .map(|(i, content)| {
            let buffer = device().buffer(&name(i), bytes(content)).unwrap();
            let content: Vec<u8> = content.iter().flat_map(|number| number.to_le_bytes()).collect();
            device().write(&buffer, 0, &content).unwrap();
            (name(i), buffer)
        })
        .collect();
    let executable = Executable::new(device(), &plan, &|name| memory.get(name).cloned(), &mut SlotPool::new()).unwrap();
    executable.run().unwrap().wait().unwrap();
    let read = |i: usize| {
        let bytes = device().read(&memory[&name(i)], 0..4 * buffers[i].len() as u64).unwrap();
        bytes.chunks_exact(4).map(|word| f32::from_le_bytes(word.try_into().unwrap())).collect()
    };
    (0..buffers.len()).map(read).collect()
}

/// Which float of an operand is stored at a row and a column of one matrix of the batch.
fn place(operand: &Operand, batch: [u32; 3], row: u32, column: u32) -> usize {
    let matrix: u32 = (0..3).map(|i| batch[i] * operand.batch_strides[i]).sum();
    (operand.offset + matrix + row * operand.row_stride + column) as usize
}

/// Floats from the start of an operand to its end, when it has matrices of `rows` stored rows of `width`.
fn extent(operand: &Operand, batch: [u32; 3], rows: u32, width: u32) -> usize {
    place(operand, batch.map(|extent| extent - 1), rows - 1, width - 1) + 1
}

/// Calls `visit` with batch index, row and column of every element of C.
fn for_each_element(problem: &Problem, mut visit: impl FnMut([u32; 3], u32, u32)) {
    let [b0s, b1s, b2s] = problem.batch;
    for batch in (0..b0s * b1s * b2s).map(|i| [i / (b1s * b2s), i / b2s % b1s, i % b2s]) {
        for row in 0..problem.m {
            (0..problem.n).for_each(|column| visit(batch, row, column));
        }
    }
}

struct Operands {
    a: Vec<f32>,
    b: Vec<f32>,
    c: Vec<f32>,
}

impl Operands {
    fn new(form: Form, problem: &Problem) -> Self {
        let Problem { batch, m, n, k, .. } = *problem;
        let (a_rows, a_width) = if form.a_transposed() { (k, m) } else { (m, k) };
        let (b_rows, b_width) = if form.b_transposed() { (n, k) } else { (k, n) };
        Self {
            a: numbers(extent(&problem.a, batch, a_rows, a_width), 1),
            b: numbers(extent(&problem.b, batch, b_rows, b_width), 2),
            c: numbers(extent(&problem.c, batch, m, n), 3),
        }
    }

    /// `alpha * A * B` at one place of C.
    fn product(&self, form: Form, problem: &Problem, batch: [u32; 3], row: u32, column: u32) -> f64 {
        let term = |k: u32| {
            let (a_row, a_column) = if form.a_transposed() { (k, row) } else { (row, k) };
            let (b_row, b_column) = if form.b_transposed() { (column, k) } else { (k, column) };
            let a = self.a[place(&problem.a, batch, a_row, a_column)];
            let b = self.b[place(&problem.b, batch, b_row, b_column)];
            f64::from(a) * f64::from(b)
        };
        f64::from(problem.alpha) * (0..problem.k).map(term).sum::<f64>()
    }
}

/// Both tilings, and the skews that decide what the first one does, and panels that do not steal; all compute every problem.
fn tilings() -> Vec<(Shape, Skew)> {
    let panel = Shape::panel(device().target());
    let tiles = [Skew::None, Skew::FewTiles].map(|skew| (Shape::Tile, skew));
    let mut fixed = panel;
    if let Shape::Panel { steals, .. } = &mut fixed {
        *steals = false;
    }
    Skew::ALL.map(|skew| (panel, skew)).into_iter().chain(tiles).chain([(fixed, Skew::None)]).collect()
}

fn assert_close(found: &[f32], expected: &[f64], what: &str) {
    let found: Vec<f64> = found.iter().map(|&x| f64::from(x)).collect();
    let error = relative_distance(&found, expected);
    assert!(error < 1e-6, "{what}: {error:.2e}");
}

/// Sizes around the tiles' edges, batches that share and permute operands, rows with gaps.
fn problems(form: Form, cell: u32) -> Vec<Problem> {
    let sizes =
        [[1, 1, 1], [5, 3, 70], [65, 67, 33], [9, 130, 4]].map(|size| size.map(|n: u32| n.next_multiple_of(cell)));
    let mut problems: Vec<Problem> = sizes.iter().map(|&[m, n, k]| Problem::dense(form, [1; 3], m, n, k)).collect();
    let mut batched = Problem::dense(form, [2, 3, 2], 8, 12, 20);
    batched.alpha = -0.5;
    batched.b.batch_strides[1] = 0;
    for operand in [&mut batched.a, &mut batched.c] {
        operand.offset = cell;
        operand.row_stride += 2 * cell;
        let matrix = 20 * operand.row_stride;
        operand.batch_strides = [matrix, 4 * matrix, 2 * matrix];
    }
    problems.push(batched);
    problems
}

#[test]
fn products_agree_with_sums_in_f64() {
    let forms = [(Form::NN, true), (Form::NT, true), (Form::TN, true), (Form::TT, false)];
    for ((shape, skew), (form, vec4)) in tilings().into_iter().flat_map(|tiling| forms.map(|form| (tiling, form))) {
        for problem in problems(form, if vec4 { 4 } else { 1 }) {
            let accumulate = problem.alpha < 0.0;
            let spec = Spec { vec4, accumulate, skew, ..Spec::fit(form, &problem) };
            let operands = Operands::new(form, &problem);
            let launch = launch_shape(&spec, &problem, shape, device().target());
            let Operands { a, b, c } = &operands;
            let found = run(link(&spec, shape), launch, &[a.clone(), b.clone(), c.clone()]);
            let mut expected: Vec<f64> = c.iter().map(|&c| c.into()).collect();
            for_each_element(&problem, |batch, row, column| {
                let old = &mut expected[place(&problem.c, batch, row, column)];
                *old = operands.product(form, &problem, batch, row, column) + if accumulate { *old } else { 0.0 };
            });
            assert_close(&found[2], &expected, &format!("{shape:?} {spec:?} {problem:?}"));
        }
    }
}

/// Stores `value + bias[column]`, counted, in a binding of its own and returns `scale * that + row + 100 batch`.
fn hook(vec4: bool) -> Hook {
    let cell = if vec4 { "vec4<f32>" } else { "f32" };
    let wgsl = format!(
        "@group(0) @binding(4) var<storage, read> hook_bias: array<{cell}>;\n\
         @group(0) @binding(5) var<storage, read_write> hook_kept: array<{cell}>;\n\
         fn epilogue(value: Cell, at: At) -> Cell {{\n\
             let biased = value + hook_bias[p.h0 + at.column];\n\
             hook_kept[at.index] += biased;\n\
             let matrix = at.batch.x + 10u * at.batch.y + 100u * at.batch.z;\n\
             return bitcast<f32>(p.h1) * biased + f32(at.row + 1000u * matrix);\n\
         }}\n"
    );
    Hook { name: "test".into(), wgsl, bindings: vec![Access::Read, Access::ReadWrite], param_words: 2 }
}

#[test]
fn a_hook_sees_every_finished_sum_once() {
    for ((shape, skew), vec4) in tilings().into_iter().flat_map(|tiling| [(tiling, true), (tiling, false)]) {
        let form = Form::NT;
        let cell = if vec4 { 4 } else { 1 };
        for problem in problems(form, cell) {
            let spec = Spec { vec4, skew, hook: Some(hook(vec4)), ..Spec::fit(form, &problem) };
            let operands = Operands::new(form, &problem);
            let mut launch = launch_shape(&spec, &problem, shape, device().target());
            launch.params.extend([4 / cell, 0.5f32.to_bits()]);
            let bias = numbers(problem.n as usize + 4, 4);
            let kept = vec![0.0; (problem.batch.iter().product::<u32>() * problem.m * problem.n) as usize];
            let Operands { a, b, c } = &operands;
            let found = run(link(&spec, shape), launch, &[a.clone(), b.clone(), c.clone(), bias.clone(), kept]);
            let mut expected_c: Vec<f64> = c.iter().map(|&c| c.into()).collect();
            let mut expected_kept = Vec::new();
            for_each_element(&problem, |batch, row, column| {
                let biased =
                    operands.product(form, &problem, batch, row, column) + f64::from(bias[4 + column as usize]);
                expected_kept.push(biased);
                let [b0, b1, b2] = batch;
                expected_c[place(&problem.c, batch, row, column)] =
                    0.5 * biased + f64::from(row + 1000 * (b0 + 10 * b1 + 100 * b2));
            });
            let what = format!("{shape:?} vec4 {vec4} {problem:?}");
            assert_close(&found[2], &expected_c, &what);
            assert_close(&found[4], &expected_kept, &what);
        }
    }
}
