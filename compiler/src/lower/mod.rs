//! From a graph of primitives and composites with kernels to a list of kernel launches.
//!
//! [`cluster`] decides which values are computed together, [`body`] turns a group into expressions over a loop nest and
//! [`emit`] into WGSL; [`single`] links the hand-tuned kernels. Where a group turns out to need a value in memory that
//! clustering left out, lowering starts again with that hint: each round forces at least one more value, so it ends.

mod affine;
mod body;
mod cluster;
mod emit;
mod narrowed;
mod single;
mod views;

use std::collections::{BTreeSet, HashMap};

use viral_shaders::{Kernel, Target};

use crate::ir::{Graph, LeafKind, Value};
use crate::ops::{Class, Op};
use affine::Affine;
use body::{Body, ExprKind, Obstacle};
use cluster::{Clusters, GroupId, Hints, Kind};

pub(crate) use narrowed::narrowed;
pub(crate) use single::Tiled;

/// One kernel launch over values in memory.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) kernel: Kernel,
    pub(crate) params: Vec<u32>,
    pub(crate) groups: [u32; 3],
    /// The value whose memory each storage binding is.
    pub(crate) bindings: Vec<Value>,
    /// Values read.
    pub(crate) reads: Vec<Value>,
    /// Values written.
    pub(crate) writes: Vec<Value>,
    /// Values that must be zero before the launch.
    pub(crate) clears: Vec<Value>,
    /// The first value that the launch computes, whether it is stored or not.
    pub(crate) birth: Value,
    pub(crate) label: String,
    pub(crate) flops: u64,
    pub(crate) traffic: u64,
    /// What is computed, where it is a product that a tiling was chosen for.
    pub(crate) product: Option<Tiled>,
}

/// Where the outside keeps a leaf or an output.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Placement {
    /// Name of the external buffer.
    pub buffer: String,
    /// First byte in it.
    pub offset: u64,
}

/// Which memory holds which value.
pub(crate) struct Memory {
    /// Outputs that replace a state tensor, with the leaf whose memory they take.
    replaced: HashMap<Value, Value>,
    /// Leaves and outputs in external buffers.
    pub(crate) external: HashMap<Value, Placement>,
}

impl Memory {
    /// Finds the external values of a graph. `places` overrides the default, a buffer named like the leaf or output.
    pub(crate) fn new(graph: &Graph, places: &HashMap<String, Placement>) -> Self {
        let place =
            |name: &str| places.get(name).cloned().unwrap_or_else(|| Placement { buffer: name.to_owned(), offset: 0 });
        let mut external: HashMap<Value, Placement> = HashMap::new();
        let mut states = HashMap::new();
        for leaf in graph.leaves() {
            external.insert(leaf.value, place(leaf.name));
            if matches!(leaf.kind, LeafKind::State | LeafKind::Param) {
                states.insert(place(leaf.name), leaf.value);
            }
        }
        let mut replaced = HashMap::new();
        for (name, value) in graph.outputs() {
            let place = place(name);
            if let Some(&state) = states.get(&place) {
                replaced.insert(*value, state);
            }
            external.insert(*value, place);
        }
        Self { replaced, external }
    }

    /// The value whose memory holds `value`.
    pub(crate) fn of(&self, value: Value) -> Value {
        self.replaced.get(&value).copied().unwrap_or(value)
    }

    /// The state tensor that a value replaces.
    pub(crate) fn replaces(&self, value: Value) -> Option<Value> {
        self.replaced.get(&value).copied()
    }

    fn share_buffer(&self, a: Value, b: Value) -> bool {
        let buffer = |value| self.external.get(&value).map(|place| &place.buffer);
        buffer(a).is_some() && buffer(a) == buffer(b)
    }
}

/// Why a graph cannot be lowered as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The kernel that makes this output still needs what lies in the output's place: the output must be a copy.
    SetAside(Value),
    /// There is no grouping: a bug.
    Stuck,
}

/// Lowers a graph of primitives to kernel launches in no particular order.
pub(crate) fn lower(graph: &Graph, memory: &Memory, target: &Target) -> Result<Vec<Step>, Failure> {
    let mut hints = Hints::default();
    for &(_, value) in graph.outputs() {
        // An output must be in memory by itself, even if it is a view or a number.
        if matches!(graph.node(value).op.class(), Class::View | Class::Index) {
            hints.forced.insert(value);
        }
        // A copy into a state's place waits for the state's last reader, which what it copies must not: that is somewhere
        // else before.
        if memory.replaces(value).is_some() && matches!(graph.node(value).op, Op::Tag(_)) {
            hints.barred.insert(value);
            let copied = graph.node(value).args.iter().copied();
            hints.forced.extend(copied.filter(|&value| graph.node(value).op.class() != Class::Index));
        }
    }
    // Every storage binding beyond the results can be an input; one result at least there must be.
    let max_inputs = target.max_storage_buffers as usize - 1;
    loop {
        let clusters = Clusters::new(graph, &hints, max_inputs);
        let stored = stored_values(graph, &clusters);
        let mut steps = Vec::new();
        let mut obstacles = Vec::new();
        for (group, stored) in stored.iter().enumerate() {
            match lower_group(graph, &clusters, group, stored, memory, target) {
                Ok(step) => steps.push(step),
                Err(obstacle) => obstacles.push((obstacle, &clusters.groups[group].members)),
            }
        }
        if obstacles.is_empty() {
            return Ok(steps);
        }
        let before = hints.clone();
        for (obstacle, members) in obstacles {
            let is_known = match obstacle {
                Obstacle::NeedsMemory(value) => {
                    hints.forced.insert(value);
                    before.forced.contains(&value)
                }
                Obstacle::NeedsGroup(value) => {
                    hints.barred.insert(value);
                    before.barred.contains(&value)
                }
                Obstacle::SetAside(value) => return Err(Failure::SetAside(value)),
            };
            // The hint did not help: the members do not go together.
            if is_known && members.len() > 1 {
                hints.barred.insert(members[members.len() - 1]);
            }
        }
        if hints == before {
            return Err(Failure::Stuck);
        }
    }
}

/// For every group, the members that are read by other groups or are outputs.
fn stored_values(graph: &Graph, clusters: &Clusters) -> Vec<Vec<Value>> {
    let mut read: BTreeSet<Value> = graph.outputs().iter().map(|&(_, value)| value).collect();
    for group in 0..clusters.groups.len() {
        read.extend(clusters.inputs(graph, group));
    }
    clusters.groups.iter().map(|group| group.members.iter().copied().filter(|m| read.contains(m)).collect()).collect()
}

fn lower_group(
    graph: &Graph,
    clusters: &Clusters,
    group: GroupId,
    stored: &[Value],
    memory: &Memory,
    target: &Target,
) -> Result<Step, Obstacle> {
    if matches!(clusters.groups[group].kind, Kind::Product { .. } | Kind::Single) {
        return single::lower(graph, clusters, &clusters.groups[group], stored, memory, target);
    }
    let kind = clusters.groups[group].kind;
    let body = Body::new(graph, clusters, &clusters.groups[group], stored)?;
    if let Some(value) = overwritten_early(&body, memory) {
        return Err(Obstacle::SetAside(value));
    }
    let members = &clusters.groups[group].members;
    let (first, last) = (members[0], members[members.len() - 1]);
    let label = graph.name(last).or(graph.name(first)).unwrap_or("").to_owned();
    // Views in memory are copies; what is computed before them says more.
    let computed = members.iter().rev().map(|&member| &graph.node(member).op).find(|op| op.class() != Class::View);
    let name = format!("{}_{}", kind_name(kind), computed.map_or("copy", Op::name));
    let emitted = emit::emit(graph, &body, kind, name, &|v| memory.of(v), &|a, b| memory.share_buffer(a, b), target);
    // By itself such a value can be stored, or else as a copy of what is in memory.
    let emitted = emitted.map_err(|value| match members.len() {
        1 => Obstacle::NeedsMemory(graph.node(value).args[0]),
        _ => Obstacle::NeedsGroup(value),
    })?;
    if emitted.bindings.len() > target.max_storage_buffers as usize {
        // Too many inputs and results together: the last member leaves, or what is computed on its way is stored.
        let inputs = target.max_storage_buffers as usize - 1;
        return Err(match members.len() {
            1 => Obstacle::NeedsMemory(largest_part(graph, clusters, last, inputs).unwrap_or(last)),
            _ => Obstacle::NeedsGroup(last),
        });
    }
    let points: u64 = body.dims.iter().map(|&extent| extent as u64).product();
    let operations = body.exprs.iter().filter(|expr| matches!(expr.kind, ExprKind::Apply { .. })).count() as u64;
    let mut reads: Vec<Value> = Vec::new();
    for expr in &body.exprs {
        if let ExprKind::Load { source, .. } = expr.kind
            && !reads.contains(&source)
        {
            reads.push(source);
        }
    }
    let writes: Vec<Value> = body.stores.iter().map(|store| store.value).collect();
    let traffic = reads.iter().chain(&writes).map(|&value| graph.ty(value).bytes()).sum();
    Ok(Step {
        kernel: emitted.kernel,
        params: emitted.params,
        groups: emitted.groups,
        bindings: emitted.bindings,
        reads,
        writes,
        clears: Vec::new(),
        birth: first,
        label,
        flops: points * (operations + body.reductions.len() as u64),
        traffic,
        product: None,
    })
}

/// A result that would overwrite elements of a state tensor which other work items of the kernel still have to read.
fn overwritten_early(body: &Body, memory: &Memory) -> Option<Value> {
    let reads_elsewhere = |state: Value, home: &Affine| {
        body.exprs.iter().any(|expr| match &expr.kind {
            ExprKind::Load { source, at, .. } => *source == state && at != home,
            _ => false,
        })
    };
    let mut stores = body.stores.iter();
    let early = stores.find(|store| memory.replaces(store.value).is_some_and(|s| reads_elsewhere(s, &store.at)));
    early.map(|store| store.value)
}

/// Among the values that are computed inside the kernel of `member`, the one with the most inputs that fit one kernel.
fn largest_part(graph: &Graph, clusters: &Clusters, member: Value, max_inputs: usize) -> Option<Value> {
    let mut best: Option<(usize, Value)> = None;
    let mut seen = BTreeSet::new();
    let mut stack = graph.node(member).args.clone();
    while let Some(value) = stack.pop() {
        if clusters.is_materialised(graph, value) || !seen.insert(value) {
            continue;
        }
        let inputs = clusters.roots(graph, value).len();
        let is_computed = graph.node(value).op.class() == Class::Elementwise;
        if is_computed && (2..=max_inputs).contains(&inputs) {
            best = best.max(Some((inputs, value)));
        }
        stack.extend(&graph.node(value).args);
    }
    best.map(|(_, value)| value)
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Map { .. } => "map",
        Kind::Row { .. } => "row",
        Kind::Column { .. } => "column",
        Kind::Product { .. } | Kind::Single => "single",
    }
}
