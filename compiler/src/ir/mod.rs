//! The tensor IR: an arena of nodes in single-assignment form.
//!
//! Invariants, checked by [`Graph::verify`] and relied on everywhere else:
//!
//! * a node's arguments have smaller indices than the node itself, so index order is a topological order;
//! * equal nodes (same operation, same arguments) are one node: common subexpressions are shared at birth;
//! * every node has exactly one result with a static shape; there is no control flow;
//! * elementwise operations take arguments of equal shape: broadcasting is an explicit `expand`.
//!
//! The IR knows nothing about devices, files, time or threads.

mod builder;
mod graph;
mod text;
mod verify;

pub use graph::{Graph, Leaf, LeafKind, Node, TypeError, Value};
pub use text::ParseError;
pub use verify::VerifyError;
