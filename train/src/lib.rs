//! Data pipeline, training loop, run folder and command line of `viral-wgpu`.
//!
//! In reading order:
//!
//! * [`config`] turns a TOML file, the environment and the command line into one checked [`Config`];
//! * [`data`] goes from a dataset file to the inputs of micro-batches;
//! * [`run`] owns what a run leaves behind: the folder and its lock, `metrics.jsonl`, `loss.svg`, the progress line;
//! * [`store`] writes checkpoints so that they survive whatever happens;
//! * [`engine`] is the training run: networks and [`objectives`] become graphs, graphs become plans, and plans are
//!   replayed step after step;
//! * [`measure`] finds out how fast the device is and where the time goes;
//! * [`tuning`] has kernels measured that are not equally fast on all devices, and remembers what came of it;
//! * [`demo`] makes folders to start from;
//! * [`error`] is the one error type of the crate and its exit codes.
//!
//! Of all crates of the project only this one reads the environment, the clock and the command line, and it does so
//! only in [`cli`], [`run`], [`measure`] and [`tuning`]. It knows no WGSL.

pub mod cli;
pub mod config;
pub mod data;
pub mod demo;
pub mod engine;
pub mod error;
pub mod measure;
pub mod objectives;
mod parallel;
mod random;
pub mod run;
pub mod store;
pub mod tuning;

pub use config::Config;
pub use error::{Error, Kind, Result};
