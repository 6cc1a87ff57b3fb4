//! Kernels and plans: single operations, products, attention and random graphs on the device, against the f64 interpreter and
//! against sums in f64; every plan within the limits that all devices have.

mod attention;
mod cooperative;
#[path = "../../compiler/tests/common/mod.rs"]
mod graphs;
mod operations;
mod plans;
mod products;
mod random_graphs;
#[path = "../support/mod.rs"]
mod support;
mod tuning;
