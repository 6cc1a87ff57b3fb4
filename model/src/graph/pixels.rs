//! The teacher's input, made out of the vision tower's.

use viral_compiler::types::DType;
use viral_compiler::{Graph, Value};

use super::extents;
use super::source::LeafSource;
use crate::config::{IMAGENET_MEAN, IMAGENET_STD};

/// What was subtracted from each colour channel, and what it was divided by then.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PixelNorm {
    /// Channel means.
    pub mean: [f64; 3],
    /// Channel standard deviations.
    pub std: [f64; 3],
}

impl PixelNorm {
    /// Values from 0 to 1 as they are.
    pub const NONE: Self = Self { mean: [0.0; 3], std: [1.0; 3] };
    /// The native normalisation of DINOv2.
    pub const IMAGENET: Self = Self { mean: IMAGENET_MEAN, std: IMAGENET_STD };
}

/// `x (I, 3, H, W)` normalised one way, as it were the other way: `x · std_from/std_to + (mean_from - mean_to)/std_to`.
pub fn renormalise(g: &mut Graph, x: Value, from: PixelNorm, to: PixelNorm) -> Value {
    if from == to {
        return x;
    }
    g.scoped("renormalise", |g| {
        let factor = per_channel(g, |c| from.std[c] / to.std[c]);
        let offset = per_channel(g, |c| (from.mean[c] - to.mean[c]) / to.std[c]);
        let x = g.mul(x, factor);
        g.add(x, offset)
    })
}

/// `x` with what is below 0 or above 1 set to these.
pub fn clamp_unit(g: &mut Graph, x: Value) -> Value {
    let zero = g.zeros_like(x);
    let x = g.maximum(x, zero);
    // min(x, 1) = 1 - max(1 - x, 0)
    let x = g.one_minus(x);
    let x = g.maximum(x, zero);
    g.one_minus(x)
}

/// `x (I, C, H, W)` at `side × side` points: two-tap bilinear with half-pixel centres, without antialiasing. The same size
/// is exactly the identity.
pub fn resize_bilinear(g: &mut Graph, x: Value, side: usize) -> Value {
    let [_, _, height, width] = extents(g, x);
    g.scoped("resize", |g| {
        let x = resize_last(g, x, width, side); // (I, C, H, side)
        let x = g.transpose(x);
        let x = resize_last(g, x, height, side);
        g.transpose(x)
    })
}

/// The last axis at another size: a product with the constant matrix of taps.
fn resize_last(g: &mut Graph, x: Value, from: usize, to: usize) -> Value {
    if from == to {
        return x;
    }
    let taps = LeafSource::Bilinear { to, from }.leaf(g, &[to, from]);
    g.linear(x, taps, None)
}

/// One number for each channel, `(1, 3, 1, 1)`.
fn per_channel(g: &mut Graph, value: impl Fn(usize) -> f64) -> Value {
    const SHAPE: [usize; 4] = [1, 3, 1, 1];
    let channel = g.iota(&SHAPE, 1);
    let mut result = g.constant(DType::F32, value(0), &SHAPE);
    for c in 1..3 {
        let index = g.constant(DType::U32, c as f64, &SHAPE);
        let here = g.equal(channel, index);
        let number = g.constant(DType::F32, value(c), &SHAPE);
        result = g.select(here, number, result);
    }
    result
}
