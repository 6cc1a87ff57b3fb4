//! Learning-rate schedules: a factor in `0..=1`, common to both learning rates, for each optimiser step.

use crate::config::{Schedule, VraConfig, WeightSchedule};

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

/// The factor of the alignment loss over a run, in `f64`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VraWeight {
    schedule: WeightSchedule,
    first: f64,
    end: f64,
    steps: u64,
}

impl VraWeight {
    /// The configured factor over `steps` optimiser steps.
    pub fn new(config: &VraConfig, steps: u64) -> Self {
        Self { schedule: config.weight_schedule, first: config.weight, end: config.weight_end, steps }
    }

    /// The factor at optimiser step `step` (0-based): `vra.weight` at the first and, unless it is constant,
    /// `vra.weight_end` at the last.
    pub fn at(self, step: u64) -> f64 {
        let progress = (step as f64 / self.steps.saturating_sub(1).max(1) as f64).min(1.0);
        let left = match self.schedule {
            WeightSchedule::Constant => return self.first,
            WeightSchedule::Linear => 1.0 - progress,
            WeightSchedule::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
        };
        self.end + (self.first - self.end) * left
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

    #[test]
    fn the_weight_goes_from_its_first_to_its_last_value() {
        let weight = |weight_schedule| {
            VraWeight::new(&VraConfig { weight_schedule, weight: 0.5, weight_end: 0.1, ..VraConfig::default() }, 5)
        };
        let at = |schedule| [0, 1, 2, 4, 9].map(|step| weight(schedule).at(step));
        let close =
            |found: [f64; 5], expected: [f64; 5]| found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-15);
        assert_eq!(at(WeightSchedule::Constant), [0.5; 5]);
        assert!(close(at(WeightSchedule::Linear), [0.5, 0.4, 0.3, 0.1, 0.1]));
        let eighth = 0.1 + 0.4 * 0.5 * (1.0 + std::f64::consts::FRAC_1_SQRT_2);
        assert!(close(at(WeightSchedule::Cosine), [0.5, eighth, 0.3, 0.1, 0.1]));
        let one_step = VraConfig { weight_schedule: WeightSchedule::Linear, ..VraConfig::default() };
        assert_eq!(VraWeight::new(&one_step, 1).at(0), 0.5);
    }
}
