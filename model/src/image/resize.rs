//! Pillow's resize for 8-bit pictures, bit for bit.
//!
//! A horizontal pass, then a vertical one, each a convolution whose kernel is stretched when the picture shrinks. The
//! weights of an output pixel are normalised in f64 and rounded to 22 fractional bits; sums are integers, and the
//! picture between the passes is 8-bit again. (Pillow `libImaging/Resample.c`.)

use super::Picture;
use crate::config::Filter;

/// Fractional bits of a weight: 32 minus 8 for the pixel and 2 for sums beyond 255 and signs.
const PRECISION_BITS: u32 = 32 - 8 - 2;

/// Resizes to `width` by `height` pixels; sides of zero count as one.
pub fn resize(picture: &Picture, width: usize, height: usize, filter: Filter) -> Picture {
    let (width, height) = (width.max(1), height.max(1));
    if (width, height) == (picture.width(), picture.height()) {
        return picture.clone();
    }
    let mut current = std::borrow::Cow::Borrowed(picture);
    if width != picture.width() {
        current = std::borrow::Cow::Owned(horizontal(&current, &Taps::new(picture.width(), width, filter)));
    }
    if height != picture.height() {
        current = std::borrow::Cow::Owned(vertical(&current, &Taps::new(picture.height(), height, filter)));
    }
    current.into_owned()
}

/// For each output position, the first input position and the fixed-point weights from there on.
struct Taps {
    /// (first input position, first weight, number of weights)
    spans: Vec<(usize, usize, usize)>,
    weights: Vec<i32>,
}

impl Taps {
    fn new(input: usize, output: usize, filter: Filter) -> Self {
        let scale = input as f64 / output as f64;
        let stretch = scale.max(1.0);
        let support = radius(filter) * stretch;
        let narrow = 1.0 / stretch;
        let mut taps = Self { spans: Vec::with_capacity(output), weights: Vec::new() };
        let mut exact = Vec::new();
        for position in 0..output {
            let centre = (position as f64 + 0.5) * scale;
            // The casts truncate towards zero, negative values to 0, as the original's clamp does.
            let first = (centre - support + 0.5) as usize;
            let end = ((centre + support + 0.5) as usize).min(input);
            exact.clear();
            exact.extend((first..end).map(|x| kernel(filter, (x as f64 - centre + 0.5) * narrow)));
            let total: f64 = exact.iter().sum();
            taps.spans.push((first, taps.weights.len(), exact.len()));
            taps.weights.extend(exact.iter().map(|w| fixed(if total != 0.0 { w / total } else { *w })));
        }
        taps
    }

    /// First input position and weights of each output position.
    fn iter(&self) -> impl Iterator<Item = (usize, &[i32])> {
        self.spans.iter().map(|&(first, start, count)| (first, &self.weights[start..start + count]))
    }
}

fn horizontal(picture: &Picture, taps: &Taps) -> Picture {
    let mut out = Picture::filled(taps.spans.len(), picture.height(), [0; 3]);
    let (from_row, to_row) = (3 * picture.width(), 3 * taps.spans.len());
    for (to, from) in out.rgb_mut().chunks_exact_mut(to_row).zip(picture.rgb().chunks_exact(from_row)) {
        for (pixel, (first, weights)) in to.as_chunks_mut::<3>().0.iter_mut().zip(taps.iter()) {
            let mut sums = [HALF; 3];
            for (weight, source) in weights.iter().zip(&from.as_chunks::<3>().0[first..]) {
                for (sum, value) in sums.iter_mut().zip(source) {
                    *sum += i32::from(*value) * weight;
                }
            }
            *pixel = sums.map(clip);
        }
    }
    out
}

fn vertical(picture: &Picture, taps: &Taps) -> Picture {
    let mut out = Picture::filled(picture.width(), taps.spans.len(), [0; 3]);
    let row = 3 * picture.width();
    let mut sums = vec![HALF; row];
    for (to, (first, weights)) in out.rgb_mut().chunks_exact_mut(row).zip(taps.iter()) {
        sums.fill(HALF);
        for (weight, from) in weights.iter().zip(picture.rgb().chunks_exact(row).skip(first)) {
            for (sum, value) in sums.iter_mut().zip(from) {
                *sum += i32::from(*value) * weight;
            }
        }
        for (byte, sum) in to.iter_mut().zip(&sums) {
            *byte = clip(*sum);
        }
    }
    out
}

/// One half in fixed point: the final shift then rounds.
const HALF: i32 = 1 << (PRECISION_BITS - 1);

fn clip(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

/// Rounds half away from zero.
fn fixed(weight: f64) -> i32 {
    let scaled = weight * f64::from(1u32 << PRECISION_BITS);
    (if weight < 0.0 { scaled - 0.5 } else { scaled + 0.5 }) as i32
}

/// Half the kernel's width at scale 1.
fn radius(filter: Filter) -> f64 {
    match filter {
        Filter::Bilinear => 1.0,
        Filter::Bicubic => 2.0,
    }
}

/// The order of operations is the original's: it decides the last bit of a weight.
fn kernel(filter: Filter, x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    match filter {
        Filter::Bilinear if x < 1.0 => 1.0 - x,
        Filter::Bicubic if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
        Filter::Bicubic if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
        Filter::Bilinear | Filter::Bicubic => 0.0,
    }
}
