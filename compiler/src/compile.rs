//! The pipeline, from top to bottom.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use viral_shaders::Target;

use crate::ir::{Graph, LeafKind, Value, VerifyError};
use crate::lower::{self, Failure, Memory, Placement, Step};
use crate::memory::{self, SlotPlan};
use crate::passes::{self, Pass, Remat};
use crate::plan::{Bind, BufferDecl, BufferId, BufferRole, Command, Dispatch, KernelId, MemoryReport, Plan, Port};
use crate::schedule::schedule;
use crate::types::{DType, TensorType};

/// What compilation depends on beside the graph.
#[derive(Clone, Debug)]
pub struct Options {
    /// The device.
    pub target: Target,
    /// External buffers of leaves and outputs by name; by default each has a buffer of its own name.
    pub places: HashMap<String, Placement>,
    /// Optional passes that are left out, for finding out which one is to blame.
    pub skip: BTreeSet<Pass>,
    /// Storage types of frozen tensors by name; the others are stored as they are computed with.
    pub storage: BTreeMap<String, DType>,
    /// What kernels keep in memory for one another: `f32`, or a storage type without scales.
    pub activations: DType,
    /// First parts of the names of values that stay `f32` all the same.
    pub exact: &'static [&'static str],
    /// Products whose rows, columns and terms are all at least this many are computed by cooperative matrices, where the target
    /// has them, from operands that are rounded to 16-bit floats; `None` leaves operands as they are.
    pub cooperative: Option<usize>,
    /// What the backward pass computes again.
    pub remat: Remat,
    /// Whether composites that have a hand-tuned kernel are computed by it; by their expansions otherwise.
    pub fused: bool,
}

impl Options {
    /// Everything by default, for a device.
    pub fn new(target: Target) -> Self {
        Self {
            target,
            places: HashMap::new(),
            skip: BTreeSet::new(),
            storage: BTreeMap::new(),
            activations: DType::F32,
            exact: &[],
            cooperative: None,
            remat: Remat::None,
            fused: true,
        }
    }
}

/// A graph that cannot become a plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// The graph is not well formed.
    #[error("{stage}: {error}")]
    Verify {
        /// After which pass.
        stage: &'static str,
        /// What does not hold.
        error: VerifyError,
    },
    /// A tensor has no elements, and so no memory that a kernel could bind.
    #[error("`{name}` is {ty}: a tensor without elements cannot be computed; leave it out of the graph")]
    Empty {
        /// The tensor's name in the model.
        name: String,
        /// Its type.
        ty: TensorType,
    },
    /// A tensor is larger than the device can bind at once.
    #[error(
        "`{name}` ({bytes} bytes) is larger than the {limit} bytes that this device binds at once; use a smaller batch or a shorter sequence"
    )]
    TooLarge {
        /// The tensor's name in the model.
        name: String,
        /// Its size.
        bytes: u64,
        /// The device's limit.
        limit: u64,
    },
    /// Lowering makes no progress: a bug.
    #[error("lowering found no grouping of the graph")]
    Stuck,
    /// The slot assignment is wrong: a bug.
    #[error("memory plan: {0}")]
    Memory(String),
}

/// Compiles a graph. The same graph and options give the same plan, byte for byte.
pub fn compile(graph: &Graph, options: &Options) -> Result<Plan, CompileError> {
    compile_traced(graph, options, &mut |_, _| {})
}

/// Like [`compile`], and shows the graph after every pass, for dumps.
pub fn compile_traced(
    graph: &Graph,
    options: &Options,
    trace: &mut dyn FnMut(&'static str, &Graph),
) -> Result<Plan, CompileError> {
    let (graph, memory, steps) = lowered(graph, options, trace)?;
    let slots = memory::assign(&graph, &steps, &memory);
    memory::check(&graph, &steps, &memory, &slots).map_err(CompileError::Memory)?;
    assemble(&graph, &steps, &memory, &slots, &options.target)
}

/// The first half of [`compile_traced`]: kernel launches in order, and the graph that they compute.
pub(crate) fn lowered(
    graph: &Graph,
    options: &Options,
    trace: &mut dyn FnMut(&'static str, &Graph),
) -> Result<(Graph, Memory, Vec<Step>), CompileError> {
    let verified = |stage, graph: &Graph| graph.verify().map_err(|error| CompileError::Verify { stage, error });
    verified("build", graph)?;
    let live = graph.live();
    if let Some(value) = graph.values().find(|value| live[value.index()] && graph.ty(*value).is_empty()) {
        return Err(CompileError::Empty { name: name_of(graph, value), ty: graph.ty(value).clone() });
    }
    trace("build", graph);
    let mut graph = passes::remat::apply(graph, options.remat);
    verified("remat", &graph)?;
    trace("remat", &graph);
    for pass in Pass::ALL {
        if !(pass.optional() && options.skip.contains(&pass)) {
            graph = pass.run(&graph, options);
            verified(pass.name(), &graph)?;
            trace(pass.name(), &graph);
        }
    }
    if options.activations.is_storage() {
        graph = lower::narrowed(&graph, options);
        verified("precision", &graph)?;
        trace("precision", &graph);
    }
    launches(graph, options)
}

/// Kernel launches in order. Where an output cannot be made in its place, because something there is still needed, it
/// becomes a copy and lowering starts again.
fn launches(mut graph: Graph, options: &Options) -> Result<(Graph, Memory, Vec<Step>), CompileError> {
    loop {
        let memory = Memory::new(&graph, &options.places);
        let steps = lower::lower(&graph, &memory, &options.target);
        match steps.and_then(|steps| schedule(steps, &memory)) {
            Ok(steps) => return Ok((graph, memory, steps)),
            Err(Failure::SetAside(value)) => graph = passes::set_aside(&graph, value),
            Err(Failure::Stuck) => return Err(CompileError::Stuck),
        }
    }
}

/// Numbers buffers and kernels and packs parameters.
fn assemble(
    graph: &Graph,
    steps: &[Step],
    memory: &Memory,
    slots: &SlotPlan,
    target: &Target,
) -> Result<Plan, CompileError> {
    let mut plan = Plan {
        buffers: slots.slots.iter().map(|&bytes| BufferDecl { role: BufferRole::Slot, bytes }).collect(),
        memory: MemoryReport {
            slots: slots.slots.iter().sum(),
            lower_bound: slots.lower_bound,
            peak: slots.peak.clone(),
            ..Default::default()
        },
        ..Default::default()
    };
    let mut external = Externals::default();
    let live = graph.live();
    for leaf in graph.leaves().filter(|leaf| live[leaf.value.index()]) {
        let bind = external.bind(&mut plan, memory, leaf.value, leaf.ty.bytes());
        let port = Port { name: leaf.name.to_owned(), ty: leaf.ty.clone(), bind };
        let (ports, class) = match leaf.kind {
            LeafKind::Input => (&mut plan.inputs, &mut plan.memory.ports),
            LeafKind::Weight => (&mut plan.state, &mut plan.memory.weights),
            LeafKind::Param | LeafKind::State => (&mut plan.state, &mut plan.memory.state),
        };
        ports.push(port);
        *class += leaf.ty.bytes();
    }
    for (name, value) in graph.outputs() {
        let ty = graph.ty(*value).clone();
        let bind = external.bind(&mut plan, memory, *value, ty.bytes());
        if memory.replaces(*value).is_none() {
            plan.memory.ports += ty.bytes();
        }
        plan.outputs.push(Port { name: name.clone(), ty, bind });
    }
    let mut kernel_of: HashMap<String, KernelId> = HashMap::new();
    for step in steps {
        let mut bind = |plan: &mut Plan, value: Value| -> Result<Bind, CompileError> {
            let bytes = graph.ty(value).bytes();
            if bytes > target.max_binding_bytes {
                let name = name_of(graph, value);
                return Err(CompileError::TooLarge { name, bytes, limit: target.max_binding_bytes });
            }
            Ok(match slots.slot_of.get(&value) {
                Some(&slot) => Bind { buffer: BufferId(slot as u32), offset: 0, bytes: bytes.next_multiple_of(16) },
                None => external.bind(plan, memory, value, bytes),
            })
        };
        for &value in &step.clears {
            let bind = bind(&mut plan, value)?;
            plan.commands.push(Command::Clear(bind));
        }
        let binds = step.bindings.iter().map(|&value| bind(&mut plan, value)).collect::<Result<_, _>>()?;
        let kernel = *kernel_of.entry(step.kernel.wgsl.clone()).or_insert_with(|| {
            plan.kernels.push(step.kernel.clone());
            KernelId(plan.kernels.len() as u32 - 1)
        });
        let params_offset = plan.params.len().next_multiple_of(target.uniform_align as usize);
        plan.params.resize(params_offset, 0);
        plan.params.extend(step.params.iter().flat_map(|word| word.to_le_bytes()));
        plan.commands.push(Command::Dispatch(Dispatch {
            kernel,
            binds,
            params_offset: params_offset as u32,
            groups: step.groups,
            label: step.label.clone(),
            flops: step.flops,
            traffic: step.traffic,
        }));
    }
    plan.memory.transfers = plan.params.len() as u64;
    Ok(plan)
}

/// What a message calls a value.
fn name_of(graph: &Graph, value: Value) -> String {
    graph.name(value).unwrap_or("an intermediate value").to_owned()
}

/// External buffers by name.
#[derive(Default)]
struct Externals {
    ids: HashMap<String, BufferId>,
}

impl Externals {
    fn bind(&mut self, plan: &mut Plan, memory: &Memory, value: Value, bytes: u64) -> Bind {
        let place = &memory.external[&value];
        let id = *self.ids.entry(place.buffer.clone()).or_insert_with(|| {
            plan.buffers.push(BufferDecl { role: BufferRole::External(place.buffer.clone()), bytes: 0 });
            BufferId(plan.buffers.len() as u32 - 1)
        });
        let decl = &mut plan.buffers[id.0 as usize];
        decl.bytes = decl.bytes.max(place.offset + bytes);
        Bind { buffer: id, offset: place.offset, bytes }
    }
}
