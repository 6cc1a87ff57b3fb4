//! The vision towers: CLIP (A. Radford et al., 2021) and SigLIP (X. Zhai et al., 2023; SigLIP 2: M. Tschannen et al.,
//! 2025), in the form of the library's `CLIPVisionModel` and `SiglipVisionModel`.

use viral_compiler::{Graph, Value};

use super::leaf::{Leaves, Trainable};
use super::source::Interpolation;
use super::vit::{self, Block, BlockNames, PositionTable};
use super::{extents, vit::Ffn};
use crate::config::{FeatureSelect, LlavaConfig, VisionConfig, VisionFamily};

const NAMES: BlockNames = BlockNames {
    norm1: "layer_norm1",
    attention: vit::AttentionNames::Apart {
        query: "self_attn.q_proj",
        key: "self_attn.k_proj",
        value: "self_attn.v_proj",
    },
    output: "self_attn.out_proj",
    norm2: "layer_norm2",
    mlp: vit::MLP,
    scales: None,
};

/// What the projector sees of `pixels (I, 3, S, S)`: the chosen hidden states of the model's tower, side by side, as
/// `(I·N, C)` rows. Later blocks are not built, and no norm follows.
pub fn features(g: &mut Graph, config: &LlavaConfig, pixels: Value) -> Value {
    let leaves = Leaves::new("model.vision_tower", Trainable::NOTHING);
    let tower = &config.vision;
    g.scoped("vision_tower", |g| {
        let states = hidden_states(g, tower, &leaves, &config.vision_layers, pixels, Interpolation::Bicubic);
        let first = match config.feature_select {
            FeatureSelect::Patches => tower.class_tokens(),
            FeatureSelect::Full => 0,
        };
        let rows: Vec<Value> = states.into_iter().map(|state| rows_from(g, state, first)).collect();
        g.concat(&rows, 1)
    })
}

/// Hidden states `(I, tokens, C)` of the tower whose tensors `leaves` names: state 0 is what enters the first block,
/// state `k` comes out of block `k`. Where the input is not the size that the position table was made for, the table is
/// resampled by `positions`; the library's `interpolate_pos_encoding` is bicubic.
pub(super) fn hidden_states(
    g: &mut Graph,
    config: &VisionConfig,
    leaves: &Leaves,
    layers: &[usize],
    pixels: Value,
    positions: Interpolation,
) -> Vec<Value> {
    let block = Block {
        heads: config.heads,
        eps: config.layer_norm_eps,
        qkv_bias: true,
        ffn: Ffn::Mlp { hidden: config.intermediate_size, act: config.hidden_act },
        names: &NAMES,
    };
    let mut states = vec![g.scoped("embeddings", |g| embed(g, config, leaves, pixels, positions))];
    for layer in 0..layers.iter().copied().max().unwrap_or(0) {
        let leaves = leaves.under(&format!("encoder.layers.{layer}"));
        let state = g.scoped(format!("layers.{layer}"), |g| block.apply(g, &leaves, states[layer]));
        states.push(state);
    }
    layers.iter().map(|&layer| states[layer]).collect()
}

/// All rows of `state (I, T, C)` from token `first` of each picture on, as a matrix.
pub(super) fn rows_from(g: &mut Graph, state: Value, first: usize) -> Value {
    let [images, tokens, channels] = extents(g, state);
    let rows = tokens.saturating_sub(first);
    let x = g.slice(state, 1, first, rows);
    g.reshape(x, &[images * rows, channels])
}

/// Hidden state 0. CLIP: `norm([class; patches] + positions)`; SigLIP: `patches + positions`.
fn embed(g: &mut Graph, config: &VisionConfig, leaves: &Leaves, pixels: Value, filter: Interpolation) -> Value {
    let channels = config.hidden_size;
    let embeddings = leaves.under("embeddings");
    let is_clip = config.family == VisionFamily::Clip;
    let patch_leaves = embeddings.under("patch_embedding");
    let mut x = vit::patch_embedding(g, &patch_leaves, pixels, config.patch_size, channels, !is_clip); // (I, N, C)
    let [images] = extents(g, x);
    if is_clip {
        let class = embeddings.tensor(g, "class_embedding", &[channels]);
        let class = g.expand(class, &[images, 1, channels]);
        x = g.concat(&[class, x], 1);
    }
    let [_, _, height, width] = extents(g, pixels);
    let table = PositionTable {
        name: "position_embedding.weight",
        shape: |rows, width| vec![rows, width],
        extra: config.class_tokens(),
        side: config.grid(),
        filter,
    };
    let grid = [height / config.patch_size, width / config.patch_size];
    let positions = table.leaf(g, &embeddings, grid, channels);
    let x = g.add(x, positions);
    if is_clip { leaves.layer_norm(g, "pre_layrnorm", x, config.layer_norm_eps) } else { x }
}
