//! The progress line: where the run is, how it goes, how long it will take.

use std::time::{Duration, Instant};

use super::metrics::{StepMetrics, Validation};
use super::terminal;

/// Shows steps on standard error: one line that moves on a terminal, and lines at intervals elsewhere.
#[derive(Debug)]
pub(super) struct Progress {
    steps: u64,
    show: Show,
    /// Running mean of a step's duration in seconds.
    pace: Option<f64>,
    last_line: Option<Instant>,
}

/// How steps are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Show {
    /// The user wants warnings only.
    Nothing,
    /// A line that stays, now and then.
    Lines,
    /// One line that moves.
    Animation,
}

/// Without a terminal, a line is printed for every twentieth part of the run, and when this long has passed.
const SILENCE: Duration = Duration::from_secs(30);

impl Progress {
    pub(super) fn new(steps: u64) -> Self {
        let show = match log::max_level() >= log::LevelFilter::Info {
            false => Show::Nothing,
            true if terminal::is_animated() => Show::Animation,
            true => Show::Lines,
        };
        Self { steps, show, pace: None, last_line: None }
    }

    /// Takes note of a step and shows it.
    pub(super) fn step(&mut self, metrics: &StepMetrics) {
        // The first step compiles kernels, so the second one replaces its pace.
        let pace = match self.pace {
            Some(pace) if metrics.step > 1 => 0.9 * pace + 0.1 * metrics.seconds,
            _ => metrics.seconds,
        };
        self.pace = Some(pace);
        if let Some(validation) = &metrics.validation {
            log::info!("{}", validation_line(metrics.step + 1, validation));
        }
        let done = metrics.step + 1;
        let left = self.steps.saturating_sub(done);
        let line = status_line(metrics, self.steps, pace * left as f64);
        match self.show {
            Show::Animation => terminal::show_status(&format!("{} {line}", bar(done, self.steps))),
            Show::Lines if self.is_due(done) => {
                terminal::print(&line);
                self.last_line = Some(Instant::now());
            }
            Show::Lines | Show::Nothing => {}
        }
    }

    fn is_due(&self, done: u64) -> bool {
        let part = self.steps.div_ceil(20).max(1);
        let silent = self.last_line.is_some_and(|last| last.elapsed() >= SILENCE);
        done == 1 || done.is_multiple_of(part) || done == self.steps || silent
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.show == Show::Animation {
            terminal::clear_status();
        }
    }
}

/// One step in words. `left` is the expected time to the end of the run, in seconds.
fn status_line(metrics: &StepMetrics, steps: u64, left: f64) -> String {
    let width = steps.to_string().len();
    let skipped = if metrics.skipped { "  skipped" } else { "" };
    let ross = if metrics.loss_ross == 0.0 { String::new() } else { format!("  ross {}", loss(metrics.loss_ross)) };
    format!(
        "step {:>width$}/{steps}  loss {}  lm {}  vra {}{ross}  lr {}  grad {:.3}  {} tok/s  eta {}{skipped}",
        metrics.step + 1,
        loss(metrics.loss),
        loss(metrics.loss_lm),
        alignment(metrics.loss_vra),
        rate(metrics.lr),
        metrics.grad_norm,
        count(metrics.tokens_per_second),
        duration(left),
    )
}

/// An evaluation in words.
fn validation_line(done: u64, validation: &Validation) -> String {
    let Validation { loss_lm, loss_vra, samples, best, .. } = validation;
    let best = if *best { ", the best so far" } else { "" };
    format!(
        "validation after {done} steps on {samples} samples: lm {}, vra {}{best}",
        loss(*loss_lm).trim(),
        alignment(*loss_vra).trim()
    )
}

fn bar(done: u64, steps: u64) -> String {
    const WIDTH: u64 = 16;
    let filled = (done.min(steps) * WIDTH).checked_div(steps).unwrap_or(WIDTH);
    let part = |n: u64, c: &str| c.repeat(usize::try_from(n).unwrap_or(0));
    let done_style = anstyle::AnsiColor::Green.on_default();
    let left_style = anstyle::Style::new().dimmed();
    format!("{done_style}{}{done_style:#}{left_style}{}{left_style:#}", part(filled, "━"), part(WIDTH - filled, "━"))
}

/// A step without a supervised token has no loss.
fn loss(loss: f64) -> String {
    if loss.is_finite() { format!("{loss:.4}") } else { format!("{:>6}", "–") }
}

/// A step of text-only samples aligns nothing and reports 0, which is no cosine.
fn alignment(loss: f64) -> String {
    if loss == 0.0 { format!("{:>7}", "–") } else { format!("{loss:.4}") }
}

fn rate(lr: f64) -> String {
    if lr == 0.0 { "0".into() } else { format!("{lr:.2e}") }
}

/// Three significant digits, with a prefix for thousands and millions.
pub(super) fn count(x: f64) -> String {
    match x {
        x if !x.is_finite() => "?".into(),
        x if x < 9.995 => format!("{x:.2}"),
        x if x < 99.95 => format!("{x:.1}"),
        x if x < 999.5 => format!("{x:.0}"),
        x if x < 999_500.0 => format!("{}k", count(x / 1e3)),
        x => format!("{}M", count(x / 1e6)),
    }
}

/// Seconds as `m:ss`, as `h:mm:ss`, or as days and hours.
pub fn duration(seconds: f64) -> String {
    let seconds = seconds.max(0.0).round() as u64;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600, seconds / 60);
    if days > 0 {
        format!("{days}d {:02}h", hours % 24)
    } else if hours > 0 {
        format!("{hours}:{:02}:{:02}", minutes % 60, seconds % 60)
    } else {
        format!("{minutes}:{:02}", seconds % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::super::metrics::tests::sample;
    use super::*;

    #[test]
    fn a_step_reads_well() {
        let line = status_line(&sample(11), 60, 42.4);
        assert_eq!(
            line,
            "step 12/60  loss 5.0000  lm 5.1000  vra -0.2000  lr 1.00e-4  grad 1.250  200 tok/s  eta 0:42"
        );
        let line = status_line(&StepMetrics { loss_ross: 0.875, ..sample(11) }, 60, 42.4);
        assert!(line.contains("  vra -0.2000  ross 0.8750  lr 1.00e-4"), "{line}");
    }

    #[test]
    fn an_evaluation_reads_well() {
        let validation = Validation {
            loss: 1.4,
            loss_lm: 1.5,
            loss_vra: 0.0,
            loss_ross: 0.0,
            samples: 20,
            supervised_tokens: 90,
            best: true,
        };
        let line = validation_line(60, &validation);
        assert_eq!(line, "validation after 60 steps on 20 samples: lm 1.5000, vra –, the best so far");
    }

    #[test]
    fn times_and_counts() {
        let times = [(0.4, "0:00"), (59.6, "1:00"), (3599.0, "59:59"), (3661.0, "1:01:01"), (90_000.0, "1d 01h")];
        for (seconds, text) in times {
            assert_eq!(duration(seconds), text);
        }
        assert_eq!(duration(f64::NAN), "0:00");
        for (x, text) in [(0.1, "0.10"), (9.999, "10.0"), (345.6, "346"), (12_345.0, "12.3k"), (2.5e6, "2.50M")] {
            assert_eq!(count(x), text);
        }
    }

    #[test]
    fn plain_lines_come_twenty_times_and_at_both_ends() {
        let progress = Progress { steps: 1000, show: Show::Lines, pace: None, last_line: None };
        let lines = (1..=1000).filter(|&done| progress.is_due(done)).count();
        assert_eq!(lines, 21);
        let short = Progress { steps: 3, show: Show::Lines, pace: None, last_line: None };
        assert_eq!((1..=3).filter(|&done| short.is_due(done)).count(), 3);
    }

    #[test]
    fn the_bar_is_as_long_at_both_ends() {
        for (done, steps) in [(0, 10), (5, 10), (10, 10), (11, 10), (1, 0)] {
            assert_eq!(bar(done, steps).matches('━').count(), 16, "{done}/{steps}");
        }
    }
}
