//! Clustering: which values are computed together in one generated kernel.
//!
//! Every elementwise operation and reduction ends up in exactly one group, or is *inlined*: computed again wherever it is
//! read. A group becomes one kernel:
//!
//! * `Map`: values of one size, element by element;
//! * `Row`: the same around reductions over the last axis; values of one element a row take part;
//! * `Column`: one reduction over an axis that is not the last, with what is inlined into it;
//! * `Product`: a matrix product, and what follows it element by element;
//! * `Single`: another hand-tuned kernel, alone, or with *mates* that its one launch computes as well.
//!
//! Views belong to no group: a load computes its position through them. The exception are views that someone needs in
//! memory (`forced`); they are copies and behave like elementwise operations.

mod mates;
mod repeated;

use std::collections::BTreeSet;

use super::affine::{Dims, Place, Trouble};
use super::single::takes_epilogue;
use super::views::through_view;
use crate::ir::{Graph, Value};
use crate::ops::{Class, Op};
use crate::passes::remat::RECOMPUTE;

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
    /// A matrix product of this many rows (of all matrices) and columns, and the elementwise values that its epilogue
    /// computes.
    Product { rows: usize, columns: usize },
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
    /// Members that other groups compute once more instead of reading them.
    repeated: Vec<bool>,
}

/// What the caller learnt from earlier attempts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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

/// Who reads a value, looking through views.
#[derive(Clone, Copy, Debug, Default)]
struct Readers {
    count: usize,
    /// Some reader is at other positions than the value, or reduces columns.
    moved: bool,
    /// Some reader can only read memory.
    need_memory: bool,
}

impl Readers {
    /// A sum with a product stays with it: the epilogue has the elements at hand, a reader would have to read all summands.
    fn take_it_inlined(self, graph: &Graph, value: Value) -> bool {
        let node = graph.node(value);
        let is_product = |&arg: &Value| matches!(graph.node(arg).op, Op::Dot(_));
        let adds_product = matches!(node.op, Op::Add(_)) && node.args.iter().any(is_product);
        self.count == 1 && self.moved && !self.need_memory && !adds_product
    }
}

impl Clusters {
    /// Groups the live values of a graph whose composites without a kernel are expanded and whose reductions are in kernel form.
    pub(crate) fn new(graph: &Graph, hints: &Hints, max_inputs: usize) -> Self {
        let mut this = Self {
            groups: Vec::new(),
            group_of: vec![None; graph.len()],
            inlined: vec![false; graph.len()],
            repeated: vec![false; graph.len()],
        };
        let live = graph.live();
        let readers = this.inline(graph, hints, &live);
        for value in graph.values().filter(|v| live[v.index()]) {
            let forced = hints.forced.contains(&value);
            match graph.node(value).op.class() {
                Class::Leaf => {}
                Class::Index | Class::View if !forced => {}
                Class::Elementwise if this.inlined[value.index()] => {}
                Class::Kernel | Class::Composite => match this.mate(graph, value, hints) {
                    Some(group) => this.join(value, group),
                    None => this.open(value, kernel_kind(graph, value)),
                },
                Class::Reduction => match reduction_extent(graph, value) {
                    (rows, columns, 1) => this.place(graph, value, Some((rows, columns)), hints, max_inputs),
                    (outer, n, inner) => {
                        this.open(value, Kind::Column { outer, n, inner });
                    }
                },
                Class::Elementwise | Class::Index | Class::View => this.place(graph, value, None, hints, max_inputs),
            }
        }
        this.compact();
        this.repeat(graph, hints, max_inputs, &readers);
        this
    }

    /// Removes groups that others have taken in.
    fn compact(&mut self) {
        self.groups.retain(|group| !group.members.is_empty());
        for (id, group) in self.groups.iter().enumerate() {
            for member in &group.members {
                self.group_of[member.index()] = Some(id);
            }
        }
    }

    /// The group that computes a value.
    pub(crate) fn group_of(&self, value: Value) -> Option<GroupId> {
        self.group_of[value.index()]
    }

    /// Whether a value is in memory for those outside its group.
    pub(crate) fn is_materialised(&self, graph: &Graph, value: Value) -> bool {
        let is_member = self.group_of(value).is_some() && !self.repeated[value.index()];
        is_member || graph.node(value).op.class() == Class::Leaf
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
    fn inline(&mut self, graph: &Graph, hints: &Hints, live: &[bool]) -> Vec<Readers> {
        let is_output: BTreeSet<Value> = graph.outputs().iter().map(|&(_, value)| value).collect();
        let mut readers = vec![Readers::default(); graph.len()];
        for value in graph.values().rev().filter(|v| live[v.index()]) {
            let node = graph.node(value);
            let forced = hints.forced.contains(&value);
            let own = readers[value.index()];
            for arg in &node.args {
                let of_arg = &mut readers[arg.index()];
                match node.op.class() {
                    Class::View if !forced => {
                        of_arg.count += own.count.max(usize::from(is_output.contains(&value)));
                        // Repeating a value would repeat its computation.
                        let repeats = matches!(node.op, Op::Expand(_));
                        of_arg.need_memory |= own.need_memory || repeats || is_output.contains(&value);
                        of_arg.moved |= own.moved || matches!(node.op, Op::Permute(_) | Op::Slice(_) | Op::Pad(_));
                    }
                    Class::Kernel | Class::Composite => {
                        of_arg.count += 1;
                        of_arg.need_memory = true;
                    }
                    Class::Reduction => {
                        of_arg.count += 1;
                        of_arg.moved |= reduction_extent(graph, value).2 != 1;
                    }
                    _ => {
                        of_arg.count += 1;
                        // What an inlined value reads moves with it.
                        of_arg.moved |= forced || (own.take_it_inlined(graph, value) && !is_output.contains(&value));
                    }
                }
            }
        }
        for value in graph.values().filter(|v| live[v.index()]) {
            let node = graph.node(value);
            if node.op.class() != Class::Elementwise || is_output.contains(&value) || hints.forced.contains(&value) {
                continue;
            }
            let of_indices = node.args.iter().all(|&arg| self.of_indices(graph, arg));
            self.inlined[value.index()] = of_indices || readers[value.index()].take_it_inlined(graph, value);
        }
        readers
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
        let reads = self.relations(graph, value);
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
                for &other in candidates.iter().filter(|&&other| other != group) {
                    self.merge(graph, group, other, hints, max_inputs);
                }
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
        let own = row.map_or(Kind::Map { size: graph.ty(value).len() }, |(rows, columns)| Kind::Row { rows, columns });
        let kind = match (self.groups[group].kind, own) {
            // A value of one element a row takes part in the rows' group.
            (kind @ Kind::Row { rows, .. }, Kind::Map { size }) if size == rows => kind,
            // Products are stored as reals, and so is all that their kernels write.
            (kind @ Kind::Product { rows, columns }, Kind::Map { size })
                if size == rows * columns
                    && graph.ty(value).dtype.storage().is_some()
                    && takes_epilogue(graph, self.groups[group].members[0], value) =>
            {
                kind
            }
            (kind, own) => unified(kind, own)?,
        };
        self.fits(graph, kind, group, value, reads).then_some(kind)
    }

    /// Whether a value of a group of this kind reads only elements of `group` that its own work item has.
    fn fits(&self, graph: &Graph, kind: Kind, group: GroupId, value: Value, reads: &[(Value, Relation)]) -> bool {
        let (rows, full) = match kind {
            Kind::Map { size } => (None, size),
            Kind::Row { rows, columns } => (Some(rows), rows * columns),
            Kind::Product { rows, columns } => (None, rows * columns),
            Kind::Column { .. } | Kind::Single => return false,
        };
        let node = graph.node(value);
        // A reduction reads at its argument's positions.
        let domain = if node.op.class() == Class::Reduction { node.args[0] } else { value };
        let domain = graph.ty(domain).len();
        reads.iter().filter(|&&(root, _)| self.group_of(root) == Some(group)).all(|&(root, relation)| {
            let len = graph.ty(root).len();
            match relation {
                Relation::Identity => len == domain && (len == full || Some(len) == rows),
                Relation::Leading { rows: leading } => domain == full && Some(leading) == rows && len == leading,
                Relation::Other => false,
            }
        })
    }

    /// Moves the members of `from` into `into` if one kernel can compute both.
    fn merge(&mut self, graph: &Graph, into: GroupId, from: GroupId, hints: &Hints, max_inputs: usize) {
        let Some(kind) = unified(self.groups[into].kind, self.groups[from].kind) else { return };
        let mut members = self.groups[into].members.iter().chain(&self.groups[from].members);
        if members.any(|member| hints.barred.contains(member)) {
            return;
        }
        let reads_fit = |this: &Self, members: GroupId, other: GroupId| {
            this.groups[members].members.iter().all(|&member| {
                let reads = this.relations(graph, member);
                this.fits(graph, kind, other, member, &reads)
            })
        };
        if !reads_fit(self, into, from) || !reads_fit(self, from, into) {
            return;
        }
        // A kernel between the two would have to run before and after the merged one.
        let between = |this: &Self, user: GroupId, source: GroupId| {
            this.sources(graph, user).into_iter().any(|group| group != source && this.depends(graph, group, source))
        };
        if between(self, into, from) || between(self, from, into) {
            return;
        }
        let before = [into, from].map(|group| self.groups[group].clone());
        let moved = std::mem::take(&mut self.groups[from].members);
        for &member in &moved {
            self.group_of[member.index()] = Some(into);
        }
        let target = &mut self.groups[into];
        target.kind = kind;
        target.members.extend(&moved);
        target.members.sort_unstable();
        if self.inputs(graph, into).len() > max_inputs {
            for &member in &moved {
                self.group_of[member.index()] = Some(from);
            }
            [self.groups[into], self.groups[from]] = before;
        }
    }

    /// The groups that a group reads from.
    fn sources(&self, graph: &Graph, group: GroupId) -> BTreeSet<GroupId> {
        let members = self.groups[group].members.iter();
        let roots = members.flat_map(|&member| self.roots(graph, member));
        roots.filter_map(|root| self.group_of(root)).filter(|&source| source != group).collect()
    }

    /// Whether `group` needs results of `target`, directly or not.
    fn depends(&self, graph: &Graph, group: GroupId, target: GroupId) -> bool {
        let Some(&first) = self.groups[target].members.first() else { return false };
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
            stack.extend(self.sources(graph, group));
        }
        false
    }

    /// What a value reads, and how. A reduction's positions are those of its argument.
    fn relations(&self, graph: &Graph, value: Value) -> Vec<(Value, Relation)> {
        let node = graph.node(value);
        let domain = match node.op.class() {
            Class::Reduction => graph.shape(node.args[0]),
            _ => &node.ty.shape,
        };
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
            // A second computation must not join the kernel that made its input: it would run there and then.
            Class::View if matches!(&node.op, Op::Tag(tag) if tag.label == RECOMPUTE) => {
                let roots = self.roots(graph, value).into_iter();
                found.extend(roots.map(|root| (root, Relation::Other)));
                Ok(())
            }
            Class::View => {
                let (place, _) = through_view(graph, value, place, dims)?;
                self.walk(graph, node.args[0], &place, dims, found)
            }
            _ => node.args.iter().try_for_each(|&arg| self.walk(graph, arg, place, dims, found)),
        }
    }
}

/// The kind of one kernel for the work of two, if there is one.
fn unified(a: Kind, b: Kind) -> Option<Kind> {
    match (a, b) {
        (Kind::Map { .. } | Kind::Row { .. }, _) if a == b => Some(a),
        (Kind::Map { size }, row @ Kind::Row { rows, columns })
        | (row @ Kind::Row { rows, columns }, Kind::Map { size })
            if rows * columns == size =>
        {
            Some(row)
        }
        _ => None,
    }
}

fn kernel_kind(graph: &Graph, value: Value) -> Kind {
    match graph.node(value).op {
        Op::Dot(_) | Op::DotTiles(_) => {
            let columns = graph.shape(value).last().copied().unwrap_or(1);
            Kind::Product { rows: graph.ty(value).len() / columns, columns }
        }
        _ => Kind::Single,
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
