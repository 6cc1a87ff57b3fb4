//! Which of several plans of one problem is the fastest: measured in turn, judged by medians.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use viral_compiler::Tuning;
use viral_compiler::plan::Plan;
use viral_compiler::tunables::Question;
use viral_runtime::{Buffer, Device, Executable, SlotPool};

use super::record::Entry;
use crate::error::Result;
use crate::measure::kernels::bound;
use crate::measure::roofline::{self, seconds};

/// What a choice's median time must be below, as a share of the rule's: a machine with other work varies by some percent, and
/// a choice that is no better is one more way for two machines to differ.
const CLEARLY: f64 = 0.95;
/// The share of rounds that it must win.
const MOST_ROUNDS: f64 = 0.75;
/// What is slower than the fastest by this factor at first sight is not measured further.
const HOPELESS: f64 = 1.5;
/// Rounds in which every choice takes its turn.
const ROUNDS: usize = 5;
/// Rounds of the best choice and the rule's alone, which decide: the best of many is partly lucky.
const FINAL_ROUNDS: usize = 9;
/// Longest time for one question, in seconds.
const LONGEST: f64 = 6.0;

/// Measures the choices of a question within about so many seconds. Nothing comes of it where the rule's choice stays, and where
/// there is nothing to measure: a problem that cannot be alone, or that this device cannot hold.
pub(super) fn answer(device: &Device, question: &Question, tuning: &Tuning, budget: f64) -> Result<Option<Entry>> {
    let plans = match question.plans(tuning) {
        Ok(plans) if plans.len() > 1 => plans,
        Ok(_) => return Ok(None),
        Err(error) => {
            log::debug!("{} of {} is not measured: {error}", question.tunable, question.class);
            return Ok(None);
        }
    };
    let start = Instant::now();
    let budget = Duration::from_secs_f64(budget.min(LONGEST));
    // Compiling kernels is a price that a run pays once, but a long one, so what is not measured is not compiled either.
    let mut memory = Memory::default();
    let mut runners: Vec<Runner<'_>> = Vec::new();
    for (index, (choice, plan)) in plans.iter().enumerate() {
        if index > 1 && start.elapsed() > budget {
            break;
        }
        match Runner::new(device, choice, plan, &mut memory) {
            Ok(runner) => runners.push(runner),
            // Whatever this plan lacks, others may not; a device that is lost has nothing for anybody.
            Err(error) => {
                device.check()?;
                log::debug!("{} of {}: {choice} is not measured: {error}", question.tunable, question.class);
                if index == 0 {
                    return Ok(None);
                }
            }
        }
    }
    let deadline = start + budget.max(2 * start.elapsed());
    // At first sight, when everything is compiled and warm.
    rounds(&mut runners, 1, Instant::now())?;
    runners.iter_mut().for_each(|runner| runner.times.clear());
    rounds(&mut runners, 2, Instant::now())?;
    let fastest = runners.iter().map(Runner::shortest).fold(f64::INFINITY, f64::min);
    let rule = runners[0].choice;
    runners.retain(|runner| runner.choice == rule || runner.shortest() <= HOPELESS * fastest);
    rounds(&mut runners, ROUNDS, deadline)?;
    let Some(best) = runners.iter().skip(1).min_by(|a, b| a.median().total_cmp(&b.median())).map(|best| best.choice)
    else {
        return Ok(None);
    };
    runners.retain(|runner| [rule, best].contains(&runner.choice));
    if !is_faster(&runners[1].times, &runners[0].times) {
        return Ok(None);
    }
    runners.iter_mut().for_each(|runner| runner.times.clear());
    rounds(&mut runners, FINAL_ROUNDS, deadline)?;
    let [by_rule, best] = &runners[..] else { return Ok(None) };
    if !is_faster(&best.times, &by_rule.times) {
        return Ok(None);
    }
    let milliseconds = |runner: &Runner<'_>| (runner.median() * 1e6).round() / 1e3;
    Ok(Some(Entry {
        tunable: question.tunable.to_owned(),
        class: question.class.clone(),
        choice: best.choice.to_owned(),
        rule: question.rule.clone(),
        choice_ms: milliseconds(best),
        rule_ms: milliseconds(by_rule),
    }))
}

/// What all plans of a question share: only one of them runs at a time.
#[derive(Default)]
struct Memory {
    buffers: HashMap<String, Buffer>,
    slots: SlotPool,
}

/// A choice, bound to memory, and the times it took.
struct Runner<'q> {
    choice: &'q str,
    executable: Executable,
    times: Vec<f64>,
}

impl<'q> Runner<'q> {
    fn new(device: &Device, choice: &'q str, plan: &Plan, memory: &mut Memory) -> Result<Self, viral_runtime::Error> {
        device.prepare([plan])?;
        let executable = bound(device, plan, &mut memory.buffers, &mut memory.slots)?;
        Ok(Self { choice, executable, times: Vec::new() })
    }

    fn shortest(&self) -> f64 {
        self.times.iter().copied().fold(f64::INFINITY, f64::min)
    }

    fn median(&self) -> f64 {
        median(&self.times)
    }
}

/// Lets every choice run so many times, in turn, or fewer where time is over: three times at least if more are wanted.
fn rounds(runners: &mut [Runner<'_>], count: usize, deadline: Instant) -> Result<()> {
    for round in 0..count {
        if round >= 3 && Instant::now() > deadline {
            break;
        }
        for runner in runners.iter_mut() {
            runner.times.push(seconds(&runner.executable)?);
        }
    }
    Ok(())
}

fn median(times: &[f64]) -> f64 {
    roofline::median(times).unwrap_or(f64::INFINITY)
}

/// Whether one is clearly faster than the other, by times that were taken in turn.
fn is_faster(times: &[f64], than: &[f64]) -> bool {
    let won = times.iter().zip(than).filter(|(time, than)| time < than).count();
    median(times) < CLEARLY * median(than) && won as f64 >= MOST_ROUNDS * times.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_clearly_faster_wins() {
        let rule = [10.0, 10.4, 9.9, 10.1, 30.0];
        for (times, wins) in [
            ([9.0, 9.1, 8.9, 9.2, 9.0], true),
            ([9.0, 9.1, 28.0, 9.2, 9.0], true),
            // 4 % faster; faster in the median by more, but in three rounds of five only.
            ([9.7, 9.7, 9.7, 9.7, 9.7], false),
            ([9.0, 9.1, 12.0, 12.0, 9.3], false),
            (rule, false),
        ] {
            assert_eq!(is_faster(&times, &rule), wins, "{times:?}");
        }
        assert!(!is_faster(&[], &[]));
    }
}
