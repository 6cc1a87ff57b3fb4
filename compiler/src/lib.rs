//! Autodiff graph compiler.

pub mod eval;
pub mod grad;
pub mod ir;
pub mod ops;
pub mod plan;
pub mod tensor;
pub mod types;

pub use ir::{Graph, Value};
