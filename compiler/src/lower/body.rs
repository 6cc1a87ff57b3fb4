//! The body of a generated kernel: expressions over loads, for every point of a loop nest.

use std::collections::HashMap;

use super::affine::{Affine, Dims, Guard, Place, Trouble};
use super::cluster::{Clusters, Group, Kind, reduction_extent, split};
use super::views::through_view;
use crate::ir::{Graph, Value};
use crate::ops::{Class, Op, Real};
use crate::types::DType;

/// Index of an expression in a body.
pub(crate) type ExprId = usize;

/// What is computed at a point.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ExprKind {
    /// An element of a value in memory, or zero where a guard fails.
    Load { source: Value, at: Affine, guards: Vec<Guard> },
    /// A number.
    Constant(Real),
    /// A position, as `u32`.
    Index(Affine),
    /// An elementwise operation.
    Apply { op: Op, args: Vec<ExprId> },
    /// The value, or zero where a guard fails.
    Guarded { guards: Vec<Guard>, value: ExprId },
    /// The result of a reduction.
    Reduced(usize),
    /// The element of the group's matrix product.
    Product,
}

/// An expression with its type.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Expr {
    pub(crate) kind: ExprKind,
    pub(crate) dtype: DType,
}

/// A fold over the points of a row or column.
#[derive(Clone, Debug)]
pub(crate) struct Reduction {
    pub(crate) is_sum: bool,
    pub(crate) arg: ExprId,
}

/// A write to memory, at every point or once a row.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    pub(crate) value: Value,
    pub(crate) at: Affine,
    pub(crate) expr: ExprId,
    pub(crate) per_row: bool,
}

/// A loop nest and what happens inside.
#[derive(Clone, Debug)]
pub(crate) struct Body {
    /// Extents, outermost first.
    pub(crate) dims: Dims,
    /// Where the parts of the nest end: `[map]`, `[rows, columns]` or `[outer, n, inner]`, as counts of dimensions.
    pub(crate) parts: Vec<usize>,
    pub(crate) exprs: Vec<Expr>,
    pub(crate) reductions: Vec<Reduction>,
    pub(crate) stores: Vec<Store>,
}

/// Why a group has no body, and what helps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// The value's elements are read in an order that is not affine: it must be in memory first.
    NeedsMemory(Value),
    /// The member reads other elements of its own group: it must start a group of its own.
    NeedsGroup(Value),
    /// The output lies where the kernel still reads: it must be computed elsewhere and copied.
    SetAside(Value),
}

impl Body {
    /// Builds the body of a generated group. `stored` are the members that others read.
    pub(crate) fn new(graph: &Graph, clusters: &Clusters, group: &Group, stored: &[Value]) -> Result<Self, Obstacle> {
        let mut extents: Vec<Dims> = match group.kind {
            Kind::Map { size } => vec![vec![size]],
            Kind::Row { rows, columns } | Kind::Product { rows, columns } => vec![vec![rows], vec![columns]],
            Kind::Column { outer, n, inner } => vec![vec![outer], vec![n], vec![inner]],
            Kind::Single => unreachable!("hand-tuned kernels have no generated body"),
        };
        for part in &mut extents {
            part.retain(|&extent| extent != 1);
        }
        loop {
            let mut builder = Builder::new(graph, clusters, group, &extents);
            match builder.build(stored) {
                Ok(()) => return Ok(builder.body.pruned().merged()),
                Err(Trouble::Split { dim, inner }) => {
                    let mut dim = dim;
                    let part = extents.iter_mut().find(|part| {
                        let inside = dim < part.len();
                        if !inside {
                            dim -= part.len();
                        }
                        inside
                    });
                    split(part.expect("a trouble names a dimension of the nest"), dim, inner);
                }
                Err(Trouble::Opaque) => return Err(builder.obstacle),
            }
        }
    }

    /// Whether an expression differs from point to point within a row (or, for maps, at all).
    pub(crate) fn depends_on(&self, dims: std::ops::Range<usize>) -> Vec<bool> {
        let moves = |affine: &Affine| affine.terms[dims.clone()].iter().any(|&term| term != 0);
        let guarded = |guards: &[Guard]| guards.iter().any(|guard| moves(&guard.position));
        let mut depends: Vec<bool> = Vec::with_capacity(self.exprs.len());
        for expr in &self.exprs {
            let result = match &expr.kind {
                ExprKind::Load { at, guards, .. } => moves(at) || guarded(guards),
                ExprKind::Constant(_) | ExprKind::Reduced(_) => false,
                ExprKind::Product => true,
                ExprKind::Index(at) => moves(at),
                ExprKind::Apply { args, .. } => args.iter().any(|&arg| depends[arg]),
                ExprKind::Guarded { guards, value } => guarded(guards) || depends[*value],
            };
            depends.push(result);
        }
        depends
    }

    /// All index expressions, for analyses and rewrites.
    pub(crate) fn affines_mut(&mut self) -> impl Iterator<Item = &mut Affine> {
        let of_exprs = self.exprs.iter_mut().flat_map(|expr| {
            let (at, guards) = match &mut expr.kind {
                ExprKind::Load { at, guards, .. } => (Some(at), Some(guards)),
                ExprKind::Index(at) => (Some(at), None),
                ExprKind::Guarded { guards, .. } => (None, Some(guards)),
                ExprKind::Constant(_) | ExprKind::Apply { .. } | ExprKind::Reduced(_) | ExprKind::Product => {
                    (None, None)
                }
            };
            at.into_iter().chain(guards.into_iter().flatten().map(|guard| &mut guard.position))
        });
        of_exprs.chain(self.stores.iter_mut().map(|store| &mut store.at))
    }

    /// Leaves out what no result needs: members that only other groups read, which compute them for themselves.
    fn pruned(mut self) -> Self {
        let mut needed = vec![false; self.exprs.len()];
        let mut folded = vec![false; self.reductions.len()];
        self.stores.iter().for_each(|store| needed[store.expr] = true);
        for id in (0..self.exprs.len()).rev() {
            match &self.exprs[id].kind {
                _ if !needed[id] => {}
                ExprKind::Apply { args, .. } => args.iter().for_each(|&arg| needed[arg] = true),
                ExprKind::Guarded { value, .. } => needed[*value] = true,
                ExprKind::Reduced(index) => {
                    folded[*index] = true;
                    needed[self.reductions[*index].arg] = true;
                }
                ExprKind::Load { .. } | ExprKind::Constant(_) | ExprKind::Index(_) | ExprKind::Product => {}
            }
        }
        let (expr_at, reduction_at) = (positions(&needed), positions(&folded));
        for expr in &mut self.exprs {
            match &mut expr.kind {
                ExprKind::Apply { args, .. } => args.iter_mut().for_each(|arg| *arg = expr_at[*arg]),
                ExprKind::Guarded { value, .. } => *value = expr_at[*value],
                ExprKind::Reduced(index) => *index = reduction_at[*index],
                ExprKind::Load { .. } | ExprKind::Constant(_) | ExprKind::Index(_) | ExprKind::Product => {}
            }
        }
        self.reductions.iter_mut().for_each(|reduction| reduction.arg = expr_at[reduction.arg]);
        self.stores.iter_mut().for_each(|store| store.expr = expr_at[store.expr]);
        let mut keep = needed.iter();
        self.exprs.retain(|_| keep.next() == Some(&true));
        let mut keep = folded.iter();
        self.reductions.retain(|_| keep.next() == Some(&true));
        self
    }

    /// Joins neighbouring dimensions that every index expression walks as one.
    fn merged(mut self) -> Self {
        let mut inner = self.dims.len();
        while inner > 1 {
            inner -= 1;
            let outer = inner - 1;
            if self.parts.contains(&inner) {
                continue;
            }
            let extent = self.dims[inner] as i64;
            if self.affines_mut().all(|affine| affine.terms[outer] == affine.terms[inner] * extent) {
                self.dims[inner] *= self.dims[outer];
                self.dims.remove(outer);
                self.affines_mut().for_each(|affine| {
                    affine.terms.remove(outer);
                });
                self.parts.iter_mut().filter(|end| **end >= inner).for_each(|end| *end -= 1);
            }
        }
        self
    }
}

/// Where each kept element is once the others are gone.
fn positions(kept: &[bool]) -> Vec<usize> {
    let mut count = 0;
    kept.iter()
        .map(|&kept| {
            count += usize::from(kept);
            count - usize::from(kept)
        })
        .collect()
}

struct Builder<'g> {
    graph: &'g Graph,
    clusters: &'g Clusters,
    group: &'g Group,
    body: Body,
    known: HashMap<Expr, ExprId>,
    members: HashMap<Value, ExprId>,
    /// What to report should the position of an element turn out to be opaque.
    obstacle: Obstacle,
}

impl<'g> Builder<'g> {
    fn new(graph: &'g Graph, clusters: &'g Clusters, group: &'g Group, extents: &[Dims]) -> Self {
        let mut parts = Vec::new();
        let mut dims = Vec::new();
        for part in extents {
            dims.extend(part);
            parts.push(dims.len());
        }
        let body = Body { dims, parts, exprs: Vec::new(), reductions: Vec::new(), stores: Vec::new() };
        let obstacle = Obstacle::NeedsGroup(group.members[0]);
        Self { graph, clusters, group, body, known: HashMap::new(), members: HashMap::new(), obstacle }
    }

    fn build(&mut self, stored: &[Value]) -> Result<(), Trouble> {
        for &member in &self.group.members {
            self.obstacle = Obstacle::NeedsGroup(member);
            let expr = self.member(member)?;
            self.members.insert(member, expr);
            if stored.contains(&member) {
                let at = self.home(member);
                let per_row = self.per_row(member);
                self.body.stores.push(Store { value: member, at, expr, per_row });
            }
        }
        Ok(())
    }

    /// Whether a member has one element a row (or one a column, for a column reduction).
    fn per_row(&self, member: Value) -> bool {
        match self.group.kind {
            Kind::Row { rows, columns } => columns > 1 && self.graph.ty(member).len() == rows,
            Kind::Column { .. } => true,
            Kind::Map { .. } | Kind::Product { .. } | Kind::Single => false,
        }
    }

    /// Where a member's element for the current point is in memory.
    fn home(&self, member: Value) -> Affine {
        let dims = &self.body.dims;
        match (self.group.kind, self.per_row(member)) {
            (Kind::Column { .. }, _) => {
                // (outer, inner), without the reduced part in between
                let (outer, n) = (self.body.parts[0], self.body.parts[1]);
                let mut at = Affine::row_major(dims, n..dims.len());
                let inner: usize = dims[n..].iter().product();
                at.add_scaled(&Affine::row_major(dims, 0..outer), inner as i64);
                at
            }
            (_, true) => Affine::row_major(dims, 0..self.body.parts[0]),
            (_, false) => Affine::row_major(dims, 0..dims.len()),
        }
    }

    fn member(&mut self, member: Value) -> Result<ExprId, Trouble> {
        let graph = self.graph;
        let node = graph.node(member);
        if node.op.class() == Class::Reduction {
            debug_assert!(reduction_extent(graph, member).1 > 1);
            let everywhere = Place::identity(&self.body.dims, 0..self.body.dims.len());
            let arg = self.value(node.args[0], &everywhere, &[])?;
            self.body.reductions.push(Reduction { is_sum: matches!(node.op, Op::Sum(_)), arg });
            let index = self.body.reductions.len() - 1;
            return Ok(self.expr(ExprKind::Reduced(index), DType::F32));
        }
        if node.op.class() == Class::Kernel {
            return Ok(self.expr(ExprKind::Product, node.ty.dtype));
        }
        let place = Place::Linear(self.home(member));
        self.compute(member, &place, &[])
    }

    /// The value at a place, from a register or from memory, or computed on the spot.
    fn value(&mut self, value: Value, place: &Place, guards: &[Guard]) -> Result<ExprId, Trouble> {
        if let Some(&expr) = self.members.get(&value) {
            let at = place.linear(self.graph.shape(value), self.body.dims.len());
            return if at == self.home(value) { Ok(expr) } else { Err(Trouble::Opaque) };
        }
        if self.clusters.is_materialised(self.graph, value) {
            let at = place.linear(self.graph.shape(value), self.body.dims.len());
            let dtype = self.graph.ty(value).dtype;
            return Ok(self.expr(ExprKind::Load { source: value, at, guards: guards.to_vec() }, dtype));
        }
        self.compute(value, place, guards)
    }

    fn compute(&mut self, value: Value, place: &Place, guards: &[Guard]) -> Result<ExprId, Trouble> {
        let graph = self.graph;
        let node = graph.node(value);
        let dtype = node.ty.dtype;
        match (&node.op, node.op.class()) {
            (Op::Constant(op), _) => Ok(self.expr(ExprKind::Constant(op.value), dtype)),
            (Op::Iota(op), _) => {
                let coords = place.coords(&node.ty.shape, &self.body.dims).inspect_err(|_| {
                    self.obstacle = Obstacle::NeedsMemory(value);
                })?;
                Ok(self.expr(ExprKind::Index(coords[op.axis].clone()), dtype))
            }
            (_, Class::View) => {
                let (place, guard) = through_view(graph, value, place, &self.body.dims).inspect_err(|_| {
                    self.obstacle = Obstacle::NeedsMemory(value);
                })?;
                let inner: Vec<Guard> = guards.iter().cloned().chain(guard.clone()).collect();
                let expr = self.value(node.args[0], &place, &inner)?;
                let is_load = matches!(self.body.exprs[expr].kind, ExprKind::Load { .. });
                match guard {
                    Some(guard) if !is_load => {
                        Ok(self.expr(ExprKind::Guarded { guards: vec![guard], value: expr }, dtype))
                    }
                    _ => Ok(expr),
                }
            }
            (op, Class::Elementwise) => {
                let args = node.args.iter().map(|&arg| self.value(arg, place, guards)).collect::<Result<_, _>>()?;
                Ok(self.expr(ExprKind::Apply { op: op.clone(), args }, dtype))
            }
            (op, class) => unreachable!("{op} ({class:?}) is in memory before it is read"),
        }
    }

    fn expr(&mut self, kind: ExprKind, dtype: DType) -> ExprId {
        let expr = Expr { kind, dtype };
        *self.known.entry(expr).or_insert_with_key(|expr| {
            self.body.exprs.push(expr.clone());
            self.body.exprs.len() - 1
        })
    }
}
