//! A linked kernel: WGSL text and the facts needed to bind and launch it.

/// How a kernel uses one storage binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// `var<storage, read>`
    Read,
    /// `var<storage, read_write>`
    ReadWrite,
}

/// What a kernel cannot do without, beside its bindings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Requirements {
    /// Subgroup operations.
    pub subgroups: bool,
    /// 16-bit floats.
    pub f16: bool,
    /// 64-bit integers.
    pub int64: bool,
    /// A storage buffer of [`COUNTERS_BYTES`] zeros as binding 0 of group 1. The kernel writes it, and has set it back to zero
    /// when it ends, so that all launches share one.
    pub counters: bool,
    /// Cooperative matrices with this many rows and columns.
    pub cooperative_matrix: Option<u32>,
}

/// Bytes of the buffer that kernels with [`Requirements::counters`] use.
pub const COUNTERS_BYTES: u64 = 36;

/// A complete WGSL compute module with entry point `main`.
///
/// Bindings, all in group 0: binding 0 is a uniform buffer that holds the dispatch's parameter words (a struct of `u32`
/// and `f32` fields, [`Kernel::param_words`] of them), bindings `1..` are storage buffers in the order of
/// [`Kernel::bindings`]. Two kernels with equal text are one pipeline.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Kernel {
    /// Short name for traces and errors, for example `gemm_nt`.
    pub name: String,
    /// The module as the device sees it.
    pub wgsl: String,
    /// Storage bindings `1..`.
    pub bindings: Vec<Access>,
    /// Number of 32-bit words in the parameter struct at binding 0.
    pub param_words: u32,
    /// Workgroup size.
    pub workgroup: [u32; 3],
    /// Features without which the module cannot run.
    pub requires: Requirements,
}
