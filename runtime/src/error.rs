//! What can go wrong between a plan and a device.

/// Every failure of this crate. Messages say what, where and why, and what to try where the reader can do something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No adapter at all.
    #[error(
        "no GPU found for backend {backend}; install a Vulkan driver (Linux: mesa-vulkan-drivers, or the vendor's), \
         or try another --backend"
    )]
    NoDevice {
        /// The backend that was asked for.
        backend: String,
    },
    /// The name or index that was asked for fits no adapter.
    #[error("no adapter matches `{wanted}`; available: {}", .available.join(", "))]
    UnknownAdapter {
        /// What was asked for.
        wanted: String,
        /// Adapters of the chosen backend, as `index: name (backend)`.
        available: Vec<String>,
    },
    /// The adapter offers less than every kernel relies on.
    #[error("adapter `{adapter}` cannot be used: {why}; `viral-wgpu devices` lists the others")]
    UnsuitableAdapter {
        /// Its name.
        adapter: String,
        /// What it lacks.
        why: String,
    },
    /// The driver refused to open the device.
    #[error("adapter `{adapter}` could not be opened: {message}")]
    DeviceRefused {
        /// Its name.
        adapter: String,
        /// The driver's reason.
        message: String,
    },
    /// An allocation failed, or would exceed the limit set by the user.
    #[error(
        "out of device memory: {what} needs {bytes} bytes while {in_use} bytes are in use; try a smaller batch or shorter \
         sequences, more rematerialisation, or another adapter"
    )]
    OutOfMemory {
        /// What the memory was for.
        what: String,
        /// Size of the failed allocation; 0 where the driver does not say.
        bytes: u64,
        /// Bytes allocated at that time.
        in_use: u64,
    },
    /// A buffer above the device's limit on a single buffer.
    #[error("{what} needs a buffer of {bytes} bytes, but this device allows at most {limit} in one buffer")]
    BufferTooLarge {
        /// What the memory was for.
        what: String,
        /// Bytes asked for.
        bytes: u64,
        /// The device's limit.
        limit: u64,
    },
    /// The device is gone: driver reset, unplugged, or destroyed. Nothing on it can be read any more.
    #[error(
        "the device was lost: {reason}; resume from the last checkpoint, and if it happens again try a smaller batch"
    )]
    DeviceLost {
        /// The driver's reason.
        reason: String,
    },
    /// The device refused a command that this crate took for valid.
    #[error("the device refused a command: {message}")]
    Refused {
        /// wgpu's description.
        message: String,
    },
    /// A kernel does not compile on this device.
    #[error("kernel `{kernel}` was rejected: {message}")]
    ShaderRejected {
        /// The kernel's name.
        kernel: String,
        /// wgpu's description, with the place in the source.
        message: String,
    },
    /// A kernel relies on something that the device lacks. The plan was compiled for another target.
    #[error("kernel `{kernel}` needs {feature}, which adapter `{adapter}` does not have")]
    MissingFeature {
        /// The kernel's name.
        kernel: String,
        /// The feature.
        feature: &'static str,
        /// The adapter's name.
        adapter: String,
    },
    /// The caller has not provided an external buffer of the plan.
    #[error("the plan needs a buffer named `{name}`, which was not provided")]
    MissingBuffer {
        /// The plan's name for it.
        name: String,
    },
    /// The caller's buffer is smaller than the plan needs.
    #[error("the plan needs {needed} bytes in buffer `{name}`, which has {given}")]
    BufferTooSmall {
        /// The plan's name for it.
        name: String,
        /// Bytes the plan needs.
        needed: u64,
        /// Bytes the buffer has.
        given: u64,
    },
    /// The plan contradicts itself or this device's limits.
    #[error("invalid plan: {at}: {why}")]
    InvalidPlan {
        /// The part of the plan, for example a dispatch's label.
        at: String,
        /// What is wrong.
        why: String,
    },
    /// A transfer outside a buffer.
    #[error("bytes {offset}..{end} lie outside buffer `{buffer}` of {size} bytes")]
    OutOfRange {
        /// The buffer's label.
        buffer: String,
        /// First byte.
        offset: u64,
        /// One past the last byte.
        end: u64,
        /// The buffer's size.
        size: u64,
    },
    /// A transfer that does not start or end on a 4-byte boundary.
    #[error("transfers need offsets and lengths that are multiples of 4, not {offset} and {bytes} (buffer `{buffer}`)")]
    Unaligned {
        /// The buffer's label.
        buffer: String,
        /// First byte.
        offset: u64,
        /// Length.
        bytes: u64,
    },
    /// The device cannot do what was asked, though it can run plans.
    #[error("adapter `{adapter}` has no {what}")]
    Unsupported {
        /// The adapter's name.
        adapter: String,
        /// What it lacks.
        what: &'static str,
    },
}
