//! The DINOv2 vision transformer, the teacher. Reference: M. Oquab et al., 2023; registers: T. Darcet et al., 2023.

use viral_compiler::{Graph, Value};

use super::leaf::{Leaves, Trainable};
use super::source::{Interpolation, LeafSource, Origin};
use super::vit::{self, Block, BlockNames};
use super::{TEACHER, extents};
use crate::config::Dinov2Config;

const NAMES: BlockNames = BlockNames {
    norm1: "norm1",
    query: "attention.attention.query",
    key: "attention.attention.key",
    value: "attention.attention.value",
    output: "attention.output.dense",
    norm2: "norm2",
    scales: Some(["layer_scale1.lambda1", "layer_scale2.lambda1"]),
};

/// Patch tokens of `pixels (I, 3, S, S)` after the final norm, as `(I·N, C)` rows. `S` is a multiple of the patch size;
/// where it is not the one the position table was made for, the table is resampled as the library does.
pub fn features(g: &mut Graph, config: &Dinov2Config, pixels: Value) -> Value {
    let leaves = Leaves::new(TEACHER, Trainable::NOTHING);
    g.scoped(TEACHER, |g| {
        let mut x = g.scoped("embeddings", |g| embed(g, config, &leaves.under("embeddings"), pixels));
        let block = Block {
            heads: config.heads,
            eps: config.layer_norm_eps,
            qkv_bias: config.qkv_bias,
            ffn: config.ffn,
            names: &NAMES,
        };
        for layer in 0..config.layers {
            let leaves = leaves.under(&format!("encoder.layer.{layer}"));
            x = g.scoped(format!("layers.{layer}"), |g| block.apply(g, &leaves, x));
        }
        let [images, tokens, channels] = extents(g, x);
        let extra = 1 + config.register_tokens;
        let x = g.slice(x, 1, extra, tokens - extra);
        let x = leaves.layer_norm(g, "layernorm", x, config.layer_norm_eps);
        g.reshape(x, &[images * (tokens - extra), channels])
    })
}

/// `[class; registers; patches]` with positions added to class and patches, `(I, 1+R+N, C)`.
fn embed(g: &mut Graph, config: &Dinov2Config, leaves: &Leaves, pixels: Value) -> Value {
    let channels = config.hidden_size;
    let projection = leaves.under("patch_embeddings.projection");
    let patches = vit::patch_embedding(g, &projection, pixels, config.patch_size, channels, true); // (I, N, C)
    let [images, n_patches] = extents(g, patches);
    let [_, _, height, width] = extents(g, pixels);
    let grid = [height / config.patch_size, width / config.patch_size];
    let positions = position_table(g, config, leaves, grid); // (1, 1+N, C)

    let class = leaves.tensor(g, "cls_token", &[1, 1, channels]);
    let class_position = g.slice(positions, 1, 0, 1);
    let class = g.add(class, class_position);
    let patch_positions = g.slice(positions, 1, 1, n_patches);
    let patches = g.add(patches, patch_positions);
    let mut tokens = vec![g.expand(class, &[images, 1, channels])];
    if config.register_tokens > 0 {
        let registers = leaves.tensor(g, "register_tokens", &[1, config.register_tokens, channels]);
        tokens.push(g.expand(registers, &[images, config.register_tokens, channels]));
    }
    tokens.push(patches);
    g.concat(&tokens, 1)
}

/// Positions of the class token and of a grid of patches, `(1, 1+N, C)`.
fn position_table(g: &mut Graph, config: &Dinov2Config, leaves: &Leaves, grid: [usize; 2]) -> Value {
    let shape = [1, 1 + grid[0] * grid[1], config.hidden_size];
    if grid == [config.grid(); 2] {
        return leaves.tensor(g, "position_embeddings", &shape);
    }
    // The library's two model classes differ in this.
    let filter = match config.register_tokens {
        0 => Interpolation::Bicubic,
        _ => Interpolation::AntialiasedBicubic,
    };
    let name = "embeddings.position_embeddings".to_owned();
    LeafSource::PositionTable { origin: Origin::Teacher, name, grid, filter }.leaf(g, &shape)
}
