//! Measured work added up, as text.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;
use viral_runtime::DispatchTime;

use super::{Demand, Roofline};

/// Rows of a table; the rest is one more row.
const ROWS: usize = 24;

/// Some launches together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Work {
    /// How many.
    pub launches: u64,
    /// Time on the device in seconds.
    pub seconds: f64,
    /// Floating-point operations.
    pub flops: u64,
    /// Those among them that cooperative matrices do.
    pub matrix_flops: u64,
    /// Bytes read and written when every operand is touched once.
    pub traffic: u64,
}

/// [`Work`] under a name.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// What the launches have in common.
    pub name: String,
    /// All of them.
    #[serde(flatten)]
    pub work: Work,
}

impl Work {
    fn add(&mut self, other: &Work) {
        self.launches += other.launches;
        self.seconds += other.seconds;
        self.flops += other.flops;
        self.matrix_flops += other.matrix_flops;
        self.traffic += other.traffic;
    }
}

impl From<&DispatchTime> for Work {
    fn from(time: &DispatchTime) -> Self {
        let DispatchTime { flops, traffic, .. } = *time;
        let matrix_flops = if time.on_matrices { flops } else { 0 };
        Self { launches: 1, seconds: time.nanoseconds * 1e-9, flops, matrix_flops, traffic }
    }
}

/// Adds launches up by what `name` makes of each, the longest time first.
pub(super) fn group<'t>(
    times: impl IntoIterator<Item = &'t DispatchTime>,
    name: impl Fn(&DispatchTime) -> String,
) -> Vec<Row> {
    let mut work: BTreeMap<String, Work> = BTreeMap::new();
    for time in times {
        work.entry(name(time)).or_default().add(&time.into());
    }
    let mut rows: Vec<Row> = work.into_iter().map(|(name, work)| Row { name, work }).collect();
    rows.sort_by(|a, b| b.work.seconds.total_cmp(&a.work.seconds));
    rows
}

/// The scope of a launch with layers taken together: `layers.3.mlp.grad` is `layers.*.mlp.grad`.
pub(super) fn scope(label: &str) -> String {
    let part = |part| if str::parse::<u32>(part).is_ok() { "*" } else { part };
    label.split('.').map(part).collect::<Vec<_>>().join(".")
}

/// The rows, each as its mean over `steps` steps.
pub(super) fn text(heading: &str, rows: &[Row], steps: u64, roofline: &Roofline) -> String {
    let mut text = format!(
        "{heading:<40} {:>8} {:>10} {:>7} {:>9} {:>8} {:>7}\n",
        "launches", "ms", "time", "GFLOP/s", "GB/s", "roof"
    );
    let mut total = Work::default();
    rows.iter().for_each(|row| total.add(&row.work));
    let (shown, hidden) = rows.split_at(rows.len().min(ROWS));
    let mut others = Work::default();
    hidden.iter().for_each(|row| others.add(&row.work));
    let others = (!hidden.is_empty()).then(|| Row { name: format!("{} others", hidden.len()), work: others });
    let last = Row { name: "total".into(), work: total };
    for Row { name, work } in shown.iter().chain(&others).chain([&last]) {
        let steps = steps.max(1);
        let seconds = work.seconds.max(1e-12);
        let demand = Demand { flops: work.flops, matrix_flops: work.matrix_flops, bytes: work.traffic };
        let _ = writeln!(
            text,
            "{:<40} {:>8} {:>10.3} {:>6.1}% {:>9.1} {:>8.1} {:>6.1}%",
            short(name),
            work.launches / steps,
            1e3 * work.seconds / steps as f64,
            100.0 * work.seconds / total.seconds.max(1e-12),
            work.flops as f64 / seconds / 1e9,
            work.traffic as f64 / seconds / 1e9,
            100.0 * roofline.share(demand, seconds),
        );
    }
    text
}

/// A name that fits its column.
fn short(name: &str) -> String {
    const WIDTH: usize = 40;
    if name.chars().count() <= WIDTH { name.into() } else { name.chars().take(WIDTH - 1).chain(['…']).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(label: &str, kernel: &str, nanoseconds: f64) -> DispatchTime {
        DispatchTime {
            label: label.into(),
            kernel: kernel.into(),
            start: 0.0,
            nanoseconds,
            flops: 1000,
            on_matrices: false,
            traffic: 500,
        }
    }

    #[test]
    fn layers_are_taken_together() {
        let times = [time("layers.0.mlp", "a", 1.0), time("layers.11.mlp", "b", 3.0), time("teacher", "a", 5.0)];
        let rows = group(&times, |time| scope(&time.label));
        let names: Vec<_> = rows.iter().map(|row| (row.name.as_str(), row.work.launches)).collect();
        assert_eq!(names, [("teacher", 1), ("layers.*.mlp", 2)]);
        assert_eq!(rows[1].work.flops, 2000);
    }

    #[test]
    fn a_table_reads_well() {
        let roofline = Roofline { flops: 2e9, matrix_flops: 2e9, bytes: 1e9 };
        let times = [time("x", "gemm", 1000.0), time("x", "gemm", 3000.0), time("y", "map", 1000.0)];
        let text = text("kernel", &group(&times, |time| time.kernel.clone()), 1, &roofline);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["kernel", "launches", "ms", "time", "GFLOP/s", "GB/s", "roof"]);
        assert_eq!(lines[1], ["gemm", "2", "0.004", "80.0%", "0.5", "0.2", "25.0%"]);
        assert_eq!(lines[3][..4], ["total", "3", "0.005", "100.0%"]);
    }
}
