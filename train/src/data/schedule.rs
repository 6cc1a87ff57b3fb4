//! Learning-rate schedules: a factor in `0..=1`, common to both learning rates, for each optimiser step.

use crate::config::Schedule;

/// The learning rate over a run, as a factor on its peak. All arithmetic is `f64`, as in the reference.
///
/// The factor rises linearly from 0 over the warm-up and then follows the schedule (transformers `optimization.py`,
/// `get_cosine_schedule_with_warmup` and `get_constant_schedule_with_warmup`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LrSchedule {
    /// What follows the warm-up.
    pub schedule: Schedule,
    /// Optimiser steps of the run.
    pub steps: u64,
    /// Steps of the warm-up.
    pub warmup: u64,
}

impl LrSchedule {
    /// A schedule over `steps` steps with a warm-up of `ceil(warmup_ratio * steps)`.
    pub fn new(schedule: Schedule, steps: u64, warmup_ratio: f64) -> Self {
        Self { schedule, steps, warmup: (warmup_ratio.max(0.0) * steps as f64).ceil() as u64 }
    }

    /// The factor at optimiser step `step` (0-based). The first step of a warm-up has factor 0.
    pub fn factor(self, step: u64) -> f64 {
        if step < self.warmup {
            return step as f64 / self.warmup as f64;
        }
        match self.schedule {
            Schedule::Constant => 1.0,
            Schedule::Cosine => {
                let progress = (step - self.warmup) as f64 / self.steps.saturating_sub(self.warmup).max(1) as f64;
                // Past its end the cosine would rise again.
                (0.5 * (1.0 + (std::f64::consts::PI * progress.min(1.0)).cos())).max(0.0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosine_has_the_factors_of_the_specification() {
        let schedule = LrSchedule::new(Schedule::Cosine, 5198, 0.03);
        assert_eq!(schedule.warmup, 156);
        for (step, expected) in [(0, 0.0), (1, 0.006_410_3), (78, 0.5), (156, 1.0), (2677, 0.5)] {
            assert!((schedule.factor(step) - expected).abs() < 1e-7, "step {step}: {}", schedule.factor(step));
        }
        assert!((schedule.factor(5197) - 9.706e-8).abs() < 1e-11);
    }

    #[test]
    fn short_runs_still_warm_up_for_a_step() {
        let schedule = LrSchedule::new(Schedule::Cosine, 12, 0.03);
        assert_eq!(schedule.warmup, 1);
        assert_eq!((schedule.factor(0), schedule.factor(1)), (0.0, 1.0));
        assert!(schedule.factor(11) > 0.0 && schedule.factor(12) < 1e-12 && schedule.factor(40) < 1e-12);
    }

    #[test]
    fn constant_stays_after_its_warm_up() {
        let schedule = LrSchedule::new(Schedule::Constant, 100, 0.04);
        assert_eq!([0, 1, 4, 99].map(|step| schedule.factor(step)), [0.0, 0.25, 1.0, 1.0]);
    }

    #[test]
    fn edges_stay_finite() {
        assert_eq!(LrSchedule::new(Schedule::Cosine, 0, 0.03).factor(0), 1.0);
        assert_eq!(LrSchedule::new(Schedule::Cosine, 5, 1.0).factor(5), 1.0);
        assert_eq!(LrSchedule::new(Schedule::Cosine, 5, 0.0).factor(0), 1.0);
    }
}
