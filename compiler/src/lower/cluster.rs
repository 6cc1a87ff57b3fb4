//! Clustering: which values are computed together in one generated kernel.
//!
//! Every elementwise operation and reduction ends up in exactly one group, or is *inlined*: computed again wherever it is
//! read. A group becomes one kernel:
//!
//! * `Map`: values of one size, element by element;
//! * `Row`: the same around reductions over the last axis; values of one element a row take part;
//! * `Column`: one reduction over an axis that is not the last, with what is inlined into it;
//! * `Single`: a hand-tuned kernel, alone.
//!
//! Views belong to no group: a load computes its position through them. The exception are views that someone needs in
//! memory (`forced`); they are copies and behave like elementwise operations.

use std::collections::BTreeSet;

use super::affine::{Dims, Place, Trouble};
use super::views::through_view;
use crate::ir::{Graph, Value};
use crate::ops::{Class, Op};

/// Index of a group.
pub(crate) type GroupId = usize;

/// What a group's kernel does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `size` elements, each on its own.
    Map { size: usize },
    /// `rows` times a row of `columns`, with reductions over the row.
    Row { rows: usize, columns: usize },
    /// A reduction of the middle of `(outer, n, inner)`.
    Column { outer: usize, n: usize, inner: usize },
    /// A hand-tuned kernel.
    Single,
}

/// Values computed by one kernel, in topological order.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) kind: Kind,
    pub(crate) members: Vec<Value>,
}

/// A complete grouping.
pub(crate) struct Clusters {
    pub(crate) groups: Vec<Group>,
    group_of: Vec<Option<GroupId>>,
    inlined: Vec<bool>,
}

/// What the caller learnt from earlier attempts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hints {
    /// Values that must be in memory although they are views or could be inlined.
    pub(crate) forced: BTreeSet<Value>,
    /// Values that must start a group of their own.
    pub(crate) barred: BTreeSet<Value>,
}

/// How a value reads another that is in memory or in a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    /// The element at its own position.
    Identity,
    /// The element of its row, where rows are the leading axes.
    Leading { rows: usize },
    /// Anything else.
    Other,
}

impl Clusters {
    /// Groups the live values of a graph whose composites are expanded and whose reductions are in kernel form.
    pub(crate) fn new(graph: &Graph, hints: &Hints, max_inputs: usize) -> Self {
        let mut this =
            Self { groups: Vec::new(), group_of: vec![None; graph.len()], inlined: vec![false; graph.len()] };
        let live = graph.live();
        this.inline(graph, hints, &live);
        for value in graph.values().filter(|v| live[v.index()]) {
            let forced = hints.forced.contains(&value);
            match graph.node(value).op.class() {
                Class::Leaf => {}
                Class::Index | Class::View if !forced => {}
                Class::Elementwise if this.inlined[value.index()] => {}
                Class::Kernel => {
                    this.open(value, Kind::Single);
                }
                Class::Reduction => match reduction_extent(graph, value) {
                    (rows, columns, 1) => this.place(graph, value, Some((rows, columns)), hints, max_inputs),
                    (outer, n, inner) => {
                        this.open(value, Kind::Column { outer, n, inner });
                    }
                },
                Class::Elementwise | Class::Index | Class::View => this.place(graph, value, None, hints, max_inputs),
                Class::Composite => unreachable!("composites are expanded before clustering"),
            }
        }
        this
    }

    /// The group that computes a value.
    pub(crate) fn group_of(&self, value: Value) -> Option<GroupId> {
        self.group_of[value.index()]
    }

    /// The value whose memory (or register) holds `value`, looking through views and nothing else.
    pub(crate) fn is_materialised(&self, graph: &Graph, value: Value) -> bool {
        self.group_of(value).is_some() || graph.node(value).op.class() == Class::Leaf
    }

    /// Everything in memory that the group reads from outside, in order of first use.
    pub(crate) fn inputs(&self, graph: &Graph, group: GroupId) -> Vec<Value> {
        let mut inputs = Vec::new();
        for &member in &self.groups[group].members {
            for root in self.roots(graph, member) {
                if self.group_of(root) != Some(group) && !inputs.contains(&root) {
                    inputs.push(root);
                }
            }
        }
        inputs
    }

    /// The materialised values that a value is computed from.
    pub(crate) fn roots(&self, graph: &Graph, value: Value) -> Vec<Value> {
        let mut roots = Vec::new();
        let mut stack: Vec<Value> = graph.node(value).args.iter().rev().copied().collect();
        while let Some(value) = stack.pop() {
            if self.is_materialised(graph, value) {
                if !roots.contains(&value) {
                    roots.push(value);
                }
            } else {
                stack.extend(graph.node(value).args.iter().rev());
            }
        }
        roots
    }

    /// Decides which elementwise values are computed where they are read: those made of indices alone, and those read
    /// once, at positions other than their own or by a column reduction.
    fn inline(&mut self, graph: &Graph, hints: &Hints, live: &[bool]) {
        let is_output: BTreeSet<Value> = graph.outputs().iter().map(|&(_, value)| value).collect();
        // (number of readers, some reader that wants it inlined), looking through views.
        let mut readers = vec![0usize; graph.len()];
        let mut moved = vec![false; graph.len()];
        let mut needs_memory = vec![false; graph.len()];
        for value in graph.values().rev().filter(|v| live[v.index()]) {
            let node = graph.node(value);
            let forced = hints.forced.contains(&value);
            for arg in &node.args {
                let at = arg.index();
                match node.op.class() {
                    Class::View if !forced => {
                        readers[at] += readers[value.index()].max(usize::from(is_output.contains(&value)));
                        // Repeating a value would repeat its computation.
                        let repeats = matches!(node.op, Op::Expand(_));
                        needs_memory[at] |= needs_memory[value.index()] || repeats || is_output.contains(&value);
                        moved[at] |=
                            moved[value.index()] || matches!(node.op, Op::Permute(_) | Op::Slice(_) | Op::Pad(_));
                    }
                    Class::Kernel => {
                        readers[at] += 1;
                        needs_memory[at] = true;
                    }
                    Class::Reduction => {
                        readers[at] += 1;
                        moved[at] |= reduction_extent(graph, value).2 != 1;
                    }
                    _ => {
                        readers[at] += 1;
                        moved[at] |= forced;
                    }
                }
            }
        }
        for value in graph.values().filter(|v| live[v.index()]) {
            let at = value.index();
            let node = graph.node(value);
            if node.op.class() != Class::Elementwise || is_output.contains(&value) || hints.forced.contains(&value) {
                continue;
            }
            let of_indices = node.args.iter().all(|&arg| self.of_indices(graph, arg));
            let in_place = readers[at] == 1 && moved[at] && !needs_memory[at];
            self.inlined[at] = of_indices || in_place;
        }
    }

    /// Whether a value is computed from indices and numbers alone.
    fn of_indices(&self, graph: &Graph, value: Value) -> bool {
        let node = graph.node(value);
        match node.op.class() {
            Class::Index => true,
            Class::View => self.of_indices(graph, node.args[0]),
            Class::Elementwise => {
                self.inlined[value.index()] && node.args.iter().all(|&arg| self.of_indices(graph, arg))
            }
            Class::Leaf | Class::Reduction | Class::Kernel | Class::Composite => false,
        }
    }

    fn open(&mut self, value: Value, kind: Kind) {
        self.group_of[value.index()] = Some(self.groups.len());
        self.groups.push(Group { kind, members: vec![value] });
    }

    /// Puts a value into the latest group that can take it, or into a new one. `row` is the extent of a row reduction.
    fn place(&mut self, graph: &Graph, value: Value, row: Option<(usize, usize)>, hints: &Hints, max_inputs: usize) {
        let reads = self.relations(graph, value, row.is_some());
        let mut candidates: Vec<GroupId> = reads.iter().filter_map(|&(root, _)| self.group_of(root)).collect();
        candidates.sort_unstable();
        candidates.dedup();
        if !hints.barred.contains(&value) {
            for &group in candidates.iter().rev() {
                let Some(kind) = self.joined_kind(graph, group, value, row, &reads) else { continue };
                let others = reads.iter().filter_map(|&(root, _)| self.group_of(root)).filter(|&g| g != group);
                if others.into_iter().any(|other| self.depends(graph, other, group)) {
                    continue;
                }
                self.group_of[value.index()] = Some(group);
                self.groups[group].members.push(value);
                if self.inputs(graph, group).len() > max_inputs {
                    self.groups[group].members.pop();
                    self.group_of[value.index()] = None;
                    continue;
                }
                self.groups[group].kind = kind;
                return;
            }
        }
        let size = graph.ty(value).len();
        self.open(value, row.map_or(Kind::Map { size }, |(rows, columns)| Kind::Row { rows, columns }));
    }

    /// The kind of `group` after `value` joined, if what `value` reads from the group allows it.
    fn joined_kind(
        &self,
        graph: &Graph,
        group: GroupId,
        value: Value,
        row: Option<(usize, usize)>,
        reads: &[(Value, Relation)],
    ) -> Option<Kind> {
        let size = graph.ty(value).len();
        let here: Vec<(usize, Relation)> = reads
            .iter()
            .filter(|&&(root, _)| self.group_of(root) == Some(group))
            .map(|&(root, relation)| (graph.ty(root).len(), relation))
            .collect();
        let kind = self.groups[group].kind;
        let (rows, columns) = match (kind, row) {
            (Kind::Row { rows, columns }, _) => (rows, columns),
            (Kind::Map { size }, Some((rows, columns))) if rows * columns == size => (rows, columns),
            (Kind::Map { size: full }, None) => {
                let fits = full == size && here.iter().all(|&(_, relation)| relation == Relation::Identity);
                return fits.then_some(kind);
            }
            _ => return None,
        };
        let full = rows * columns;
        let fits = match row {
            Some(extent) => {
                extent == (rows, columns)
                    && here.iter().all(|&(len, relation)| match relation {
                        Relation::Identity => len == full,
                        Relation::Leading { rows: leading } => leading == rows && len == rows,
                        Relation::Other => false,
                    })
            }
            None if size == full => here.iter().all(|&(len, relation)| match relation {
                Relation::Identity => len == full,
                Relation::Leading { rows: leading } => leading == rows && len == rows,
                Relation::Other => false,
            }),
            None => size == rows && here.iter().all(|&(len, relation)| len == rows && relation == Relation::Identity),
        };
        fits.then_some(Kind::Row { rows, columns })
    }

    /// Whether `group` needs results of `target`, directly or not.
    fn depends(&self, graph: &Graph, group: GroupId, target: GroupId) -> bool {
        let first = self.groups[target].members[0];
        let mut seen = BTreeSet::new();
        let mut stack = vec![group];
        while let Some(group) = stack.pop() {
            if group == target {
                return true;
            }
            // A group whose last member is above the target's first cannot need it.
            if !seen.insert(group) || self.groups[group].members.last().is_none_or(|&last| last < first) {
                continue;
            }
            for &member in &self.groups[group].members {
                stack.extend(
                    self.roots(graph, member)
                        .into_iter()
                        .filter_map(|root| self.group_of(root))
                        .filter(|&g| g != group),
                );
            }
        }
        false
    }

    /// What a value reads, and how. A reduction's positions are those of its argument.
    fn relations(&self, graph: &Graph, value: Value, reduction: bool) -> Vec<(Value, Relation)> {
        let node = graph.node(value);
        let domain = if reduction { graph.shape(node.args[0]) } else { &node.ty.shape };
        let mut dims: Dims = domain.iter().copied().filter(|&extent| extent != 1).collect();
        loop {
            let identity = Place::identity(&dims, 0..dims.len());
            let mut found = Vec::new();
            let result = match node.op.class() {
                Class::View => through_view(graph, value, &identity, &dims)
                    .and_then(|(place, _)| self.walk(graph, node.args[0], &place, &dims, &mut found)),
                _ => node.args.iter().try_for_each(|&arg| self.walk(graph, arg, &identity, &dims, &mut found)),
            };
            match result {
                Ok(()) => return found,
                Err(Trouble::Split { dim, inner }) => split(&mut dims, dim, inner),
                Err(Trouble::Opaque) => {
                    return self.roots(graph, value).into_iter().map(|root| (root, Relation::Other)).collect();
                }
            }
        }
    }

    fn walk(
        &self,
        graph: &Graph,
        value: Value,
        place: &Place,
        dims: &[usize],
        found: &mut Vec<(Value, Relation)>,
    ) -> Result<(), Trouble> {
        if self.is_materialised(graph, value) {
            found.push((value, relation(graph, value, place, dims)));
            return Ok(());
        }
        let node = graph.node(value);
        match node.op.class() {
            Class::View => {
                let (place, _) = through_view(graph, value, place, dims)?;
                self.walk(graph, node.args[0], &place, dims, found)
            }
            _ => node.args.iter().try_for_each(|&arg| self.walk(graph, arg, place, dims, found)),
        }
    }
}

/// `(outer, n, inner)` of a reduction in kernel form; `inner` is 1 for a row reduction.
pub(crate) fn reduction_extent(graph: &Graph, value: Value) -> (usize, usize, usize) {
    let source = graph.shape(graph.node(value).args[0]);
    (source[0], source[1], source.get(2).copied().unwrap_or(1))
}

/// Splits a dimension into `(extent / inner, inner)`.
pub(crate) fn split(dims: &mut Dims, dim: usize, inner: usize) {
    dims[dim] /= inner;
    dims.insert(dim + 1, inner);
}

fn relation(graph: &Graph, root: Value, place: &Place, dims: &[usize]) -> Relation {
    let linear = place.linear(graph.shape(root), dims.len());
    let len = graph.ty(root).len();
    let mut product = 1;
    for end in 0..=dims.len() {
        if end > 0 {
            product *= dims[end - 1];
        }
        if product == len && Place::identity(dims, 0..end) == Place::Linear(linear.clone()) {
            return if end == dims.len() { Relation::Identity } else { Relation::Leading { rows: len } };
        }
    }
    Relation::Other
}
