//! The image encoder of SAM. Reference: A. Kirillov et al., Segment Anything, 2023; relative positions: Y. Li et al.,
//! MViTv2, 2022.

use std::sync::Arc;

use serde_json::{Value as Json, json};
use viral_compiler::{Graph, Value};

use super::super::leaf::{Leaves, Trainable};
use super::super::pixels::PixelNorm;
use super::super::source::{Interpolation, LeafSource};
use super::super::vit::{self, Block, BlockNames, Ffn};
use super::super::{TEACHER, extents};
use super::recognise::Tensors;
use super::{Kind, Teacher, TeacherInput};
use crate::config::{Activation, ConfigError, Section};
use crate::weights::NameMap;

pub(super) const KIND: Kind =
    Kind { model_types: &["sam", "sam_vision_model"], read, recognise: Some((NameMap::Sam, recognise)) };

fn recognise(tensors: &Tensors) -> Option<Result<Json, String>> {
    let is_mine = tensors.has("layers.0.attn.rel_pos_h") && tensors.has("neck.conv1.weight");
    is_mine.then(|| described(tensors))
}

fn described(tensors: &Tensors) -> Result<Json, String> {
    let hidden = tensors.extent("pos_embed", 3)?;
    let (own, patch) = (tensors.extent("pos_embed", 1)?, tensors.extent("patch_embed.projection.weight", 3)?);
    let layers = tensors.layers("layers.");
    // A table of 2n - 1 rows is that of n points.
    let points = |layer: usize| Ok(tensors.extent(&format!("layers.{layer}.attn.rel_pos_h"), 0)?.div_ceil(2));
    let points = (0..layers).map(points).collect::<Result<Vec<usize>, String>>()?;
    let global: Vec<usize> = (0..layers).filter(|&layer| points[layer] == own).collect();
    Ok(json!({
        "model_type": "sam_vision_model",
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden / tensors.extent("layers.0.attn.rel_pos_h", 1)?,
        "mlp_dim": tensors.extent("layers.0.mlp.lin1.weight", 0)?,
        "qkv_bias": tensors.has("layers.0.attn.qkv.bias"),
        "image_size": own * patch,
        "patch_size": patch,
        "window_size": points.iter().copied().filter(|&points| points != own).min().unwrap_or(own),
        "global_attn_indexes": global,
        "output_channels": tensors.extent("neck.conv1.weight", 0)?,
    }))
}

fn read(s: &Section<'_>) -> Result<Arc<dyn Teacher>, ConfigError> {
    let config = match s.text("model_type")? {
        Some("sam") => match s.section("vision_config")? {
            Some(vision) => SamConfig::from_section(&vision)?,
            None => return Err(s.wrong("vision_config", "the configuration of the image encoder")),
        },
        _ => SamConfig::from_section(s)?,
    };
    Ok(Arc::new(config))
}

/// A pre-norm vision transformer on a canvas of fixed size, most of whose blocks attend within windows; a convolutional
/// neck makes its features.
#[derive(Clone, Debug, PartialEq)]
pub struct SamConfig {
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Blocks.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Activation of the MLP.
    pub hidden_act: Activation,
    /// Side of the canvas in pixels.
    pub canvas: usize,
    /// Side of a square patch in pixels.
    pub patch_size: usize,
    /// Patches along the side of a window.
    pub window: usize,
    /// Blocks, counted from 0, that attend over the whole canvas.
    pub global_blocks: Vec<usize>,
    /// Width of the neck's features.
    pub output_channels: usize,
    /// Whether query, key and value have a bias.
    pub qkv_bias: bool,
    /// Added to the variance in every LayerNorm of the blocks.
    pub layer_norm_eps: f64,
}

/// Added to the variance in the neck's norms.
const NECK_EPS: f64 = 1e-6;

/// Scores that attention over the whole canvas computes at once, at most. They take 4 bytes each, twice.
const SCORES: usize = 1 << 27;

const NAMES: BlockNames = BlockNames {
    norm1: "layer_norm1",
    attention: vit::AttentionNames::Fused("attn.qkv"),
    output: "attn.proj",
    norm2: "layer_norm2",
    mlp: ["mlp.lin1", "mlp.lin2"],
    scales: None,
};

impl SamConfig {
    fn from_section(s: &Section<'_>) -> Result<Self, ConfigError> {
        for (key, only) in [("num_channels", json!(3)), ("use_abs_pos", json!(true)), ("use_rel_pos", json!(true))] {
            s.refuse_unless(key, only)?;
        }
        let hidden_size = s.size("hidden_size", 768)?;
        let intermediate_size = match s.optional_size("mlp_dim")? {
            Some(width) => width,
            None => (hidden_size as f64 * s.positive("mlp_ratio", 4.0)?) as usize,
        };
        let layers = s.layers("num_hidden_layers", 12)?;
        let config = Self {
            hidden_size,
            layers,
            heads: s.size("num_attention_heads", 12)?,
            intermediate_size,
            hidden_act: s.activation("hidden_act", Activation::Gelu, &[Activation::Gelu, Activation::GeluTanh])?,
            canvas: s.side("image_size", 1024)?,
            patch_size: s.side("patch_size", 16)?,
            window: s.size("window_size", 14)?,
            global_blocks: global_blocks(s, layers)?,
            output_channels: s.size("output_channels", 256)?,
            qkv_bias: s.flag("qkv_bias", true)?,
            layer_norm_eps: s.positive("layer_norm_eps", 1e-6)?,
        };
        s.divisible(("hidden_size", hidden_size), ("num_attention_heads", config.heads))?;
        s.divisible(("image_size", config.canvas), ("patch_size", config.patch_size))?;
        if !(1..=1 << 24).contains(&intermediate_size) {
            return Err(s.wrong("mlp_ratio", "a ratio that gives a sensible width"));
        }
        Ok(config)
    }
}

fn global_blocks(s: &Section<'_>, layers: usize) -> Result<Vec<usize>, ConfigError> {
    const KEY: &str = "global_attn_indexes";
    let Some(value) = s.value(KEY) else { return Ok(vec![2, 5, 8, 11]) };
    let index = |x: &Json| x.as_u64().map(|x| x as usize).filter(|&x| x < layers);
    let indices = value.as_array().and_then(|list| list.iter().map(index).collect());
    indices.ok_or_else(|| s.wrong(KEY, "a list of blocks, counted from 0"))
}

impl Teacher for SamConfig {
    fn width(&self) -> usize {
        self.output_channels
    }

    fn patch(&self) -> usize {
        self.patch_size
    }

    fn own_grid(&self) -> usize {
        self.canvas / self.patch_size
    }

    fn largest_grid(&self) -> Option<usize> {
        Some(self.own_grid())
    }

    fn input(&self) -> TeacherInput {
        TeacherInput::Normalised(PixelNorm::IMAGENET)
    }

    fn names(&self) -> NameMap {
        NameMap::Sam
    }

    fn unused(&self) -> Vec<String> {
        Vec::new()
    }

    /// The picture is pasted into the middle of a canvas of zeros, and its part of the features is cut out. There is no
    /// table to resample: the canvas always has its own size.
    fn features(&self, g: &mut Graph, pixels: Value, _positions: Option<Interpolation>) -> Value {
        let leaves = Leaves::new(TEACHER, Trainable::NOTHING);
        let [images, _, side] = extents(g, pixels);
        let (own, grid) = (self.own_grid(), side / self.patch_size);
        // Where the middle is between two patches, the upper left one.
        let start = (own.saturating_sub(grid)) / 2;
        let canvas = paste(g, pixels, self.canvas, start * self.patch_size);
        let x = g.scoped("embeddings", |g| {
            let projection = leaves.under("patch_embed.projection");
            let x = vit::patch_embedding(g, &projection, canvas, self.patch_size, self.hidden_size, true);
            let positions = leaves.tensor(g, "pos_embed", &[1, own, own, self.hidden_size]);
            let positions = g.reshape(positions, &[1, own * own, self.hidden_size]);
            g.add(x, positions)
        });
        let x = self.blocks(g, &leaves, x);
        let x = g.reshape(x, &[images, own, own, self.hidden_size]);
        let x = g.scoped("neck", |g| self.neck(g, &leaves.under("neck"), x));
        let x = g.slice(x, 1, start, grid);
        let x = g.slice(x, 2, start, grid);
        g.reshape(x, &[images * grid * grid, self.output_channels])
    }
}

impl SamConfig {
    /// `x (I, N, C)` after all blocks.
    fn blocks(&self, g: &mut Graph, leaves: &Leaves, mut x: Value) -> Value {
        let block = Block {
            heads: self.heads,
            eps: self.layer_norm_eps,
            qkv_bias: self.qkv_bias,
            ffn: Ffn::Mlp { hidden: self.intermediate_size, act: self.hidden_act },
            names: &NAMES,
        };
        for layer in 0..self.layers {
            let leaves = leaves.under(&format!("layers.{layer}"));
            x = g.scoped(format!("layers.{layer}"), |g| {
                block.apply_with(g, &leaves, x, |g, x| match self.global_blocks.contains(&layer) {
                    true => attention(g, &block, &leaves, x, self.own_grid()),
                    false => self.within_windows(g, x, |g, x| attention(g, &block, &leaves, x, self.window)),
                })
            });
        }
        x
    }

    /// `x (I, N, C)` cut into windows, which attend one by one. Zeros fill up the windows at the right and the bottom;
    /// they are tokens like any other.
    fn within_windows(&self, g: &mut Graph, x: Value, attend: impl FnOnce(&mut Graph, Value) -> Value) -> Value {
        let (own, w) = (self.own_grid(), self.window);
        let count = own.div_ceil(w);
        let [images, _, channels] = extents(g, x);
        let x = g.reshape(x, &[images, own, own, channels]);
        let x = g.pad(x, 1, 0, count * w - own);
        let x = g.pad(x, 2, 0, count * w - own);
        let x = g.reshape(x, &[images, count, w, count, w, channels]);
        let x = g.permute(x, &[0, 1, 3, 2, 4, 5]);
        let x = g.reshape(x, &[images * count * count, w * w, channels]);
        let x = attend(g, x);
        let x = g.reshape(x, &[images, count, count, w, w, channels]);
        let x = g.permute(x, &[0, 1, 3, 2, 4, 5]);
        let x = g.reshape(x, &[images, count * w, count * w, channels]);
        let x = g.slice(x, 1, 0, own);
        let x = g.slice(x, 2, 0, own);
        g.reshape(x, &[images, own * own, channels])
    }

    /// Two convolutions, each with a norm over the channels: `(I, S, S, C)` to `(I, S, S, outputs)`.
    fn neck(&self, g: &mut Graph, leaves: &Leaves, x: Value) -> Value {
        let [.., channels] = extents::<4>(g, x);
        let outputs = self.output_channels;
        let weight = leaves.under("conv1").tensor(g, "weight", &[outputs, channels, 1, 1]);
        let weight = g.reshape(weight, &[outputs, channels]);
        let x = g.linear(x, weight, None);
        let x = leaves.layer_norm(g, "layer_norm1", x, NECK_EPS);
        let x = convolution(g, &leaves.under("conv2"), x);
        leaves.layer_norm(g, "layer_norm2", x, NECK_EPS)
    }
}

/// `pixels (I, 3, s, s)` at `(start, start)` of a canvas of zeros, `(I, 3, side, side)`.
fn paste(g: &mut Graph, pixels: Value, side: usize, start: usize) -> Value {
    let [_, _, size] = extents(g, pixels);
    let after = side.saturating_sub(start + size);
    let x = g.pad(pixels, 2, start, after);
    g.pad(x, 3, start, after)
}

/// A 3×3 convolution with zeros around, without bias, of `x (I, S, S, C)`: as many channels out as in. Nine
/// products, one for each neighbour.
fn convolution(g: &mut Graph, leaves: &Leaves, x: Value) -> Value {
    let [_, rows, columns, channels] = extents(g, x);
    let weight = leaves.tensor(g, "weight", &[channels, channels, 3, 3]);
    let weight = g.permute(weight, &[2, 3, 0, 1]); // (3, 3, out, in)
    let padded = g.pad(x, 1, 1, 1);
    let padded = g.pad(padded, 2, 1, 1);
    let mut sum = None;
    for dy in 0..3 {
        for dx in 0..3 {
            let shifted = g.slice(padded, 1, dy, rows);
            let shifted = g.slice(shifted, 2, dx, columns);
            let tap = g.slice(weight, 0, dy, 1);
            let tap = g.slice(tap, 1, dx, 1);
            let tap = g.reshape(tap, &[channels, channels]);
            let term = g.linear(shifted, tap, None);
            sum = Some(sum.map_or(term, |sum| g.add(sum, term)));
        }
    }
    sum.unwrap_or(x)
}

/// Attention over `x (B, side², C)` with decomposed relative positions: the score of query `q` and key `k` is
/// `scale · q·k + q·Rh[y_q - y_k] + q·Rw[x_q - x_k]`.
fn attention(g: &mut Graph, block: &Block, leaves: &Leaves, x: Value, side: usize) -> Value {
    let [batch, tokens, channels] = extents(g, x);
    let (heads, width) = (block.heads, channels / block.heads.max(1));
    let qkv = block.query_key_value(g, leaves, x);
    let [q, k, v] = qkv.map(|x| {
        let x = g.permute(x, &[0, 2, 1, 3]);
        g.reshape(x, &[batch * heads, tokens, width])
    });
    let [by_row, by_column] = ["attn.rel_pos_h", "attn.rel_pos_w"]
        .map(|name| LeafSource::relative(&leaves.name(name), side).leaf(g, &[side, side, width]));

    // A few heads at a time, so that the scores of a large canvas fit into a binding.
    let at_once = (SCORES / (tokens * tokens).max(1)).clamp(1, batch * heads);
    let mut parts = Vec::new();
    for first in (0..batch * heads).step_by(at_once) {
        let count = at_once.min(batch * heads - first);
        let [q, k, v] = [q, k, v].map(|x| g.slice(x, 0, first, count));
        // The query's rows (or columns) become the batch of a product with the table of that row (or column).
        let grid = g.reshape(q, &[count, side, side, width]);
        let rows = g.permute(grid, &[1, 0, 2, 3]);
        let rows = g.reshape(rows, &[side, count * side, width]);
        let table = g.transpose(by_row);
        let rows = g.dot(rows, table); // (y_q, heads·x_q, y_k)
        let rows = g.reshape(rows, &[side, count, side, side]);
        let rows = g.permute(rows, &[1, 0, 2, 3]);
        let rows = g.reshape(rows, &[count, side, side, side, 1]);
        let columns = g.permute(grid, &[2, 0, 1, 3]);
        let columns = g.reshape(columns, &[side, count * side, width]);
        let table = g.transpose(by_column);
        let columns = g.dot(columns, table); // (x_q, heads·y_q, x_k)
        let columns = g.reshape(columns, &[side, count, side, side]);
        let columns = g.permute(columns, &[1, 2, 0, 3]);
        let columns = g.reshape(columns, &[count, side, side, 1, side]);

        let keys = g.transpose(k);
        let scores = g.dot(q, keys);
        let scores = g.scale(scores, block.scale(channels));
        let scores = g.reshape(scores, &[count, side, side, side, side]);
        let scores = g.add(scores, rows);
        let scores = g.add(scores, columns);
        let scores = g.reshape(scores, &[count, tokens, tokens]);
        let weights = softmax(g, scores);
        parts.push(g.dot(weights, v));
    }
    let y = g.concat(&parts, 0);
    let y = g.reshape(y, &[batch, heads, tokens, width]);
    let y = g.permute(y, &[0, 2, 1, 3]);
    block.attended(g, leaves, y)
}

/// Softmax over the last axis.
fn softmax(g: &mut Graph, x: Value) -> Value {
    let axis = g.shape(x).len() - 1;
    let largest = g.reduce_max(x, &[axis]);
    let x = g.sub(x, largest);
    let x = g.exp(x);
    let sum = g.sum(x, &[axis]);
    g.div(x, sum)
}
