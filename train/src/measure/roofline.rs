//! What a device can do at best, measured: multiply-adds in registers, products of cooperative matrices, and a copy.

use std::fmt;
use std::time::Instant;

use viral_compiler::plan::Plan;
use viral_compiler::probe;
use viral_runtime::{Device, Executable, SlotPool};

use crate::error::Result;

/// Runs of a probe, of which the fastest counts.
const REPEATS: usize = 8;

/// The roof: no kernel does more than either of these.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Roofline {
    /// Floating-point operations a second.
    pub flops: f64,
    /// Those of cooperative matrices; as `flops` where they are not used.
    pub matrix_flops: f64,
    /// Bytes read and written a second.
    pub bytes: f64,
}

/// What work asks of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// Floating-point operations.
    pub flops: u64,
    /// Those among them that cooperative matrices do.
    pub matrix_flops: u64,
    /// Bytes read and written.
    pub bytes: u64,
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
        let flops = best(probe::arithmetic(target), |plan| plan.work().0 as f64)?;
        Ok(Self {
            flops,
            matrix_flops: best(probe::matrices(target), |plan| plan.work().0 as f64)?.max(flops),
            bytes: best(probe::bandwidth(target), |plan| plan.work().1 as f64)?,
        })
    }

    /// The least seconds that work can take.
    pub fn seconds(&self, demand: Demand) -> f64 {
        let Demand { flops, matrix_flops, bytes } = demand;
        let ordinary = flops.saturating_sub(matrix_flops) as f64 / self.flops;
        (ordinary + matrix_flops as f64 / self.matrix_flops).max(bytes as f64 / self.bytes)
    }

    /// The share of the roof that work reaches which takes `seconds`: 1 where it is limited by nothing but the device.
    pub fn share(&self, demand: Demand, seconds: f64) -> f64 {
        self.seconds(demand) / seconds
    }
}

impl fmt::Display for Roofline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at most {:.1} GFLOP/s", self.flops / 1e9)?;
        if self.matrix_flops > self.flops {
            write!(f, " ({:.1} on cooperative matrices)", self.matrix_flops / 1e9)?;
        }
        write!(f, ", {:.1} GB/s", self.bytes / 1e9)
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

/// The middle one of some times, the upper one of two.
pub(crate) fn median(times: &[f64]) -> Option<f64> {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_that_of_the_nearer_roof() {
        let roof = Roofline { flops: 100.0, matrix_flops: 500.0, bytes: 10.0 };
        let share = |flops, matrix_flops, bytes, seconds| roof.share(Demand { flops, matrix_flops, bytes }, seconds);
        assert_eq!(share(50, 0, 0, 1.0), 0.5);
        assert_eq!(share(50, 50, 0, 1.0), 0.1);
        assert_eq!(share(50, 0, 8, 1.0), 0.8);
        assert_eq!(share(50, 0, 8, 2.0), 0.4);
    }
}
