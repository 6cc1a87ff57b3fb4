//! WGSL kernels, the linker that specialises them, and the plain data by which the other crates talk about kernels.
//!
//! This crate knows neither graphs nor wgpu: a kernel is text plus the facts that a caller needs to bind and launch it
//! ([`Kernel`]), and what a device can do is a plain record ([`Target`]), with what was measured about it ([`Tuning`]).
//!
//! Reading order: a body (`wgsl/*.wgsl`, one file a kernel) and library fragments (`lib/*.wgsl`) are joined by the
//! [`link::Linker`] under a generated header; [`gemm`], [`coop`] (products on cooperative matrices, whose operands [`pack`]
//! makes), [`attention`] and [`rows`] say which pieces make which kernel and translate a problem into parameter words and a
//! grid ([`Launch`]); [`storage`] is how operands are read that take fewer
//! than 32 bits an element; [`probe`] has kernels that measure a device; [`table`] lists every kernel,
//! and tests iterate over it.
//!
//! Invariants: every kernel has a form that needs no optional feature; at most 8 storage bindings, 256 invocations and
//! 16 KiB of workgroup memory; sums are taken in f32, in an order that depends on nothing but the sizes.

pub mod attention;
#[cfg(any(test, feature = "check"))]
pub mod check;
pub mod coop;
pub mod gemm;
mod kernel;
mod launch;
pub mod link;
pub mod pack;
pub mod probe;
pub mod rope;
pub mod rows;
pub mod storage;
pub mod table;
mod target;
#[cfg(test)]
mod tests;
mod tuning;

pub use kernel::{Access, COUNTERS_BYTES, Kernel, Requirements};
pub use launch::Launch;
pub use storage::Storage;
pub use target::{DeviceClass, Target};
pub use tuning::Tuning;

/// Functions of one element that WGSL lacks (`erf`, `uniform01`), over the aliases `F` and `U`.
pub const MATH: &str = include_str!("../lib/math.wgsl");

/// `rounded_bf16`, `packed_bf16` and so on, over the aliases `F` and `U`: what storing in a narrower type takes.
pub const ROUND: &str = include_str!("../lib/round.wgsl");

/// `wg_sum` and `wg_max`: one number out of one number per work item, over the constant `ROW_LANES`.
pub const ROW_REDUCE: &str = include_str!("../lib/row_reduce.wgsl");

/// The same, where a workgroup is one subgroup.
pub const ROW_REDUCE_SUBGROUP: &str = include_str!("../lib/row_reduce_subgroup.wgsl");

/// `unpacked` and `packed`: four floats as two 64-bit words.
pub const WIDE: &str = include_str!("../lib/wide.wgsl");
