//! Matrix products, with what follows them element by element.

use viral_shaders::gemm::{self, Form, Operand, Problem, Spec};
use viral_shaders::{Target, coop};

use super::super::affine::Affine;
use super::super::body::{Body, ExprKind, Obstacle};
use super::super::cluster::Group;
use super::super::{Step, emit};
use super::Context;
use crate::ir::{Graph, Value};
use crate::ops::dot_tiles::DotTiles;
use crate::ops::{Class, Op};
use crate::tunables;

impl Context<'_> {
    /// The kernel of a product and of the elementwise members behind it.
    pub(super) fn product(&self, group: &Group, stored: &[Value], target: &Target) -> Result<Step, Obstacle> {
        let node = self.graph.node(self.value);
        let mut product = self.dot(node.args[0], node.args[1])?;
        let tiled = &mut product.tiled;
        tunables::decide_tiling(tiled, target);
        let last = group.members[group.members.len() - 1];
        if stored == [self.value] {
            return Ok(self.launch(product, self.value, target));
        }
        if let [result] = stored
            && self.adds_to_state(*result)
        {
            product.tiled.spec.accumulate = true;
            return Ok(self.launch(product, *result, target));
        }
        // A state's old content may be read anywhere until the launch ends.
        if stored.iter().any(|&value| self.memory.replaces(value).is_some()) {
            return Err(Obstacle::NeedsGroup(last));
        }
        let body = Body::new(self.graph, self.clusters, group, stored)?;
        // The kernel's own result is f32; what else there is the hook stores.
        let is_f32 = |value: &Value| !self.graph.ty(*value).dtype.is_storage();
        let result = body.stores.iter().map(|store| store.value).rfind(is_f32);
        let computed = group.members.iter().rev().map(|&member| &self.graph.node(member).op);
        let name = computed.into_iter().find(|op| op.class() != Class::View).map_or("copy", Op::name).to_owned();
        let memory = |value| self.memory.of(value);
        let hook = emit::hook(self.graph, &body, name, result, product.tiled.spec.vec4, &memory, target);
        let hook = hook.ok_or(Obstacle::NeedsGroup(last))?;
        if 3 + hook.bindings.len() > target.max_storage_buffers as usize {
            return Err(Obstacle::NeedsGroup(last));
        }
        product.tiled.spec.hook = Some(hook.hook);
        let mut step = self.launch(product, result.unwrap_or(self.value), target);
        step.params.extend(hook.params);
        step.bindings.extend(hook.bindings);
        let loads = body.exprs.iter().filter_map(|expr| match expr.kind {
            ExprKind::Load { source, .. } => Some(source),
            _ => None,
        });
        for load in loads {
            if !step.reads.contains(&load) {
                step.reads.push(load);
            }
        }
        let scratch = if result.is_none() { Some(self.value) } else { None };
        step.writes = body.stores.iter().map(|store| store.value).chain(scratch).collect();
        step.traffic = step.reads.iter().chain(&step.writes).map(|&value| self.graph.ty(value).bytes()).sum();
        let operations = body.exprs.iter().filter(|expr| matches!(expr.kind, ExprKind::Apply { .. })).count();
        step.flops += (operations * self.graph.ty(self.value).len()) as u64;
        Ok(step)
    }

    /// The kernel of a product on cooperative matrices, which adds to a state and does nothing else with its result.
    pub(super) fn product_of_tiles(
        &self,
        op: &DotTiles,
        group: &Group,
        stored: &[Value],
        target: &Target,
    ) -> Result<Step, Obstacle> {
        let args = &self.graph.node(self.value).args;
        let result = match stored {
            [result] if *result == self.value || self.adds_to_state(*result) => *result,
            _ => return Err(Obstacle::NeedsGroup(group.members[group.members.len() - 1])),
        };
        let types = [0, 1].map(|i| self.graph.ty(args[i]));
        let ([m, k], [_, n]) = (op.tiles(0, types[0]), op.tiles(1, types[1]));
        let edge = types[0].shape[types[0].rank() - 1];
        let spec = coop::Spec {
            form: Form::of(op.a_transposed, op.b_transposed),
            edge: edge as u32,
            accumulate: result != self.value,
        };
        let batch: usize = types[0].shape.iter().rev().skip(4).product();
        let [batch, m, n, k, parts] = [batch, m, n, k, op.parts].map(|extent| extent as u32);
        let launch = coop::launch(&coop::Problem { batch, m, n, k, parts }, target);
        let flops = 2 * (types[0].len() * edge) as u64 * u64::from(n);
        Ok(Step {
            writes: vec![result],
            bindings: [args[0], args[1], result].map(|value| self.memory.of(value)).to_vec(),
            ..self.step(coop::kernel(&spec, target), launch, args.to_vec(), false, flops)
        })
    }

    /// Whether `value` is a state plus the product, in the state's place.
    fn adds_to_state(&self, value: Value) -> bool {
        let node = self.graph.node(value);
        let Some(state) = self.memory.replaces(value) else { return false };
        matches!(node.op, Op::Add(_)) && (node.args == [state, self.value] || node.args == [self.value, state])
    }

    fn launch(&self, product: Product, result: Value, target: &Target) -> Step {
        let Tiled { spec, problem } = &product.tiled;
        let (kernel, launch) = (gemm::kernel(spec, target), gemm::launch(spec, problem, target));
        let flops = 2 * self.graph.ty(self.value).len() as u64 * u64::from(problem.k);
        Step {
            writes: vec![result],
            bindings: product.operands.into_iter().chain([result]).map(|value| self.memory.of(value)).collect(),
            product: Some(product.tiled.clone()),
            ..self.step(kernel, launch, product.operands.to_vec(), false, flops)
        }
    }

    /// `C = A·B` with strided operands.
    fn dot(&self, a: Value, b: Value) -> Result<Product, Obstacle> {
        let shape = self.graph.shape(self.value);
        let rank = shape.len();
        let (m, n) = (shape[rank - 2], shape[rank - 1]);
        let k = self.graph.shape(a)[rank - 1];
        let (a_root, a_at) = self.strided(a, self.graph.shape(a))?;
        let (b_root, b_at) = self.strided(b, self.graph.shape(b))?;
        let c_at = Affine::row_major(shape, 0..rank);
        let (a_transposed, a_row) = orientation(&a_at, m, k).ok_or(Obstacle::NeedsMemory(a))?;
        let (b_transposed, b_row) = orientation(&b_at, k, n).ok_or(Obstacle::NeedsMemory(b))?;
        let batch = Batch::new(&shape[..rank - 2], [&a_at, &b_at, &c_at]).ok_or(Obstacle::NeedsMemory(b))?;
        let operand = |root: Value, at: &Affine, row: i64, which: usize| Operand {
            offset: at.offset as u32,
            row_stride: row as u32,
            batch_strides: batch.strides[which],
            scales: self.graph.ty(root).scales(),
        };
        let storage = |root: Value| self.graph.ty(root).dtype.storage().unwrap_or_default();
        let form = Form::of(a_transposed, b_transposed);
        let problem = Problem {
            batch: batch.extents,
            m: m as u32,
            n: n as u32,
            k: k as u32,
            alpha: 1.0,
            a: operand(a_root, &a_at, a_row, 0),
            b: operand(b_root, &b_at, b_row, 1),
            c: operand(self.value, &c_at, n as i64, 2),
            stripe: 0,
        };
        let spec = Spec { storage: [storage(a_root), storage(b_root)], ..Spec::fit(form, &problem) };
        Ok(Product { tiled: Tiled { spec, problem }, operands: [a_root, b_root] })
    }
}

/// Whether the kernel of a product can go on with `value`. One on cooperative matrices adds to a state and does no more.
pub(crate) fn takes_epilogue(graph: &Graph, product: Value, value: Value) -> bool {
    let node = graph.node(value);
    let adds_to_state =
        matches!(node.op, Op::Add(_)) && node.args.iter().any(|&arg| matches!(graph.node(arg).op, Op::State(_)));
    adds_to_state || !matches!(graph.node(product).op, Op::DotTiles(_))
}

/// A product, ready to be launched.
struct Product {
    tiled: Tiled,
    operands: [Value; 2],
}

/// A product as its kernel sees it.
#[derive(Clone, Debug)]
pub(crate) struct Tiled {
    pub(crate) spec: Spec,
    pub(crate) problem: Problem,
}

/// Whether a matrix of `(rows, columns)` is stored transposed, and the distance between its stored rows; `None` where
/// neither direction is contiguous.
fn orientation(at: &Affine, rows: usize, columns: usize) -> Option<(bool, i64)> {
    let rank = at.terms.len();
    let (row, column) = (at.terms[rank - 2], at.terms[rank - 1]);
    if column == 1 || columns == 1 {
        Some((false, row))
    } else if row == 1 || rows == 1 {
        Some((true, column))
    } else {
        None
    }
}

/// Leading axes of a product, joined to at most three.
pub(super) struct Batch {
    pub(super) extents: [u32; 3],
    /// Of each operand.
    pub(super) strides: [[u32; 3]; 3],
}

impl Batch {
    pub(super) fn new(extents: &[usize], operands: [&Affine; 3]) -> Option<Self> {
        // (extent, stride of each operand), innermost last.
        let mut joined: Vec<(i64, [i64; 3])> = Vec::new();
        for (axis, &extent) in extents.iter().enumerate().filter(|(_, extent)| **extent != 1) {
            let strides = operands.map(|at| at.terms[axis]);
            let extent = extent as i64;
            match joined.last_mut() {
                Some((outer, outer_strides)) if (0..3).all(|i| outer_strides[i] == strides[i] * extent) => {
                    *outer *= extent;
                    *outer_strides = strides;
                }
                _ => joined.push((extent, strides)),
            }
        }
        if joined.len() > 3 {
            return None;
        }
        while joined.len() < 3 {
            joined.insert(0, (1, [0; 3]));
        }
        let stride = |which: usize| [0, 1, 2].map(|axis: usize| joined[axis].1[which] as u32);
        Some(Self {
            extents: [0, 1, 2].map(|axis: usize| joined[axis].0 as u32),
            strides: [stride(0), stride(1), stride(2)],
        })
    }
}
