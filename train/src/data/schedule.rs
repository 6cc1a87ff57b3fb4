//! Learning-rate schedules: a factor in `0..=1`, common to both learning rates, for each optimiser step.

/// How the learning rate moves over a run. All arithmetic is `f64`, as in the reference.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Schedule {
    /// Linear warm-up from 0, then half a cosine down to 0 (transformers `get_cosine_schedule_with_warmup`).
    Cosine {
        /// Steps of the run.
        steps: u64,
        /// Steps of the warm-up.
        warmup: u64,
    },
    /// Factor 1 throughout; as with transformers' `constant`, there is no warm-up.
    Constant,
}

impl Schedule {
    /// Cosine schedule over `steps` steps with a warm-up of `ceil(ratio * steps)`.
    pub fn cosine(steps: u64, warmup_ratio: f64) -> Self {
        Self::Cosine { steps, warmup: (warmup_ratio.max(0.0) * steps as f64).ceil() as u64 }
    }

    /// The factor at optimiser step `step` (0-based). The first step of a warm-up has factor 0.
    pub fn factor(self, step: u64) -> f64 {
        match self {
            Self::Constant => 1.0,
            Self::Cosine { warmup, .. } if step < warmup => step as f64 / warmup as f64,
            Self::Cosine { steps, warmup } => {
                let progress = (step - warmup) as f64 / steps.saturating_sub(warmup).max(1) as f64;
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
        let schedule = Schedule::cosine(5198, 0.03);
        assert_eq!(schedule, Schedule::Cosine { steps: 5198, warmup: 156 });
        for (step, expected) in [(0, 0.0), (1, 0.006_410_3), (78, 0.5), (156, 1.0), (2677, 0.5)] {
            assert!((schedule.factor(step) - expected).abs() < 1e-7, "step {step}: {}", schedule.factor(step));
        }
        assert!((schedule.factor(5197) - 9.706e-8).abs() < 1e-11);
    }

    #[test]
    fn short_runs_still_warm_up_for_a_step() {
        let schedule = Schedule::cosine(12, 0.03);
        assert_eq!(schedule, Schedule::Cosine { steps: 12, warmup: 1 });
        assert_eq!((schedule.factor(0), schedule.factor(1)), (0.0, 1.0));
        assert!(schedule.factor(11) > 0.0 && schedule.factor(12) < 1e-12 && schedule.factor(40) < 1e-12);
    }

    #[test]
    fn edges_stay_finite() {
        assert_eq!(Schedule::cosine(0, 0.03).factor(0), 1.0);
        assert_eq!(Schedule::cosine(5, 1.0).factor(5), 1.0);
        assert_eq!(Schedule::cosine(5, 0.0).factor(0), 1.0);
        assert_eq!(Schedule::Constant.factor(0), 1.0);
    }
}
