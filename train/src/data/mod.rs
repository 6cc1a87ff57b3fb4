//! From a dataset file to what the training graph reads.
//!
//! In reading order: [`scan`] cuts the file into records, [`record`] reads one and checks its rules, [`picture`] guards
//! the picture folder, [`dataset`] is the list of usable records; [`sampler`] orders them and cuts the order into
//! steps; [`sample`] splices visual tokens in, [`bucket`] rounds shapes, [`batch`] lays a micro-batch out, and
//! [`loader`] does all that ahead of the training loop. [`schedule`] gives each step its learning rate. [`check`] looks
//! for defects without training.
//!
//! Everything is a pure function of the files and the seed: neither the number of threads nor their timing changes a
//! batch.

pub mod batch;
pub mod bucket;
pub mod check;
pub mod dataset;
pub mod defect;
pub mod loader;
pub mod picture;
pub mod record;
pub mod rng;
pub mod sample;
pub mod sampler;
pub mod scan;
pub mod schedule;
#[cfg(test)]
mod tests;

pub use batch::{Batch, Row, Sight};
pub use bucket::{Bucket, buckets};
pub use check::{Check, Checked};
pub use dataset::Dataset;
pub use defect::{Defect, Rule};
pub use loader::{Loader, MicroBatch};
pub use record::{Record, Role, Turn};
pub use sample::{Geometry, NONE, Prepare, Sample, SampleShape};
pub use sampler::{Sampler, Step, StepPlan};
pub use schedule::{LrSchedule, VraWeight};
