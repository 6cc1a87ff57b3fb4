//! A training step on made-up numbers: what it takes, without any file but the models' `config.json`.

use std::collections::BTreeSet;
use std::time::Instant;

use serde::Serialize;
use viral_model::config::LlavaConfig;
use viral_model::image::Tiling;
use viral_runtime::Device;

use super::bundle::Networks;
use super::init::MadeUp;
use super::planned::{Planned, plan};
use super::session::features::Keep;
use super::session::{Extent, Session};
use crate::config::Config;
use crate::data::{Batch, Bucket, Geometry, MicroBatch, NONE, Row, Sample, SampleShape};
use crate::error::Result;
use crate::measure::roofline::median;
use crate::measure::{self, Profiler, Roofline};
use crate::run::host;

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

impl StepShape {
    /// Supervised tokens of a sample where there are no data to count them in.
    const TYPICAL_TARGETS: usize = 128;

    /// Samples of the configured batch that are as long as allowed.
    pub fn full(config: &Config) -> Self {
        let tokens = config.train.max_length;
        Self { batch: config.train.batch, tokens, targets: Self::TYPICAL_TARGETS.min(tokens) }
    }

    /// The bucket of the micro-batch, with room for the visual tokens of a picture, and with as many tiles as one may have.
    pub(crate) fn bucket(self, llava: &LlavaConfig) -> Bucket {
        let visual_tokens = llava.visual_tokens();
        let tokens = self.tokens.max(visual_tokens + 1);
        let sample = SampleShape {
            tokens: tokens as u32,
            visual: visual_tokens as u32,
            tiles: llava.tiling.as_ref().map_or(0, Tiling::most_tiles) as u32,
            targets: self.targets as u32,
            before: tokens.saturating_sub(self.targets) as u32,
        };
        Bucket::of(&vec![sample; self.batch])
    }
}

/// How fast a training step is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepSpeed {
    /// Forward and backward, median seconds.
    pub micro_batch_seconds: f64,
    /// Optimiser, median seconds.
    pub update_seconds: f64,
    /// Tokens a second, of forward, backward and update together.
    pub tokens_per_second: f64,
    /// Floating-point operations of a step, without those that compute activations again.
    pub model_flops: u64,
    /// Model FLOP utilisation: the share of the device's measured peak arithmetic that these are, each operation at the peak of
    /// the kind that computes it.
    pub utilisation: f64,
    /// Device memory that the run holds, in bytes; after the first step it neither grows nor shrinks.
    pub device_bytes: u64,
    /// Most main memory that the process has occupied so far, in bytes, where the system tells. On a software device that
    /// holds the device memory as well.
    pub process_bytes: Option<u64>,
    /// Seconds until everything was compiled, allocated and filled.
    pub start_seconds: f64,
    /// Loss of each step, the first included, which is not measured.
    pub losses: Vec<f64>,
    /// The plan, for the same roof.
    pub planned: Planned,
    /// One step more by kernel and by part of the model, where it was asked for and the device has a clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<StepProfile>,
}

/// Where the time of a step goes, the longest first.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepProfile {
    /// By kernel.
    pub kernels: Vec<measure::Row>,
    /// By part of the model, layers taken together.
    pub scopes: Vec<measure::Row>,
    /// Both as tables.
    #[serde(skip)]
    pub tables: String,
}

/// Runs `steps` optimiser steps after one that does not count, and another one if it is to be profiled.
///
/// # Errors
/// Settings that do not fit the networks, and what a device can refuse.
pub fn measure_step(
    config: &Config,
    device: &Device,
    roofline: &Roofline,
    shape: StepShape,
    steps: u64,
    profile: bool,
) -> Result<StepSpeed> {
    let start = Instant::now();
    let networks = Networks::open(config)?;
    let planned = plan(config, shape, device.target(), Some(roofline))?;
    let shape = planned.shape;
    let geometry = Geometry {
        visual_tokens: networks.llava.visual_tokens(),
        max_length: shape.tokens,
        image_side: networks.llava.vision.image_size,
    };
    let rows: Vec<Row> = (0..shape.batch).map(|index| row(index, shape, geometry)).collect();
    let batch = Batch::assemble(&rows, geometry);
    let (buckets, evaluated) = (&BTreeSet::from([batch.bucket]), &BTreeSet::new());
    let extent = Extent { buckets, evaluated, steps: steps + 2, keep: Keep::default() };
    let mut session = Session::with_contents(config, &networks, &MadeUp, &extent, device)?;
    let start_seconds = start.elapsed().as_secs_f64();
    let mut micro_batch = MicroBatch { step: 0, epoch: 0, index: 0, of: 1, batch };
    let (mut forward, mut update, mut losses) = (Vec::new(), Vec::new(), Vec::new());
    for step in 0..=steps {
        micro_batch.step = step;
        let start = Instant::now();
        session.micro_batch(&micro_batch)?;
        device.wait()?;
        let middle = Instant::now();
        session.step(step, 1.0)?;
        losses.extend(session.last()?.map(|outcome| outcome.loss));
        device.wait()?;
        if step > 0 || steps == 0 {
            forward.push(middle.duration_since(start).as_secs_f64());
            update.push(middle.elapsed().as_secs_f64());
        }
    }
    let profile = if profile {
        session.watch(Profiler::new(steps + 1..steps + 2));
        micro_batch.step = steps + 1;
        session.micro_batch(&micro_batch)?;
        session.step(micro_batch.step, 1.0)?;
        session.profiler().map(|profiler| step_profile(profiler, device)).transpose()?
    } else {
        None
    };
    let (micro_batch_seconds, update_seconds) = (median(&forward).unwrap_or(0.0), median(&update).unwrap_or(0.0));
    let seconds = micro_batch_seconds + update_seconds;
    Ok(StepSpeed {
        micro_batch_seconds,
        update_seconds,
        tokens_per_second: (shape.batch * shape.tokens) as f64 / seconds,
        model_flops: planned.model_flops(),
        utilisation: roofline.share(planned.model_demand(), seconds),
        device_bytes: device.memory().live_bytes,
        process_bytes: host::peak_bytes(),
        start_seconds,
        losses,
        planned,
        profile,
    })
}

fn step_profile(profiler: Profiler, device: &Device) -> Result<StepProfile> {
    let profile = profiler.finish();
    let tables = profile.tables(device)?;
    Ok(StepProfile { kernels: profile.kernels, scopes: profile.scopes, tables })
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
