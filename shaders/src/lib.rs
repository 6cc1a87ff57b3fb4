//! WGSL kernels, the linker that specialises them, and the plain data by which the other crates talk about kernels.
//!
//! This crate knows neither graphs nor wgpu: a kernel is text plus the facts that a caller needs to bind and launch it
//! ([`Kernel`]), and what a device can do is a plain record ([`Target`]).

mod kernel;
mod target;

pub use kernel::{Access, Kernel, Requirements};
pub use target::{DeviceClass, Target};
