//! Cuts a command list into submissions of bounded length.
//!
//! Operating systems reset a GPU that is busy with one submission for too long (two seconds on Windows and on current amdgpu),
//! and a desktop stutters much earlier. How long a dispatch takes is estimated from its operations and traffic with rates that
//! are low for the kind of hardware: a cut too many costs tens of microseconds, one too few may cost the device.

use std::ops::Range;

use crate::adapter::AdapterKind;

/// Assumed speed of a kind of device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rates {
    /// Floating-point operations a second.
    flops: f64,
    /// Bytes a second.
    traffic: f64,
    /// Seconds that every dispatch costs.
    dispatch: f64,
    /// Seconds that one submission should take at most.
    budget: f64,
}

impl Rates {
    pub(crate) fn of(kind: AdapterKind) -> Self {
        match kind {
            AdapterKind::Discrete => Self { flops: 2e12, traffic: 150e9, dispatch: 10e-6, budget: 0.05 },
            AdapterKind::Integrated | AdapterKind::Virtual | AdapterKind::Other => {
                Self { flops: 200e9, traffic: 20e9, dispatch: 10e-6, budget: 0.05 }
            }
            // No watchdog, no desktop: only that a program can be interrupted between submissions.
            AdapterKind::Cpu => Self { flops: 20e9, traffic: 2e9, dispatch: 20e-6, budget: 0.2 },
        }
    }

    fn seconds(self, flops: u64, traffic: u64) -> f64 {
        self.dispatch + (flops as f64 / self.flops).max(traffic as f64 / self.traffic)
    }
}

/// Ranges that cover all commands in order, each within the budget or of one command; `work` is (operations, bytes).
pub(crate) fn split(rates: Rates, work: impl Iterator<Item = (u64, u64)>) -> Vec<Range<usize>> {
    let mut batches = Vec::new();
    let (mut start, mut end, mut seconds) = (0, 0, 0.0);
    for (flops, traffic) in work {
        let cost = rates.seconds(flops, traffic);
        if end > start && seconds + cost > rates.budget {
            batches.push(start..end);
            (start, seconds) = (end, 0.0);
        }
        end += 1;
        seconds += cost;
    }
    if end > start {
        batches.push(start..end);
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_cover_everything_in_order() {
        let rates = Rates::of(AdapterKind::Discrete);
        let work = (0..1000).map(|i| ((i * 7919) % 97 * 1_000_000_000, (i * 104_729) % 89 * 10_000_000));
        let batches = split(rates, work.clone());
        assert_eq!(batches.first().map(|batch| batch.start), Some(0));
        assert_eq!(batches.last().map(|batch| batch.end), Some(1000));
        assert!(batches.windows(2).all(|pair| pair[0].end == pair[1].start));
        let work: Vec<_> = work.collect();
        for batch in batches {
            let seconds: f64 = work[batch.clone()].iter().map(|&(flops, traffic)| rates.seconds(flops, traffic)).sum();
            assert!(seconds <= rates.budget || batch.len() == 1, "{batch:?} takes {seconds} s");
        }
    }

    #[test]
    fn a_command_over_the_budget_is_alone() {
        let rates = Rates::of(AdapterKind::Integrated);
        let long = 1_000_000_000_000;
        assert_eq!(split(rates, [(1, 1), (long, 1), (1, 1), (1, 1)].into_iter()), [0..1, 1..2, 2..4]);
        assert_eq!(split(rates, std::iter::empty()), []);
    }
}
