//! What a run shows and what it leaves behind.
//!
//! * [`RunFolder`] owns the folder of a run while its process lives (`folder.rs`, `lock.rs`);
//! * [`RunRecord`] is `run.json`: what ran, with which settings, on which device (`record.rs`);
//! * [`Recorder`] takes the figures of each optimiser step to `metrics.jsonl`, to the progress line on standard error,
//!   to TensorBoard, and in the end to `loss.svg` (`recorder.rs`, `metrics.rs`, `progress.rs`, `events.rs`, `plot/`);
//! * [`Interrupt`] notes signals that ask the run to end (`interrupt.rs`);
//! * [`terminal`] keeps log lines and the progress line apart.

mod events;
mod folder;
pub(crate) mod host;
mod interrupt;
mod lock;
mod metrics;
mod plot;
mod progress;
mod record;
mod recorder;
pub mod terminal;

pub use folder::RunFolder;
pub use interrupt::{Interrupt, Signal};
pub use metrics::{MetricsFile, StepMetrics, Validation, read_metrics};
pub use plot::loss_svg;
pub use progress::duration;
pub(crate) use record::now;
pub use record::{DeviceRecord, RunRecord, Status};
pub use recorder::{Incident, Outcome, Recorder, Summary};
