//! Autodiff graph compiler.

pub mod compile;
pub mod eval;
pub mod grad;
pub mod ir;
mod lower;
mod memory;
pub mod ops;
pub mod passes;
pub mod plan;
mod schedule;
pub mod tensor;
pub mod types;

pub use compile::{CompileError, Options, compile};
pub use ir::{Graph, Value};
pub use lower::Placement;
