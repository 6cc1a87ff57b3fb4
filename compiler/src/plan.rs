//! The output of compilation: a fixed list of kernel launches over a fixed set of buffers, as plain data.
//!
//! A plan names everything by index and holds no device object, so it can be printed, checked, hashed and compared.
//! The runtime allocates the buffers once, builds one pipeline per distinct kernel and one bind group per dispatch, and
//! then replays [`Plan::commands`] in order, every step.

mod listing;

use viral_shaders::Kernel;

use crate::types::TensorType;

/// Index into [`Plan::buffers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BufferId(pub u32);

/// Index into [`Plan::kernels`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KernelId(pub u32);

/// Who provides a buffer, and how long its content must live.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum BufferRole {
    /// Scratch memory for intermediate values; its content is meaningless between replays, and different plans may share
    /// the same memory as long as they do not run at the same time.
    Slot,
    /// Provided by the caller under this name: a batch input, a weight, an arena of trainable state, or a result.
    External(String),
}

/// One device buffer of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BufferDecl {
    /// Who provides it.
    pub role: BufferRole,
    /// Size in bytes, a multiple of 16 for slots. An external buffer may be larger than this.
    pub bytes: u64,
}

/// A range of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Bind {
    /// The buffer.
    pub buffer: BufferId,
    /// First byte; a multiple of the target's `storage_align`.
    pub offset: u64,
    /// Length in bytes; a multiple of 4.
    pub bytes: u64,
}

/// One entry of the command list.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Launches a kernel.
    Dispatch(Dispatch),
    /// Fills a range with zeros.
    Clear(Bind),
}

/// A kernel launch.
#[derive(Clone, Debug, PartialEq)]
pub struct Dispatch {
    /// Which kernel.
    pub kernel: KernelId,
    /// Storage bindings, one per entry of the kernel's `bindings`.
    pub binds: Vec<Bind>,
    /// Byte offset of this dispatch's parameter words in [`Plan::params`]; a multiple of the target's `uniform_align`.
    pub params_offset: u32,
    /// Workgroup counts.
    pub groups: [u32; 3],
    /// The model's name for what is computed, for example `layers.3.q_proj`.
    pub label: String,
    /// Floating-point operations, for reports and for splitting long submits.
    pub flops: u64,
    /// Bytes read and written when every operand is touched once.
    pub traffic: u64,
}

/// What the outside calls a tensor of the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Name given by the graph.
    pub name: String,
    /// Element type and shape.
    pub ty: TensorType,
    /// Where it lives.
    pub bind: Bind,
}

/// Bytes of device memory by what they hold, as planned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryReport {
    /// Frozen weights.
    pub weights: u64,
    /// Batch inputs and results.
    pub ports: u64,
    /// Trainable parameters, gradients and optimiser state.
    pub state: u64,
    /// Slots, which hold every intermediate value.
    pub slots: u64,
    /// Parameters of all launches; in a report on a whole run also what carries inputs and results to and from the host.
    pub transfers: u64,
    /// The largest sum of intermediate values alive at one time: no planner can need fewer slot bytes than this.
    pub lower_bound: u64,
    /// What is alive at that time, by the model's names, largest first.
    pub peak: Vec<(String, u64)>,
}

/// A compiled graph.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// All buffers.
    pub buffers: Vec<BufferDecl>,
    /// Distinct kernels.
    pub kernels: Vec<Kernel>,
    /// What to do, in order.
    pub commands: Vec<Command>,
    /// Parameter words of all dispatches: the content of one uniform buffer, written once.
    pub params: Vec<u8>,
    /// Tensors that the caller writes before a replay.
    pub inputs: Vec<Port>,
    /// Tensors that persist between replays: weights, and arenas that the plan may also write.
    pub state: Vec<Port>,
    /// Tensors that the caller may read after a replay.
    pub outputs: Vec<Port>,
    /// Planned memory.
    pub memory: MemoryReport,
}

impl MemoryReport {
    /// Bytes of all classes.
    pub fn total(&self) -> u64 {
        self.weights + self.ports + self.state + self.slots + self.transfers
    }
}

impl Plan {
    /// Floating-point operations, and bytes read and written when every operand of a launch is touched once, of one replay.
    pub fn work(&self) -> (u64, u64) {
        self.commands.iter().fold((0, 0), |(flops, traffic), command| match command {
            Command::Dispatch(dispatch) => (flops + dispatch.flops, traffic + dispatch.traffic),
            Command::Clear(bind) => (flops, traffic + bind.bytes),
        })
    }
}
