//! What a device can do at best, measured: multiply-adds in registers, and a copy.

use std::time::Instant;

use viral_compiler::plan::Plan;
use viral_compiler::probe;
use viral_runtime::{Device, Executable, SlotPool};

use crate::error::Result;

/// Runs of a probe, of which the fastest counts.
const REPEATS: usize = 5;

/// The roof: no kernel does more than either of these.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Roofline {
    /// Floating-point operations a second.
    pub flops: f64,
    /// Bytes read and written a second.
    pub bytes: f64,
}

impl Roofline {
    /// Measures a device; takes some tenths of a second.
    ///
    /// # Errors
    /// What a device can refuse.
    pub fn measure(device: &Device) -> Result<Self> {
        let best = |plans: Vec<Plan>, work: fn(&Plan) -> f64| -> Result<f64> {
            let mut best: f64 = 0.0;
            for plan in plans {
                let executable = Executable::new(device, &plan, &|_| None, &mut SlotPool::new())?;
                for _ in 0..REPEATS {
                    best = best.max(work(&plan) / seconds(&executable)?);
                }
            }
            Ok(best)
        };
        let target = device.target();
        Ok(Self {
            flops: best(probe::arithmetic(target), |plan| plan.work().0 as f64)?,
            bytes: best(probe::bandwidth(target), |plan| plan.work().1 as f64)?,
        })
    }

    /// The least seconds that work can take.
    pub fn seconds(&self, flops: u64, bytes: u64) -> f64 {
        (flops as f64 / self.flops).max(bytes as f64 / self.bytes)
    }

    /// The share of the roof that work reaches which takes `seconds`: 1 where it is limited by nothing but the device.
    pub fn share(&self, flops: u64, bytes: u64, seconds: f64) -> f64 {
        self.seconds(flops, bytes) / seconds
    }
}

/// How long a replay takes on the device, or, on a device without a clock, from submission to completion.
///
/// # Errors
/// What a device can refuse.
pub fn seconds(executable: &Executable) -> Result<f64> {
    if executable.device().adapter().timestamps {
        let times = executable.run_profiled(&mut |_| ())?;
        return Ok(times.iter().map(|time| time.nanoseconds).sum::<f64>().max(1.0) * 1e-9);
    }
    let start = Instant::now();
    executable.run()?.wait()?;
    Ok(start.elapsed().as_secs_f64().max(1e-9))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_that_of_the_nearer_roof() {
        let roof = Roofline { flops: 100.0, bytes: 10.0 };
        assert_eq!(roof.share(50, 0, 1.0), 0.5);
        assert_eq!(roof.share(50, 8, 1.0), 0.8);
        assert_eq!(roof.share(50, 8, 2.0), 0.4);
    }
}
