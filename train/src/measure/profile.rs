//! Times every launch of some training steps.

use std::ops::Range;
use std::time::Instant;

use serde_json::{Value, json};
use viral_runtime::{Device, DispatchTime, Executable, Phase};

use super::roofline::Roofline;
use super::table::{self, Row};
use super::trace::{Trace, Track};
use crate::error::Result;

/// Watches a training loop. Outside its steps it does nothing but compare a number.
#[derive(Debug)]
pub struct Profiler {
    steps: Range<u64>,
    active: bool,
    origin: Instant,
    trace: Trace,
    times: Vec<DispatchTime>,
    /// First and last moment of the steps that were watched.
    watched: Option<(Instant, Instant)>,
    seen: u64,
}

/// What a profiler has seen.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Trace in Chrome's format.
    pub trace: Value,
    /// Steps that were watched.
    pub steps: u64,
    /// Time on the device by kernel, the longest first; empty on a device without a clock.
    pub kernels: Vec<Row>,
    /// Time on the device by the model's parts, layers taken together.
    pub scopes: Vec<Row>,
    /// Wall-clock time of the steps.
    pub seconds: f64,
}

impl Profiler {
    /// Watches the given steps.
    pub fn new(steps: Range<u64>) -> Self {
        Self {
            steps,
            active: false,
            origin: Instant::now(),
            trace: Trace::default(),
            times: Vec::new(),
            watched: None,
            seen: 0,
        }
    }

    /// From here on the loop works on `step`.
    pub fn enter(&mut self, step: u64) {
        self.active = self.steps.contains(&step);
        if self.active {
            self.seen = step + 1 - self.steps.start;
        }
    }

    /// Does something that belongs to a step, on the host.
    pub fn host<T>(&mut self, name: &str, work: impl FnOnce() -> T) -> T {
        if !self.active {
            return work();
        }
        let start = Instant::now();
        let result = work();
        self.host_span(name, start, Instant::now());
        result
    }

    /// Replays a plan and waits, if the step is watched; tells whether it did.
    ///
    /// # Errors
    /// What a device can refuse.
    pub fn replay(&mut self, executable: &Executable) -> Result<bool> {
        if !self.active {
            return Ok(false);
        }
        if !executable.device().adapter().timestamps {
            self.host("replay", || executable.run()?.wait())?;
            return Ok(true);
        }
        let mut phases: Vec<(Phase, Instant)> = Vec::new();
        let times = executable.run_profiled(&mut |phase| phases.push((phase, Instant::now())))?;
        for pair in phases.windows(2) {
            let name = match pair[0].0 {
                Phase::Encode => "encode",
                Phase::Submit => "submit",
                Phase::Wait => "wait",
                Phase::End => continue,
            };
            self.host_span(name, pair[0].1, pair[1].1);
        }
        // The device's clock is another one: its first launch is drawn where it was submitted.
        let submitted = phases.iter().find(|(phase, _)| *phase == Phase::Submit);
        let start = submitted.map_or(0.0, |(_, at)| self.since(*at));
        for time in &times {
            let arguments = json!({
                "kernel": time.kernel,
                "scope": time.label,
                "gflop": time.flops as f64 / 1e9,
                "gflop_per_second": time.flops as f64 / time.nanoseconds.max(1.0),
                "gb_per_second": time.traffic as f64 / time.nanoseconds.max(1.0),
            });
            let name = format!("{} {}", time.kernel, time.label);
            let (at, seconds) = (start + time.start * 1e-9, time.nanoseconds * 1e-9);
            self.trace.span(Track::Device, &name, at, seconds, arguments);
        }
        self.times.extend(times);
        Ok(true)
    }

    /// What was seen.
    pub fn finish(self) -> Profile {
        Profile {
            trace: self.trace.to_json(),
            steps: self.seen,
            kernels: table::group(&self.times, |time| time.kernel.clone()),
            scopes: table::group(&self.times, |time| table::scope(&time.label)),
            seconds: self.watched.map_or(0.0, |(from, to)| to.duration_since(from).as_secs_f64()),
        }
    }

    fn host_span(&mut self, name: &str, start: Instant, end: Instant) {
        self.watched = Some((self.watched.map_or(start, |(from, _)| from), end));
        let (at, seconds) = (self.since(start), end.duration_since(start).as_secs_f64());
        self.trace.span(Track::Host, name, at, seconds, json!({}));
    }

    fn since(&self, at: Instant) -> f64 {
        at.saturating_duration_since(self.origin).as_secs_f64()
    }
}

impl Profile {
    /// Tables by kernel and by part of the model, means over the steps; the roof is measured now.
    ///
    /// # Errors
    /// What a device can refuse.
    pub fn tables(&self, device: &Device) -> Result<String> {
        if self.kernels.is_empty() {
            return Ok("the device has no clock: the trace shows what the host did\n".into());
        }
        let roofline = Roofline::measure(device)?;
        Ok(format!(
            "{} steps of {:.3} s each; {roofline}\n\n{}\n{}",
            self.steps,
            self.seconds / self.steps.max(1) as f64,
            table::text("kernel", &self.kernels, self.steps, &roofline),
            table::text("part of the model", &self.scopes, self.steps, &roofline),
        ))
    }
}
