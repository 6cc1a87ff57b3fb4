//! What the vision transformers have in common: patch embedding and pre-norm blocks.

use viral_compiler::{Graph, Value};

use super::leaf::{Leaves, width};
use super::{activation, extents};
use crate::config::Dinov2Ffn as Ffn;

/// A pre-norm block: `x += scale1 · attention(norm1(x))`, `x += scale2 · ffn(norm2(x))`.
pub(super) struct Block {
    /// Attention heads.
    pub(super) heads: usize,
    /// Added to the variance in both norms.
    pub(super) eps: f64,
    /// Whether query, key and value have a bias; all other linear layers have one.
    pub(super) qkv_bias: bool,
    /// The feed-forward part.
    pub(super) ffn: Ffn,
    /// What the block's tensors are called.
    pub(super) names: &'static BlockNames,
}

/// Names of a block's parts in a checkpoint.
pub(super) struct BlockNames {
    pub(super) norm1: &'static str,
    pub(super) query: &'static str,
    pub(super) key: &'static str,
    pub(super) value: &'static str,
    pub(super) output: &'static str,
    pub(super) norm2: &'static str,
    /// LayerScale vectors behind attention and feed-forward part, where the family has them.
    pub(super) scales: Option<[&'static str; 2]>,
}

impl Block {
    /// `x (I, T, C)` after the block whose tensors `leaves` names.
    pub(super) fn apply(&self, g: &mut Graph, leaves: &Leaves, x: Value) -> Value {
        let [scale1, scale2] = self.names.scales.map_or([None; 2], |names| names.map(Some));
        let normed = leaves.layer_norm(g, self.names.norm1, x, self.eps);
        let attended = self.attention(g, leaves, normed);
        let attended = scaled(g, leaves, scale1, attended);
        let x = g.add(x, attended);
        let normed = leaves.layer_norm(g, self.names.norm2, x, self.eps);
        let fed = self.feed_forward(g, &leaves.under("mlp"), normed);
        let fed = scaled(g, leaves, scale2, fed);
        g.add(x, fed)
    }

    /// Full attention over `x (I, T, C)`.
    fn attention(&self, g: &mut Graph, leaves: &Leaves, x: Value) -> Value {
        let [images, tokens, channels] = extents(g, x);
        let head_dim = channels / self.heads.max(1);
        let [q, k, v] = [self.names.query, self.names.key, self.names.value].map(|name| {
            let y = leaves.linear(g, name, x, channels, self.qkv_bias);
            let y = g.reshape(y, &[images, tokens, self.heads, head_dim]);
            g.permute(y, &[0, 2, 1, 3]) // (I, H, T, E)
        });
        let y = g.attention(q, k, v, false, (head_dim as f64).powf(-0.5));
        let y = g.permute(y, &[0, 2, 1, 3]);
        let y = g.reshape(y, &[images, tokens, channels]);
        leaves.linear(g, self.names.output, y, channels, true)
    }

    fn feed_forward(&self, g: &mut Graph, leaves: &Leaves, x: Value) -> Value {
        let channels = width(g, x);
        match self.ffn {
            Ffn::Mlp { hidden, act } => {
                let y = leaves.linear(g, "fc1", x, hidden, true);
                let y = activation(g, act, y);
                leaves.linear(g, "fc2", y, channels, true)
            }
            Ffn::SwiGlu { hidden } => {
                let both = leaves.linear(g, "weights_in", x, 2 * hidden, true);
                let gate = g.slice(both, 2, 0, hidden);
                let up = g.slice(both, 2, hidden, hidden);
                let y = g.swiglu(gate, up);
                leaves.linear(g, "weights_out", y, channels, true)
            }
        }
    }
}

/// `x · name (C)`, or `x` where there is no such vector.
fn scaled(g: &mut Graph, leaves: &Leaves, name: Option<&str>, x: Value) -> Value {
    let Some(name) = name else { return x };
    let scale = leaves.tensor(g, name, &[width(g, x)]);
    g.mul(x, scale)
}

/// Patches of `pixels (I, 3, H, W)` times a convolution kernel whose stride is its own size: `(I, N, channels)`, patches
/// in row-major order.
pub(super) fn patch_embedding(
    g: &mut Graph,
    leaves: &Leaves,
    pixels: Value,
    patch: usize,
    channels: usize,
    bias: bool,
) -> Value {
    let [images, colours, height, width] = extents(g, pixels);
    let (rows, columns) = (height / patch, width / patch);
    let x = g.reshape(pixels, &[images, colours, rows, patch, columns, patch]);
    let x = g.permute(x, &[0, 2, 4, 1, 3, 5]); // (I, rows, columns, 3, p, p)
    let x = g.reshape(x, &[images, rows * columns, colours * patch * patch]);
    let weight = leaves.tensor(g, "weight", &[channels, colours, patch, patch]);
    let weight = g.reshape(weight, &[channels, colours * patch * patch]);
    let bias = bias.then(|| leaves.tensor(g, "bias", &[channels]));
    g.linear(x, weight, bias)
}
