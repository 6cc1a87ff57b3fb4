//! What the vision transformers have in common: patch embedding and pre-norm blocks.

use viral_compiler::{Graph, Value};

use super::leaf::{Leaves, width};
use super::source::{Interpolation, LeafSource};
use super::{activation, extents};
pub(super) use crate::config::Dinov2Ffn as Ffn;

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
    pub(super) attention: AttentionNames,
    pub(super) output: &'static str,
    pub(super) norm2: &'static str,
    /// The two linear layers of an MLP; a gated one has names of its own.
    pub(super) mlp: [&'static str; 2],
    /// LayerScale vectors behind attention and feed-forward part, where the family has them.
    pub(super) scales: Option<[&'static str; 2]>,
}

/// Names of the layers that make query, key and value.
pub(super) enum AttentionNames {
    /// Three layers.
    Apart { query: &'static str, key: &'static str, value: &'static str },
    /// One layer whose rows are those of query, key and value.
    Fused(&'static str),
}

/// What most families call the layers of their MLPs.
pub(super) const MLP: [&str; 2] = ["mlp.fc1", "mlp.fc2"];

impl Block {
    /// `x (I, T, C)` after the block whose tensors `leaves` names.
    pub(super) fn apply(&self, g: &mut Graph, leaves: &Leaves, x: Value) -> Value {
        self.apply_with(g, leaves, x, |g, normed| self.attention(g, leaves, normed))
    }

    /// As [`Self::apply`], with another attention over the normalised tokens.
    pub(super) fn apply_with(
        &self,
        g: &mut Graph,
        leaves: &Leaves,
        x: Value,
        attention: impl FnOnce(&mut Graph, Value) -> Value,
    ) -> Value {
        let [scale1, scale2] = self.names.scales.map_or([None; 2], |names| names.map(Some));
        let normed = leaves.layer_norm(g, self.names.norm1, x, self.eps);
        let attended = attention(g, normed);
        let attended = scaled(g, leaves, scale1, attended);
        let x = g.add(x, attended);
        let normed = leaves.layer_norm(g, self.names.norm2, x, self.eps);
        let fed = self.feed_forward(g, leaves, normed);
        let fed = scaled(g, leaves, scale2, fed);
        g.add(x, fed)
    }

    /// Full attention over `x (I, T, C)`.
    pub(super) fn attention(&self, g: &mut Graph, leaves: &Leaves, x: Value) -> Value {
        let [_, _, channels] = extents(g, x);
        let [q, k, v] = self.query_key_value(g, leaves, x);
        let y = g.attention(q, k, v, false, self.scale(channels));
        self.attended(g, leaves, y)
    }

    /// Factor on the scores of a block of `channels`.
    pub(super) fn scale(&self, channels: usize) -> f64 {
        ((channels / self.heads.max(1)) as f64).powf(-0.5)
    }

    /// Query, key and value of `x (I, T, C)`, each `(I, T, H, E)`.
    pub(super) fn query_key_value(&self, g: &mut Graph, leaves: &Leaves, x: Value) -> [Value; 3] {
        let [images, tokens, channels] = extents(g, x);
        let parts = match self.names.attention {
            AttentionNames::Apart { query, key, value } => {
                [query, key, value].map(|name| leaves.linear(g, name, x, channels, self.qkv_bias))
            }
            AttentionNames::Fused(name) => {
                let all = leaves.linear(g, name, x, 3 * channels, self.qkv_bias);
                [0, 1, 2].map(|part| g.slice(all, 2, part * channels, channels))
            }
        };
        parts.map(|y| g.reshape(y, &[images, tokens, self.heads, channels / self.heads.max(1)]))
    }

    /// The output projection of what attention made, `(I, T, H, E)` to `(I, T, C)`.
    pub(super) fn attended(&self, g: &mut Graph, leaves: &Leaves, y: Value) -> Value {
        let [images, tokens, heads, head_dim] = extents(g, y);
        let y = g.reshape(y, &[images, tokens, heads * head_dim]);
        leaves.linear(g, self.names.output, y, heads * head_dim, true)
    }

    /// The feed-forward part on `x (I, T, C)`.
    pub(super) fn feed_forward(&self, g: &mut Graph, leaves: &Leaves, x: Value) -> Value {
        let channels = width(g, x);
        match self.ffn {
            Ffn::Mlp { hidden, act } => {
                let y = leaves.linear(g, self.names.mlp[0], x, hidden, true);
                let y = activation(g, act, y);
                leaves.linear(g, self.names.mlp[1], y, channels, true)
            }
            Ffn::SwiGlu { hidden } => {
                let both = leaves.linear(g, "mlp.weights_in", x, 2 * hidden, true);
                let gate = g.slice(both, 2, 0, hidden);
                let up = g.slice(both, 2, hidden, hidden);
                let y = g.swiglu(gate, up);
                leaves.linear(g, "mlp.weights_out", y, channels, true)
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

/// A learned position table for a square grid, behind the rows of `extra` tokens.
pub(super) struct PositionTable {
    /// Name of the tensor.
    pub(super) name: &'static str,
    /// Shape of the tensor from its rows and their width.
    pub(super) shape: fn(usize, usize) -> Vec<usize>,
    /// Rows before those of the grid.
    pub(super) extra: usize,
    /// Side of the stored grid.
    pub(super) side: usize,
    /// How other grids are made.
    pub(super) filter: Interpolation,
}

impl PositionTable {
    /// Positions for `grid`: the stored table where the grid is its own, else the resampled one. `(extra + N, width)`,
    /// behind the axes that `shape` puts in front.
    pub(super) fn leaf(&self, g: &mut Graph, leaves: &Leaves, grid: [usize; 2], width: usize) -> Value {
        let shape = (self.shape)(self.extra + grid[0] * grid[1], width);
        if grid == [self.side; 2] {
            return leaves.tensor(g, self.name, &shape);
        }
        LeafSource::position_table(&leaves.name(self.name), grid, self.filter).leaf(g, &shape)
    }
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
    let [_, colours] = extents(g, pixels);
    let x = patches(g, pixels, patch);
    let weight = leaves.tensor(g, "weight", &[channels, colours, patch, patch]);
    let weight = g.reshape(weight, &[channels, colours * patch * patch]);
    let bias = bias.then(|| leaves.tensor(g, "bias", &[channels]));
    g.linear(x, weight, bias)
}

/// The patches of `pixels (I, 3, H, W)` in row-major order, each as its `(3, patch, patch)` values: `(I, N, 3·patch²)`.
/// Pixels beyond the last whole patch are left out.
pub(super) fn patches(g: &mut Graph, pixels: Value, patch: usize) -> Value {
    let [images, colours, height, width] = extents(g, pixels);
    let (rows, columns) = (height / patch, width / patch);
    let x = g.slice(pixels, 2, 0, rows * patch);
    let x = g.slice(x, 3, 0, columns * patch);
    let x = g.reshape(x, &[images, colours, rows, patch, columns, patch]);
    let x = g.permute(x, &[0, 2, 4, 1, 3, 5]); // (I, rows, columns, 3, p, p)
    g.reshape(x, &[images, rows * columns, colours * patch * patch])
}
