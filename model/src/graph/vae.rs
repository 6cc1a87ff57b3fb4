//! The encoder of a variational autoencoder, and the latents that the reconstructive objective predicts. Reference: R. Rombach
//! et al., High-Resolution Image Synthesis with Latent Diffusion Models, 2022, in the form of the library's `AutoencoderKL`.
//!
//! Pictures lie as `(I, H, W, C)`, so that a 1×1 convolution is a product. A 3×3 convolution is nine, over views of the
//! padded picture, and needs no other memory than that.

use viral_compiler::types::DType;
use viral_compiler::{Graph, Value};

use super::leaf::{Leaves, Trainable};
use super::pixels::{self, PixelNorm};
use super::source::{LeafSource, Origin};
use super::{VAE, extents};
use crate::config::VaeConfig;

/// Added to the variance in every norm.
const EPS: f64 = 1e-6;

/// Bytes that one activation takes, at most, if several pictures are encoded together: what every device can bind.
const ACTIVATION: usize = 128 << 20;

/// Latents are grouped by 2×2, a group for each visual token.
const GROUP: usize = 2;

impl VaeConfig {
    /// Width of the latent of a visual token.
    pub fn token_width(&self) -> usize {
        GROUP * GROUP * self.latent_channels
    }

    /// Side of the picture that has `grid` × `grid` groups of latents.
    pub fn picture_side(&self, grid: usize) -> usize {
        grid * GROUP * self.reduction()
    }
}

/// What the encoder makes of the vision tower's `pixels (I, 3, S, S)`, which are normalised like `from`: mean and deviation
/// of the latents of `grid` × `grid` visual tokens, `(I·grid², 2·token_width)`. Channel `c` at `(y, x)` of a token's group
/// is its number `4·c + 2·y + x`.
pub fn posterior(g: &mut Graph, config: &VaeConfig, from: PixelNorm, grid: usize, pixels: Value) -> Value {
    let side = config.picture_side(grid);
    // From -1 to 1, and cut there before the size changes.
    let x = pixels::renormalise(g, pixels, from, PixelNorm::NONE);
    let x = pixels::clamp_unit(g, x);
    let x = g.scale(x, 2.0);
    let x = g.offset(x, -1.0);
    let x = pixels::resize_bilinear(g, x, side);
    let x = g.permute(x, &[0, 2, 3, 1]);
    let [images] = extents(g, x);
    let at_once = (ACTIVATION / largest_activation(config, side)).clamp(1, images.max(1));
    g.scoped(VAE, |g| {
        let mut parts = Vec::new();
        for first in (0..images).step_by(at_once) {
            let some = g.slice(x, 0, first, at_once.min(images - first));
            parts.push(tokens(g, config, some, grid));
        }
        g.concat(&parts, 0)
    })
}

/// Latents out of a [`posterior`] and `noise (M, token_width)` of deviation 1, shifted and scaled as the configuration
/// says; `(M, token_width)`.
pub fn sample(g: &mut Graph, config: &VaeConfig, posterior: Value, noise: Value) -> Value {
    let width = config.token_width();
    let mean = g.slice(posterior, 1, 0, width);
    let deviation = g.slice(posterior, 1, width, width);
    let spread = g.mul(deviation, noise);
    let latent = g.add(mean, spread);
    let shifted = g.offset(latent, -config.shift_factor);
    g.scale(shifted, config.scaling_factor)
}

/// Canonical names and shapes of the tensors that the encoder reads, in the order of a forward pass.
pub(crate) fn tensors(config: &VaeConfig) -> Vec<(String, Vec<usize>)> {
    let mut g = Graph::new();
    let side = config.picture_side(1);
    let x = g.input("pixels", DType::F32, &[1, side, side, 3]);
    tokens(&mut g, config, x, 1);
    let tensor = |name: &str, shape: &[usize]| match LeafSource::of(name) {
        LeafSource::Tensor { origin: Origin::Vae, name } => Some((name, shape.to_vec())),
        LeafSource::Taps { name, outputs, inputs, .. } => Some((name, vec![outputs, inputs, 3, 3])),
        _ => None,
    };
    g.leaves().filter_map(|leaf| tensor(leaf.name, &leaf.ty.shape)).collect()
}

/// Mean and deviation of pictures `x (I, S, S, 3)` from -1 to 1.
fn tokens(g: &mut Graph, config: &VaeConfig, x: Value, grid: usize) -> Value {
    let moments = moments(g, config, x);
    let latent = config.latent_channels;
    let mean = g.slice(moments, 3, 0, latent);
    let log_variance = g.slice(moments, 3, latent, latent);
    let log_variance = clamp(g, log_variance, [-30.0, 20.0]);
    let half = g.scale(log_variance, 0.5);
    let deviation = g.exp(half);
    let parts = [mean, deviation].map(|x| {
        let [images] = extents(g, x);
        let x = g.reshape(x, &[images, grid, GROUP, grid, GROUP, latent]);
        let x = g.permute(x, &[0, 1, 3, 5, 2, 4]); // (I, rows, columns, C, 2, 2)
        g.reshape(x, &[images * grid * grid, config.token_width()])
    });
    g.concat(&parts, 1)
}

/// Mean and logarithm of the variance, `(I, S/reduction, S/reduction, 2·latent_channels)`.
fn moments(g: &mut Graph, config: &VaeConfig, x: Value) -> Value {
    let all = Leaves::new(VAE, Trainable::NOTHING);
    let leaves = all.under("encoder");
    let net = Encoder { groups: config.groups };
    let first = config.channels.first().copied().unwrap_or(1);
    let last = config.channels.last().copied().unwrap_or(1);
    let mut x = convolution(g, &leaves.under("conv_in"), x, first, Stride::One);
    for (index, &channels) in config.channels.iter().enumerate() {
        let block = leaves.under(&format!("down_blocks.{index}"));
        x = g.scoped(format!("down_blocks.{index}"), |g| {
            for layer in 0..config.layers_per_block {
                x = net.residual(g, &block.under(&format!("resnets.{layer}")), x, channels);
            }
            if index + 1 == config.channels.len() {
                return x;
            }
            convolution(g, &block.under("downsamplers.0.conv"), x, channels, Stride::Two)
        });
    }
    x = g.scoped("mid_block", |g| {
        let mid = leaves.under("mid_block");
        x = net.residual(g, &mid.under("resnets.0"), x, last);
        if config.mid_attention {
            x = net.attention(g, &mid.under("attentions.0"), x);
        }
        net.residual(g, &mid.under("resnets.1"), x, last)
    });
    let x = net.norm(g, &leaves.under("conv_norm_out"), x);
    let x = g.silu(x);
    let moments = 2 * config.latent_channels;
    let x = convolution(g, &leaves.under("conv_out"), x, moments, Stride::One);
    if config.quant_conv { pointwise(g, &all.under("quant_conv"), x, moments) } else { x }
}

/// What the layers have in common.
struct Encoder {
    groups: usize,
}

impl Encoder {
    /// Two convolutions beside a shortcut: `x (I, H, W, C)`, result `(I, H, W, outputs)`.
    fn residual(&self, g: &mut Graph, leaves: &Leaves, x: Value, outputs: usize) -> Value {
        let [.., channels] = extents::<4>(g, x);
        let y = self.norm(g, &leaves.under("norm1"), x);
        let y = g.silu(y);
        let y = convolution(g, &leaves.under("conv1"), y, outputs, Stride::One);
        let y = self.norm(g, &leaves.under("norm2"), y);
        let y = g.silu(y);
        let y = convolution(g, &leaves.under("conv2"), y, outputs, Stride::One);
        let x = if channels == outputs { x } else { pointwise(g, &leaves.under("conv_shortcut"), x, outputs) };
        g.add(x, y)
    }

    /// Attention of one head over all points of `x (I, H, W, C)`, added to it.
    fn attention(&self, g: &mut Graph, leaves: &Leaves, x: Value) -> Value {
        let shape: [usize; 4] = extents(g, x);
        let [images, height, width, channels] = shape;
        let normed = self.norm(g, &leaves.under("group_norm"), x);
        let [q, k, v] = ["to_q", "to_k", "to_v"].map(|name| {
            let y = leaves.linear(g, name, normed, channels, true);
            g.reshape(y, &[images, height * width, 1, channels])
        });
        let y = g.attention(q, k, v, false, (channels as f64).powf(-0.5));
        let y = g.reshape(y, &shape);
        let y = leaves.linear(g, "to_out.0", y, channels, true);
        g.add(x, y)
    }

    /// Normalisation of each group of channels of `x (I, H, W, C)` over all points.
    fn norm(&self, g: &mut Graph, leaves: &Leaves, x: Value) -> Value {
        let shape: [usize; 4] = extents(g, x);
        let [images, height, width, channels] = shape;
        let share = channels / self.groups.max(1);
        let split = [1, 1, self.groups, share];
        let [weight, bias] = ["weight", "bias"].map(|name| {
            let tensor = leaves.tensor(g, name, &[channels]);
            g.reshape(tensor, &split)
        });
        let x = g.reshape(x, &[images, height * width, self.groups, share]);
        let count = (height * width * share) as f64;
        let mean = mean(g, x, count);
        let centred = g.sub(x, mean);
        let square = g.mul(centred, centred);
        let variance = self::mean(g, square, count);
        let shifted = g.offset(variance, EPS);
        let deviation = g.sqrt(shifted);
        let normed = g.div(centred, deviation);
        let scaled = g.mul(normed, weight);
        let y = g.add(scaled, bias);
        g.reshape(y, &shape)
    }
}

/// Mean over points and the channels of a group, `count` in all: `x (I, H·W, G, C/G)`, result `(I, 1, G, 1)`.
fn mean(g: &mut Graph, x: Value, count: f64) -> Value {
    let sum = g.sum(x, &[3]);
    let sum = g.sum(sum, &[1]);
    g.scale(sum, 1.0 / count)
}

/// Every how many points a convolution is computed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stride {
    /// At every point, with zeros around the picture.
    One,
    /// At every second one, with zeros at its right and lower edge.
    Two,
}

/// A 3×3 convolution of `x (I, H, W, C)`: `(I, H, W, outputs)`, or half the sides. The sum of nine products, one for each
/// neighbour.
fn convolution(g: &mut Graph, leaves: &Leaves, x: Value, outputs: usize, stride: Stride) -> Value {
    let [images, height, width, channels] = extents(g, x);
    let weight = LeafSource::taps(&leaves.name("weight"), outputs, channels).leaf(g, &[9, outputs, channels]);
    // With stride 2 a second line of zeros makes the sides even; nothing reads it.
    let [before, after] = if stride == Stride::One { [1, 1] } else { [0, 2] };
    let padded = g.pad(x, 1, before, after);
    let padded = g.pad(padded, 2, before, after);
    let step = if stride == Stride::One { 1 } else { 2 };
    let (rows, columns) = (height / step, width / step);
    let padded = g.reshape(padded, &[images, (height + 2) / step, step, (width + 2) / step, step, channels]);
    let mut sum = None;
    for tap in 0..9 {
        let (dy, dx) = (tap / 3, tap % 3);
        let mut shifted = padded;
        for (axis, start, len) in [(1, dy / step, rows), (2, dy % step, 1), (3, dx / step, columns), (4, dx % step, 1)]
        {
            shifted = g.slice(shifted, axis, start, len);
        }
        let shifted = g.reshape(shifted, &[images, rows, columns, channels]);
        let matrix = g.slice(weight, 0, tap, 1);
        let matrix = g.transpose(matrix);
        let matrix = g.expand(matrix, &[images, rows, channels, outputs]);
        let term = g.dot(shifted, matrix);
        sum = Some(sum.map_or(term, |sum| g.add(sum, term)));
    }
    let bias = leaves.tensor(g, "bias", &[outputs]);
    let sum = sum.unwrap_or(x);
    g.add(sum, bias)
}

/// A 1×1 convolution of `x (I, H, W, C)`.
fn pointwise(g: &mut Graph, leaves: &Leaves, x: Value, outputs: usize) -> Value {
    let [.., channels] = extents::<4>(g, x);
    let weight = leaves.tensor(g, "weight", &[outputs, channels, 1, 1]);
    let weight = g.reshape(weight, &[outputs, channels]);
    let bias = leaves.tensor(g, "bias", &[outputs]);
    g.linear(x, weight, Some(bias))
}

/// `x` with what lies outside of two limits set to these.
fn clamp(g: &mut Graph, x: Value, [low, high]: [f64; 2]) -> Value {
    let shape = g.shape(x).to_vec();
    let low = g.constant(DType::F32, low, &shape);
    let x = g.maximum(x, low);
    // min(x, high) = -max(-x, -high)
    let x = g.neg(x);
    let high = g.constant(DType::F32, -high, &shape);
    let x = g.maximum(x, high);
    g.neg(x)
}

/// Bytes of the largest activation of one picture, zeros around it included.
fn largest_activation(config: &VaeConfig, side: usize) -> usize {
    let levels = config.channels.iter().enumerate();
    levels.map(|(level, channels)| ((side >> level) + 2).pow(2) * channels * 4).max().unwrap_or(1).max(1)
}
