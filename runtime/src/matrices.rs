//! Whether a device's cooperative matrices multiply right: a test that runs when a device is opened with them.
//!
//! Drivers list them that compute something else, and wgpu calls them experimental for a reason. So products of every form,
//! over odd extents, of one tile and of many, with sums over many tiles and with sums that go on from C, are compared with
//! the host's. Their factors are few-digit numbers, whose products and sums are exact in every order: what differs at all is
//! wrong.

use std::collections::HashMap;

use viral_compiler::plan::{Bind, BufferDecl, BufferId, BufferRole, Command, Dispatch, KernelId, Plan};
use viral_shaders::coop::{self, Spec};
use viral_shaders::gemm::Form;
use viral_shaders::{Kernel, Launch, Storage, pack};

use crate::{Buffer, Device, Error, Executable, SlotPool};

/// Rows, columns and terms of the products.
const SIZES: [[u32; 3]; 3] = [[1, 7, 9], [70, 33, 17], [40, 24, 1030]];

/// What is wrong with the cooperative matrices of `device`; `None` if nothing is, or there are none.
///
/// # Errors
/// The device was lost or has no memory.
pub fn fault(device: &Device) -> Result<Option<String>, Error> {
    fault_of(device, &|spec| coop::kernel(spec, device.target()))
}

/// As [`fault`], of a kernel that the caller links.
///
/// # Errors
/// As [`fault`].
pub fn fault_of(device: &Device, kernel: &dyn Fn(&Spec) -> Kernel) -> Result<Option<String>, Error> {
    let Some(edge) = device.target().cooperative_matrix else { return Ok(None) };
    let forms = Form::ALL.into_iter().enumerate();
    let products = forms.flat_map(|(i, form)| {
        SIZES.into_iter().enumerate().map(move |(j, [m, n, k])| {
            let spec = Spec { form, edge, accumulate: (i + j) % 2 == 1 };
            Product { spec, m, n, k }
        })
    });
    let (products, kernels): (Vec<_>, Vec<_>) = products.map(|product| (product, kernel(&product.spec))).unzip();
    let rejected = |error| match error {
        Error::ShaderRejected { kernel, message } => Ok(Some(format!("kernel `{kernel}` was rejected: {message}"))),
        other => Err(other),
    };
    // All of them before the first is used, so that they are compiled side by side.
    if let Err(error) = device.pipelines().get(device, &kernels) {
        return rejected(error);
    }
    for (product, kernel) in products.iter().zip(kernels) {
        match product.run(device, kernel) {
            Ok(c) => {
                if let Some(wrong) = product.wrong(&c) {
                    return Ok(Some(wrong));
                }
            }
            Err(error) => return rejected(error),
        }
    }
    Ok(None)
}

/// A product whose factors are packed from 32-bit floats on the device.
#[derive(Clone, Copy)]
struct Product {
    spec: Spec,
    m: u32,
    n: u32,
    k: u32,
}

impl Product {
    /// The extent in pairs of tiles.
    fn padded(&self, extent: u32) -> u32 {
        pack::tiles(extent, self.spec.edge) * self.spec.edge
    }

    /// Rows and columns of A and of B as they are stored.
    fn stored(&self) -> [[u32; 2]; 2] {
        let (a, b) = ([self.m, self.k], [self.k, self.n]);
        let turned =
            |is_turned: bool, [rows, columns]: [u32; 2]| if is_turned { [columns, rows] } else { [rows, columns] };
        [turned(self.spec.form.a_transposed(), a), turned(self.spec.form.b_transposed(), b)]
    }

    /// What C, in whole tiles, holds after the product.
    fn run(&self, device: &Device, kernel: Kernel) -> Result<Vec<f32>, Error> {
        let [m, n, k] = [self.m, self.n, self.k].map(|extent| self.padded(extent));
        let [a, b] = self.stored();
        let contents = [a, b, [m, n]].map(|[rows, columns]| (rows * columns) as usize);
        let contents: Vec<Vec<f32>> = contents.into_iter().zip(1..).map(|(len, seed)| numbers(len, seed)).collect();
        let mut plan = Plan::default();
        let mut buffers: HashMap<String, Buffer> = HashMap::new();
        for (name, content) in ["a", "b", "c"].into_iter().zip(&contents) {
            let bytes = (4 * content.len() as u64).next_multiple_of(16);
            plan.buffers.push(BufferDecl { role: BufferRole::External(name.to_owned()), bytes });
            let buffer = device.buffer(name, bytes)?;
            device.write(&buffer, 0, bytemuck::cast_slice(content))?;
            buffers.insert(name.to_owned(), buffer);
        }
        for (source, [rows, columns]) in [a, b].into_iter().enumerate() {
            let bytes = u64::from(self.padded(rows) * self.padded(columns)) * 2;
            plan.buffers.push(BufferDecl { role: BufferRole::Slot, bytes });
            let problem = pack::Problem {
                batch: [1; 3],
                rows,
                columns,
                edge: self.spec.edge,
                offset: 0,
                row_stride: columns,
                column_stride: 1,
                batch_strides: [0; 3],
                scales: 0,
            };
            let kernel = pack::kernel(Storage::F32, problem.vec4(), problem.edge);
            dispatch(&mut plan, kernel, pack::launch(&problem, device.target()), &[source, 3 + source], device);
        }
        let [m, n, k] = [m, n, k].map(|extent| extent / self.spec.edge);
        let launch = coop::launch(&coop::Problem { batch: 1, m, n, k, parts: 1 }, device.target());
        dispatch(&mut plan, kernel, launch, &[3, 4, 2], device);
        let executable = Executable::new(device, &plan, &|name| buffers.get(name).cloned(), &mut SlotPool::new())?;
        executable.run()?.wait()?;
        device.read_as(&buffers["c"], 0..4 * contents[2].len() as u64)
    }

    /// The first number of C that is not what the host computes, in words.
    fn wrong(&self, c: &[f32]) -> Option<String> {
        let [a_shape, b_shape] = self.stored();
        let [a, b] =
            [(a_shape, 1), (b_shape, 2)].map(|([rows, columns], seed)| numbers((rows * columns) as usize, seed));
        let (width, Spec { form, edge, accumulate }) = (self.padded(self.n), self.spec);
        let before = numbers(c.len(), 3);
        let at = |shape: [u32; 2], turned: bool, row: u32, column: u32| {
            let (row, column) = if turned { (column, row) } else { (row, column) };
            (row * shape[1] + column) as usize
        };
        (0..c.len() as u32).find_map(|i| {
            let (row, column) = (i / width, i % width);
            let terms = if row < self.m && column < self.n { self.k } else { 0 };
            let term = |k| a[at(a_shape, form.a_transposed(), row, k)] * b[at(b_shape, form.b_transposed(), k, column)];
            let first = if accumulate { before[i as usize] } else { 0.0 };
            let expected = first + (0..terms).map(term).sum::<f32>();
            let found = c[i as usize];
            (found != expected).then(|| {
                let Self { m, n, k, .. } = self;
                format!(
                    "a product of {m}×{k} and {k}×{n} ({form:?}, tiles of {edge}×{edge}{}) has {found} at row {row}, \
                     column {column} instead of {expected}",
                    if accumulate { ", added to C" } else { "" },
                )
            })
        })
    }
}

/// Appends a launch that binds these buffers of the plan.
fn dispatch(plan: &mut Plan, kernel: Kernel, launch: Launch, binds: &[usize], device: &Device) {
    let params_offset = plan.params.len().next_multiple_of(device.target().uniform_align as usize);
    plan.params.resize(params_offset, 0);
    plan.params.extend(launch.params.iter().flat_map(|word| word.to_le_bytes()));
    let bind = |&buffer: &usize| Bind { buffer: BufferId(buffer as u32), offset: 0, bytes: plan.buffers[buffer].bytes };
    plan.commands.push(Command::Dispatch(Dispatch {
        kernel: KernelId(plan.kernels.len() as u32),
        binds: binds.iter().map(bind).collect(),
        params_offset: params_offset as u32,
        groups: launch.groups,
        label: kernel.name.clone(),
        flops: 0,
        traffic: 0,
    }));
    plan.kernels.push(kernel);
}

/// Multiples of 1/8 between -1 and 1, without a pattern that a wrong index would survive.
fn numbers(len: usize, seed: u32) -> Vec<f32> {
    let number = |i: u32| {
        let mixed = (i ^ seed.wrapping_mul(0x9e37_79b9)).wrapping_mul(0x85eb_ca6b);
        let mixed = (mixed ^ (mixed >> 13)).wrapping_mul(0xc2b2_ae35);
        ((mixed >> 16) % 17) as f32 / 8.0 - 1.0
    };
    (0..len as u32).map(number).collect()
}
