//! One figure over the steps: as measured, smoothed, and thinned out to what a drawing can show.

/// Points (step, value) in the order of steps; values that are not finite are left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Curve {
    pub(super) points: Vec<(f64, f64)>,
}

impl Curve {
    pub(super) fn new(points: impl Iterator<Item = (f64, f64)>) -> Self {
        Self { points: points.filter(|(_, value)| value.is_finite()).collect() }
    }

    /// Smallest and largest value; infinite the wrong way round where there is none.
    pub(super) fn range(&self) -> (f64, f64) {
        let values = self.points.iter().map(|&(_, value)| value);
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)))
    }

    /// The trend: two local linear fits, the second of which rounds off the corners of the first. A short curve stays as
    /// it is.
    pub(super) fn smoothed(&self) -> Self {
        let half = self.points.len() / 20;
        if half < 2 { self.clone() } else { self.fitted(half).fitted(half) }
    }

    /// The value of a straight line fitted to each point and `half` neighbours on either side. Prefix sums make the cost
    /// independent of the window.
    fn fitted(&self, half: usize) -> Self {
        let n = self.points.len();
        let mut sums = vec![[0.0; 2]];
        let mut total = [0.0; 2];
        for (i, &(_, y)) in self.points.iter().enumerate() {
            total = [total[0] + y, total[1] + i as f64 * y];
            sums.push(total);
        }
        let between = |first: usize, end: usize| match (sums.get(first), sums.get(end)) {
            (Some(a), Some(b)) => (b[0] - a[0], b[1] - a[1]),
            _ => (0.0, 0.0),
        };
        let points = self.points.iter().enumerate().map(|(i, &(step, _))| {
            let (first, end) = (i.saturating_sub(half), (i + half + 1).min(n));
            let count = (end - first) as f64;
            let centre = (first + end - 1) as f64 / 2.0;
            let (sum_y, sum_iy) = between(first, end);
            // Sum of (i - centre)² over consecutive integers.
            let spread = count * (count * count - 1.0) / 12.0;
            let slope = (sum_iy - centre * sum_y) / spread;
            (step, sum_y / count + slope * (i as f64 - centre))
        });
        Self { points: points.collect() }
    }

    /// At most `columns` times the first, lowest, highest and last point of each stretch, which is what a line of that
    /// many pixels can show.
    pub(super) fn thinned(&self, columns: usize) -> Self {
        let stretch = self.points.len().div_ceil(columns.max(1)).max(1);
        if stretch <= 4 {
            return self.clone();
        }
        let mut points = Vec::new();
        for part in self.points.chunks(stretch) {
            let by_value = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
            let mut kept: Vec<_> =
                [part.first(), part.iter().min_by(by_value), part.iter().max_by(by_value), part.last()]
                    .into_iter()
                    .flatten()
                    .copied()
                    .collect();
            kept.sort_by(|a, b| a.0.total_cmp(&b.0));
            kept.dedup();
            points.extend(kept);
        }
        Self { points }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_straight_line_stays_as_it_is() {
        let line = Curve::new((0..200).map(|i| (f64::from(i), 7.0 - 0.01 * f64::from(i))));
        for (a, b) in line.points.iter().zip(&line.smoothed().points) {
            assert!((a.1 - b.1).abs() < 1e-9, "{a:?} {b:?}");
        }
    }

    #[test]
    fn noise_becomes_small() {
        let noise = Curve::new((0..400).map(|i| (f64::from(i), if i % 2 == 0 { 1.0 } else { -1.0 })));
        assert!(noise.smoothed().points.iter().skip(2).rev().skip(2).all(|&(_, y)| y.abs() < 0.2));
    }

    #[test]
    fn thinning_keeps_ends_and_extremes() {
        let mut points: Vec<_> = (0..10_000).map(|i| (f64::from(i), 1.0)).collect();
        points[5123].1 = 9.0;
        points[6123].1 = -9.0;
        let thin = Curve { points: points.clone() }.thinned(300);
        assert!(thin.points.len() <= 1200, "{}", thin.points.len());
        assert_eq!(thin.range(), (-9.0, 9.0));
        assert_eq!((thin.points.first(), thin.points.last()), (points.first(), points.last()));
        assert!(thin.points.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn values_that_are_not_finite_are_left_out() {
        let curve = Curve::new([(0.0, 1.0), (1.0, f64::NAN), (2.0, f64::INFINITY), (3.0, 2.0)].into_iter());
        assert_eq!(curve.points, [(0.0, 1.0), (3.0, 2.0)]);
        assert!(Curve::default().smoothed().points.is_empty());
    }
}
