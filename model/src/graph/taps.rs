//! Resampling of regular grids as a product with a matrix of taps.

use super::source::Interpolation;

/// The matrix `(to, from)` whose row `i` holds the weights of the old points in new point `i`. Points are the centres of
/// cells that fill the same interval.
///
/// Where a new point lies is rounded to `f32` as in PyTorch, which moves weights by up to 3e-6: more than all else.
pub(super) fn taps(filter: Interpolation, to: usize, from: usize) -> Vec<f64> {
    let mut matrix = vec![0.0; to * from];
    let scale = match filter {
        Interpolation::OffsetBicubic => (1.0 / ((to as f64 + 0.1) / from as f64)) as f32,
        Interpolation::Bilinear | Interpolation::Bicubic | Interpolation::AntialiasedBicubic => from as f32 / to as f32,
    };
    for (i, row) in matrix.chunks_exact_mut(from.max(1)).enumerate() {
        let cells = i as f32 + 0.5;
        // The product and the difference are one instruction, which rounds once.
        let at = f64::from(scale.mul_add(cells, -0.5));
        match filter {
            Interpolation::Bilinear => two_taps(row, at.max(0.0)),
            Interpolation::Bicubic | Interpolation::OffsetBicubic => four_taps(row, at),
            Interpolation::AntialiasedBicubic => wide_taps(row, f64::from(scale * cells), f64::from(scale.max(1.0))),
        }
    }
    matrix
}

/// A square grid of `side · side` rows of `width` numbers, at another size.
pub(super) fn resample_grid(
    table: &[f32],
    side: usize,
    [rows, columns]: [usize; 2],
    width: usize,
    filter: Interpolation,
) -> Vec<f32> {
    let (vertical, horizontal) = (taps(filter, rows, side), taps(filter, columns, side));
    let mut result = Vec::with_capacity(rows * columns * width);
    for row_taps in vertical.chunks_exact(side) {
        for column_taps in horizontal.chunks_exact(side) {
            let mut point = vec![0.0; width];
            for (old_row, a) in table.chunks_exact(side * width).zip(row_taps).filter(|(_, a)| **a != 0.0) {
                for (old, b) in old_row.chunks_exact(width).zip(column_taps).filter(|(_, b)| **b != 0.0) {
                    point.iter_mut().zip(old).for_each(|(sum, x)| *sum += a * b * f64::from(*x));
                }
            }
            result.extend(point.into_iter().map(|x: f64| x as f32));
        }
    }
    result
}

/// The rows of a table at another number, by linear interpolation.
pub(super) fn resample_rows(table: &[f32], from: usize, to: usize, width: usize) -> Vec<f32> {
    let mut result = Vec::with_capacity(to * width);
    for taps in taps(Interpolation::Bilinear, to, from).chunks_exact(from) {
        let mut row = vec![0.0; width];
        for (old, tap) in table.chunks_exact(width).zip(taps).filter(|(_, tap)| **tap != 0.0) {
            row.iter_mut().zip(old).for_each(|(sum, x)| *sum += tap * f64::from(*x));
        }
        result.extend(row.into_iter().map(|x: f64| x as f32));
    }
    result
}

fn two_taps(row: &mut [f64], at: f64) {
    let (left, t) = (at.floor(), at - at.floor());
    add_clamped(row, left, 1.0 - t);
    add_clamped(row, left + 1.0, t);
}

fn four_taps(row: &mut [f64], at: f64) {
    let left = at.floor();
    for x in [left - 1.0, left, left + 1.0, left + 2.0] {
        add_clamped(row, x, cubic(at - x, -0.75));
    }
}

fn wide_taps(row: &mut [f64], centre: f64, stretch: f64) {
    let support = 2.0 * stretch;
    let first = (centre - support + 0.5).max(0.0) as usize;
    let last = ((centre + support + 0.5) as usize).min(row.len());
    for (x, weight) in row.iter_mut().enumerate().take(last).skip(first) {
        *weight = cubic((x as f64 + 0.5 - centre) / stretch, -0.5);
    }
    let total: f64 = row.iter().sum();
    row.iter_mut().for_each(|weight| *weight /= total);
}

/// Points beyond the edge count as the point at the edge.
fn add_clamped(row: &mut [f64], x: f64, weight: f64) {
    let last = row.len().saturating_sub(1) as f64;
    if let Some(tap) = row.get_mut(x.clamp(0.0, last) as usize) {
        *tap += weight;
    }
}

/// R. Keys' cubic convolution kernel with parameter `a`.
fn cubic(t: f64, a: f64) -> f64 {
    let t = t.abs();
    if t <= 1.0 {
        ((a + 2.0) * t - (a + 3.0)) * t * t + 1.0
    } else if t < 2.0 {
        ((t - 5.0) * t + 8.0) * a * t - 4.0 * a
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A unit impulse at point 8 of 16, upsampled to 32: values of points 13 to 16 in PyTorch and Pillow.
    #[test]
    fn impulse_responses_are_those_of_the_libraries() {
        for (filter, expected) in [
            (Interpolation::Bicubic, [-0.03515625, -0.10546875, 0.26171875, 0.87890625]),
            (Interpolation::AntialiasedBicubic, [-0.0234375, -0.0703125, 0.2265625, 0.8671875]),
            (Interpolation::Bilinear, [0.0, 0.0, 0.25, 0.75]),
        ] {
            let matrix = taps(filter, 32, 16);
            let response: Vec<f64> = (13..17).map(|i| matrix[i * 16 + 8]).collect();
            assert_eq!(response, expected, "{filter:?}");
        }
    }

    #[test]
    fn weights_add_up_to_one_and_equal_sizes_are_the_identity() {
        for filter in [Interpolation::Bilinear, Interpolation::Bicubic, Interpolation::AntialiasedBicubic] {
            for (to, from) in [(5, 4), (24, 37), (7, 3), (2, 9)] {
                for row in taps(filter, to, from).chunks(from) {
                    assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-12, "{filter:?} {to} {from}");
                }
            }
            let table: Vec<f32> = (0..18).map(|x| x as f32).collect();
            assert_eq!(resample_grid(&table, 3, [3, 3], 2, filter), table, "{filter:?}");
        }
    }
}
