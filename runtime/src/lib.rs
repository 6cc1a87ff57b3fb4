//! Replays compiled plans on a GPU.
//!
//! In reading order:
//!
//! 1. [`list`] and [`AdapterChoice`] find an adapter; its abilities become plain data, a [`Target`](viral_shaders::Target),
//!    which is all that the compiler knows about hardware.
//! 2. [`Device`] opens it. Everything that touches the device goes through one: memory ([`Buffer`]), transfers, pipelines,
//!    submissions. It keeps the books on memory and remembers a fault until somebody asks.
//! 3. [`Executable`] binds a [`Plan`](viral_compiler::plan::Plan) to buffers: slots come from a [`SlotPool`] that several
//!    plans share, external buffers from the caller. Pipelines are compiled once per distinct kernel and device.
//! 4. [`Stream`] replays executables step after step: inputs go up through persistent staging memory, results come back a
//!    step late, and nothing is allocated on the device after the first step.
//! 5. [`Executable::run_profiled`] says how long each dispatch took.
//!
//! The API is synchronous. This crate does not know what an operation or a gradient is, and reads neither the environment
//! nor the clock.

mod adapter;
mod batch;
mod blocking;
mod buffer;
mod capabilities;
mod check;
mod device;
mod error;
mod executable;
mod health;
#[cfg_attr(not(target_os = "linux"), path = "host_memory_none.rs")]
mod host_memory;
pub mod matrices;
mod pipeline;
mod profile;
mod slots;
mod stream;
mod submission;
mod transfer;
mod trusted;

pub use adapter::{AdapterChoice, AdapterKind, AdapterReport, Backend, UnknownBackend, list};
pub use buffer::{Buffer, Filling, MemoryUsage};
pub use capabilities::CooperativeShape;
pub use device::{Checks, Device, DeviceOptions};
pub use error::Error;
pub use executable::{BoundPort, Executable};
pub use profile::{DispatchTime, Phase};
pub use slots::SlotPool;
pub use stream::{Stream, StreamOptions, Ticket};
pub use submission::Submission;
pub use transfer::READ_STAGING_BYTES;
