//! Autodiff graph compiler: from a tensor graph to a list of kernel launches over a list of buffers.
//!
//! In reading order, which is also the order in which a training graph passes through:
//!
//! 1. [`ir`]: a graph is an arena of nodes, each an operation of [`ops`] applied to earlier nodes. [`types`] are element
//!    types and shapes, [`storage`] the types that only memory holds. Model code adds nodes through the methods of [`Graph`].
//! 2. [`eval`]: the meaning of a graph, in f64 on [`tensor`]s; the oracle of every test.
//! 3. [`rows`]: where only some rows of a value matter, what leads to it is built for those only. [`grad`]: reverse-mode
//!    differentiation, graph to graph.
//! 4. [`mod@compile`]: the pipeline, one function from top to bottom. [`passes`] rewrite the graph; lowering decides what is
//!    computed together and writes or links the kernels; steps are put in order; values get slots.
//!    Decisions that differ from device to device are made by rules, or by what was measured: [`tunables`].
//! 5. [`plan`]: the result, plain data that the runtime replays. [`probe`] has plans that measure a device.
//!
//! This crate knows neither wgpu nor files, clock, environment or threads: a graph and [`Options`] alone decide the plan,
//! byte for byte. Nothing here panics on a graph that a caller can build: type errors are collected and reported.

pub mod compile;
pub mod eval;
pub mod grad;
pub mod ir;
mod lower;
mod memory;
pub mod ops;
pub mod passes;
pub mod plan;
pub mod probe;
pub mod rows;
mod schedule;
pub mod storage;
pub mod tensor;
pub mod tunables;
pub mod types;

pub use compile::{CompileError, Options, compile};
pub use ir::{Graph, Value};
pub use lower::Placement;
pub use viral_shaders::{DeviceClass, Target, Tuning};
