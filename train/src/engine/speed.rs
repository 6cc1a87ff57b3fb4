//! A training step on made-up numbers: what it takes, without any file but the models' `config.json`.

use std::collections::BTreeSet;
use std::time::Instant;

use serde::Serialize;
use viral_runtime::Device;

use super::bundle::Networks;
use super::init::MadeUp;
use super::session::{Extent, Session};
use crate::config::Config;
use crate::data::{Batch, Geometry, MicroBatch, NONE, Row, Sample};
use crate::error::Result;
use crate::measure::Roofline;

/// The samples of a micro-batch; each has a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct StepShape {
    /// Samples.
    pub batch: usize,
    /// Tokens of a sample, visual tokens included.
    pub tokens: usize,
    /// Supervised tokens of a sample.
    pub targets: usize,
}

/// How fast a training step is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepSpeed {
    /// Its samples.
    pub shape: StepShape,
    /// Forward and backward, median seconds.
    pub micro_batch_seconds: f64,
    /// Optimiser, median seconds.
    pub update_seconds: f64,
    /// Tokens a second, of forward, backward and update together.
    pub tokens_per_second: f64,
    /// Floating-point operations of a step, as planned.
    pub flops: u64,
    /// Share of the device's measured peak arithmetic.
    pub utilisation: f64,
    /// Device memory that the run holds, in bytes; after the first step it neither grows nor shrinks.
    pub device_bytes: u64,
}

/// Runs `steps` optimiser steps after one that does not count.
///
/// # Errors
/// Settings that do not fit the networks, and what a device can refuse.
pub fn measure_step(
    config: &Config,
    device: &Device,
    roofline: &Roofline,
    shape: StepShape,
    steps: u64,
) -> Result<StepSpeed> {
    let networks = Networks::open(config)?;
    let geometry = Geometry {
        visual_tokens: networks.llava.visual_tokens(),
        max_length: shape.tokens,
        image_side: networks.llava.vision.image_size,
    };
    let rows: Vec<Row> = (0..shape.batch).map(|index| row(index, shape, geometry)).collect();
    let batch = Batch::assemble(&rows, geometry);
    let bucket = batch.bucket;
    let (buckets, evaluated) = (&BTreeSet::from([bucket]), &BTreeSet::new());
    let extent = Extent { buckets, evaluated, steps: steps + 1, kept_features: 0 };
    let mut session = Session::with_contents(config, &networks, &MadeUp, &extent, device)?;
    let mut micro_batch = MicroBatch { step: 0, epoch: 0, index: 0, of: 1, batch };
    let (mut forward, mut update) = (Vec::new(), Vec::new());
    for step in 0..=steps {
        micro_batch.step = step;
        let start = Instant::now();
        session.micro_batch(&micro_batch)?;
        device.wait()?;
        let middle = Instant::now();
        session.step(step, 1.0)?;
        session.last()?;
        device.wait()?;
        if step > 0 || steps == 0 {
            forward.push(middle.duration_since(start).as_secs_f64());
            update.push(middle.elapsed().as_secs_f64());
        }
    }
    let (micro_batch_seconds, update_seconds) = (median(forward), median(update));
    let seconds = micro_batch_seconds + update_seconds;
    let work = session.work(bucket);
    let flops = work.0 + work.1;
    Ok(StepSpeed {
        shape,
        micro_batch_seconds,
        update_seconds,
        tokens_per_second: (shape.batch * shape.tokens) as f64 / seconds,
        flops,
        utilisation: flops as f64 / seconds / roofline.flops,
        device_bytes: device.memory().live_bytes,
    })
}

/// A sample: a token, the picture, and text of which the end is supervised.
fn row(index: usize, shape: StepShape, geometry: Geometry) -> Row {
    let visual = geometry.visual_tokens.min(shape.tokens.saturating_sub(1));
    let ids = (0..shape.tokens).map(|at| if (1..=visual).contains(&at) { NONE } else { 3 + at as u32 % 61 }).collect();
    let first = shape.tokens.saturating_sub(shape.targets + 1);
    let targets = (first..shape.tokens.saturating_sub(1)).map(|at| (at as u32, 3 + (at as u32 + 1) % 61)).collect();
    let values = 3 * geometry.image_side * geometry.image_side;
    let pixels = (0..values).map(|at| ((at * 31 + index * 7) % 97) as f32 / 48.5 - 1.0).collect();
    let sample = Sample { ids, visual_start: 1, visual_len: visual, layout: None, targets };
    Row { name: format!("made up {index}"), sample, pixels: Some(pixels), aligned: true, defect: None }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}
