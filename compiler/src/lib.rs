//! Autodiff graph compiler.

pub mod plan;
pub mod types;
