//! The CLIP vision tower. Reference: A. Radford et al., 2021, in the form of the library's `CLIPVisionModel`.

use viral_compiler::{Graph, Value};

use super::extents;
use super::leaf::{Leaves, Trainable};
use super::vit::{self, Block, BlockNames};
use crate::config::{ClipVisionConfig, Dinov2Ffn as Ffn, FeatureSelect};

const NAMES: BlockNames = BlockNames {
    norm1: "layer_norm1",
    query: "self_attn.q_proj",
    key: "self_attn.k_proj",
    value: "self_attn.v_proj",
    output: "self_attn.out_proj",
    norm2: "layer_norm2",
    scales: None,
};

/// Features of `pixels (I, 3, S, S)`: the hidden state after `blocks` blocks, as `(I·N, C)` rows. Later blocks are not
/// built, and no norm follows.
pub fn features(
    g: &mut Graph,
    config: &ClipVisionConfig,
    blocks: usize,
    select: FeatureSelect,
    pixels: Value,
) -> Value {
    let leaves = Leaves::new("model.vision_tower", Trainable::NOTHING);
    g.scoped("vision_tower", |g| {
        let mut x = g.scoped("embeddings", |g| embed(g, config, &leaves, pixels)); // (I, 1+N, C)
        let block = Block {
            heads: config.heads,
            eps: config.layer_norm_eps,
            qkv_bias: true,
            ffn: Ffn::Mlp { hidden: config.intermediate_size, act: config.hidden_act },
            names: &NAMES,
        };
        for layer in 0..blocks {
            let leaves = leaves.under(&format!("encoder.layers.{layer}"));
            x = g.scoped(format!("layers.{layer}"), |g| block.apply(g, &leaves, x));
        }
        let [images, tokens, channels] = extents(g, x);
        let (first, rows) = match select {
            FeatureSelect::Patches => (1, tokens - 1),
            FeatureSelect::Full => (0, tokens),
        };
        let x = g.slice(x, 1, first, rows);
        g.reshape(x, &[images * rows, channels])
    })
}

/// Hidden state 0: `norm([class; patches] + positions)`, `(I, 1+N, C)`.
fn embed(g: &mut Graph, config: &ClipVisionConfig, leaves: &Leaves, pixels: Value) -> Value {
    let channels = config.hidden_size;
    let embeddings = leaves.under("embeddings");
    let patch_leaves = embeddings.under("patch_embedding");
    let patches = vit::patch_embedding(g, &patch_leaves, pixels, config.patch_size, channels, false); // (I, N, C)
    let [images] = extents(g, patches);
    let class = embeddings.tensor(g, "class_embedding", &[channels]);
    let class = g.expand(class, &[images, 1, channels]);
    let tokens = g.concat(&[class, patches], 1);
    let positions = embeddings.tensor(g, "position_embedding.weight", &[config.positions(), channels]);
    let x = g.add(tokens, positions);
    leaves.layer_norm(g, "pre_layrnorm", x, config.layer_norm_eps)
}
