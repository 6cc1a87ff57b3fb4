//! Networks and training runs on the device, against PyTorch's numbers and against each other.
//!
//! One program, so that all runs share a device and a kernel is compiled once for all of them: on a software device that takes
//! several times as long as the steps of a tiny model.

mod batching;
mod cases;
mod combinations;
mod determinism;
mod layouts;
mod networks;
mod objectives;
mod precision;
mod resume;
mod ross;
#[path = "../support/mod.rs"]
mod support;
mod validation;
