//! Data pipeline, training loop, run folder and command line of `viral-wgpu`.
//!
//! In reading order:
//!
//! * [`config`] turns a TOML file, the environment and the command line into one checked [`Config`];
//! * `run` owns what a run leaves behind: the folder and its lock, `metrics.jsonl`, `loss.svg`, the progress line;
//! * [`error`] is the one error type of the crate and its exit codes.
//!
//! Of all crates of the project only this one reads the environment, the clock and the command line, and it does so
//! only in `cli` and `run`. It knows no WGSL.

pub mod cli;
pub mod config;
pub mod data;
pub mod demo;
pub mod error;
pub mod run;

pub use config::Config;
pub use error::{Error, Kind, Result};
