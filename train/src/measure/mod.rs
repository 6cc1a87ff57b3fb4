//! How fast the device is, where the time goes, and whether it computes right.
//!
//! [`roofline`] measures what the device can do at best; [`shapes`] lists kernels and shapes that matter, and [`kernels`]
//! measures them; [`profile`] times every launch of some training steps, draws them
//! as a [`trace`] and adds them up in a [`table`]. [`correctness`] compares every kind of kernel with the host.

pub mod correctness;
pub mod kernels;
pub mod profile;
pub mod roofline;
pub mod shapes;
mod table;
mod trace;

pub use profile::Profiler;
pub use roofline::{Demand, Roofline};
pub use table::{Row, Work};
