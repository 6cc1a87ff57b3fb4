//! From a dataset file to what the training graph reads.

pub mod rng;
pub mod sampler;
pub mod schedule;
