//! Ranges with round tick marks.

/// A linear axis from data to pixels.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Axis {
    /// Data at the two ends.
    data: (f64, f64),
    /// Pixels at the two ends.
    pixels: (f64, f64),
    /// Distance between tick marks, in data.
    spacing: f64,
}

impl Axis {
    /// Covers `low` to `high`, widened to whole tick marks, with about `ticks` of them.
    pub(super) fn rounded(low: f64, high: f64, pixels: (f64, f64), ticks: f64) -> Self {
        let (low, high) = if low.is_finite() && high.is_finite() { (low, high) } else { (0.0, 1.0) };
        // A flat curve gets a range of its own size around it, and zero gets one of 1.
        let slack = if high > low { 0.0 } else { (low.abs() * 0.05).max(if low == 0.0 { 0.5 } else { 1e-9 }) };
        let (low, high) = (low - slack, high + slack);
        let spacing = spacing(high - low, ticks);
        Self { data: ((low / spacing).floor() * spacing, (high / spacing).ceil() * spacing), pixels, spacing }
    }

    /// Covers exactly 0 to `high`, with tick marks at whole numbers.
    pub(super) fn steps(high: f64, pixels: (f64, f64), ticks: f64) -> Self {
        Self { data: (0.0, high), pixels, spacing: spacing(high, ticks).max(1.0) }
    }

    /// Pixel of a value.
    pub(super) fn pixel(&self, value: f64) -> f64 {
        let ((a, b), (p, q)) = (self.data, self.pixels);
        p + (value - a) / (b - a) * (q - p)
    }

    /// Tick marks within the axis, from low to high.
    pub(super) fn ticks(&self) -> Vec<f64> {
        let (low, high) = self.data;
        let first = (low / self.spacing - 1e-6).ceil() as i64;
        let last = (high / self.spacing + 1e-6).floor() as i64;
        (first..=last).map(|n| n as f64 * self.spacing).collect()
    }

    /// A tick mark's number, with as many decimals as the spacing needs.
    pub(super) fn label(&self, tick: f64) -> String {
        let decimals = (-self.spacing.log10() - 1e-9).ceil().clamp(0.0, 9.0) as usize;
        let text = format!("{tick:.decimals$}");
        // A true minus sign is as wide as the digits around it.
        if text.trim_start_matches(['-', '0', '.']).is_empty() {
            text.trim_start_matches('-').into()
        } else {
            text.replace('-', "\u{2212}")
        }
    }
}

/// 1, 2 or 5 times a power of ten, so that about `ticks` of it fill `range`.
fn spacing(range: f64, ticks: f64) -> f64 {
    let rough = range / ticks.max(1.0);
    let power = 10f64.powf(rough.log10().floor());
    let factor = match rough / power {
        x if x < 1.5 => 1.0,
        x if x < 3.5 => 2.0,
        x if x < 7.5 => 5.0,
        _ => 10.0,
    };
    factor * power
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> Vec<String> {
        axis.ticks().into_iter().map(|tick| axis.label(tick)).collect()
    }

    #[test]
    fn ticks_are_round_and_cover_the_data() {
        let axis = Axis::rounded(2.13, 6.9, (300.0, 100.0), 5.0);
        assert_eq!(labels(&axis), ["2", "3", "4", "5", "6", "7"]);
        assert_eq!((axis.pixel(2.0), axis.pixel(7.0)), (300.0, 100.0));
        let axis = Axis::rounded(-0.42, 0.03, (1.0, 0.0), 4.0);
        assert_eq!(labels(&axis), ["−0.5", "−0.4", "−0.3", "−0.2", "−0.1", "0.0", "0.1"]);
    }

    #[test]
    fn flat_and_empty_data_still_have_an_axis() {
        for (low, high) in
            [(0.0, 0.0), (5.0, 5.0), (-1e-12, -1e-12), (f64::INFINITY, f64::NEG_INFINITY), (f64::NAN, 1.0)]
        {
            let axis = Axis::rounded(low, high, (0.0, 1.0), 5.0);
            assert!((2..=12).contains(&axis.ticks().len()), "{low} {high}: {axis:?}");
            assert!(axis.pixel(0.5).is_finite());
        }
    }

    #[test]
    fn steps_have_whole_ticks() {
        for (high, last) in [(1.0, "1"), (3.0, "3"), (59.0, "55"), (5197.0, "5000")] {
            let labels = labels(&Axis::steps(high, (0.0, 1.0), 8.0));
            assert_eq!(
                (labels.first().map(String::as_str), labels.last().map(String::as_str)),
                (Some("0"), Some(last))
            );
            assert!(labels.iter().all(|label| !label.contains('.')));
        }
    }
}
