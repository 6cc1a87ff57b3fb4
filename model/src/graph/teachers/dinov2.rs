//! DINOv2. Reference: M. Oquab et al., 2023; registers: T. Darcet et al., 2023.

use std::sync::Arc;

use serde_json::{Value as Json, json};
use viral_compiler::{Graph, Value};

use super::super::leaf::{Leaves, Trainable};
use super::super::pixels::PixelNorm;
use super::super::source::Interpolation;
use super::super::vision::rows_from;
use super::super::vit::{self, Block, BlockNames, PositionTable};
use super::super::{TEACHER, extents};
use super::recognise::{self, Tensors};
use super::{Kind, Teacher, TeacherInput};
use crate::config::{ConfigError, Dinov2Config, Section};
use crate::weights::NameMap;

pub(super) const KIND: Kind =
    Kind { model_types: &["dinov2", "dinov2_with_registers"], read, recognise: Some((NameMap::Dinov2, recognise)) };

/// Width and heads of S, B, L and g.
const PUBLISHED: [(usize, usize); 4] = [(384, 6), (768, 12), (1024, 16), (1536, 24)];

fn read(s: &Section<'_>) -> Result<Arc<dyn Teacher>, ConfigError> {
    Ok(Arc::new(Dinov2Config::from_section(s)?))
}

/// The configuration of tensors that are a DINOv2's.
pub(super) fn recognise(tensors: &Tensors) -> Option<Result<Json, String>> {
    let is_mine = tensors.has("embeddings.cls_token") && tensors.has("encoder.layer.0.layer_scale1.lambda1");
    is_mine.then(|| described(tensors))
}

fn described(tensors: &Tensors) -> Result<Json, String> {
    const POSITIONS: &str = "embeddings.position_embeddings";
    let hidden = tensors.extent("embeddings.cls_token", 2)?;
    let patch = tensors.extent("embeddings.patch_embeddings.projection.weight", 3)?;
    let side = recognise::side(POSITIONS, tensors.extent(POSITIONS, 1)?.saturating_sub(1))?;
    let (wide, is_gated) = tensors.feed_forward("encoder.layer.0.mlp.")?;
    let registers = tensors.extent("embeddings.register_tokens", 1).ok();
    Ok(recognise::object(json!({
        "model_type": if registers.is_some() { "dinov2_with_registers" } else { "dinov2" },
        "hidden_size": hidden,
        "num_hidden_layers": tensors.layers("encoder.layer."),
        "num_attention_heads": recognise::heads(&PUBLISHED, hidden)?,
        "mlp_ratio": wide / hidden as f64,
        "use_swiglu_ffn": is_gated,
        "qkv_bias": tensors.has("encoder.layer.0.attention.attention.query.bias"),
        "image_size": side * patch,
        "patch_size": patch,
        "num_register_tokens": registers,
    })))
}

const NAMES: BlockNames = BlockNames {
    norm1: "norm1",
    attention: vit::AttentionNames::Apart {
        query: "attention.attention.query",
        key: "attention.attention.key",
        value: "attention.attention.value",
    },
    output: "attention.output.dense",
    norm2: "norm2",
    mlp: vit::MLP,
    scales: Some(["layer_scale1.lambda1", "layer_scale2.lambda1"]),
};

impl Teacher for Dinov2Config {
    fn width(&self) -> usize {
        self.hidden_size
    }

    fn patch(&self) -> usize {
        self.patch_size
    }

    fn own_grid(&self) -> usize {
        self.grid()
    }

    fn input(&self) -> TeacherInput {
        TeacherInput::Normalised(PixelNorm::IMAGENET)
    }

    fn names(&self) -> NameMap {
        NameMap::Dinov2
    }

    fn unused(&self) -> Vec<String> {
        vec!["embeddings.mask_token".into(), "classifier.".into()]
    }

    fn features(&self, g: &mut Graph, pixels: Value, positions: Option<Interpolation>) -> Value {
        // The library's two model classes differ in this.
        let own = match self.register_tokens {
            0 => Interpolation::Bicubic,
            _ => Interpolation::AntialiasedBicubic,
        };
        features(g, self, pixels, positions.unwrap_or(own))
    }
}

/// Patch tokens of `pixels (I, 3, S, S)` after the final norm, as `(I·N, C)` rows.
pub(super) fn features(g: &mut Graph, config: &Dinov2Config, pixels: Value, positions: Interpolation) -> Value {
    let leaves = Leaves::new(TEACHER, Trainable::NOTHING);
    let mut x = g.scoped("embeddings", |g| embed(g, config, &leaves.under("embeddings"), pixels, positions));
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
    let x = rows_from(g, x, 1 + config.register_tokens);
    leaves.layer_norm(g, "layernorm", x, config.layer_norm_eps)
}

/// `[class; registers; patches]` with positions added to class and patches, `(I, 1+R+N, C)`.
fn embed(g: &mut Graph, config: &Dinov2Config, leaves: &Leaves, pixels: Value, filter: Interpolation) -> Value {
    let channels = config.hidden_size;
    let projection = leaves.under("patch_embeddings.projection");
    let patches = vit::patch_embedding(g, &projection, pixels, config.patch_size, channels, true); // (I, N, C)
    let [images, n_patches] = extents(g, patches);
    let [_, _, height, width] = extents(g, pixels);
    let table = PositionTable {
        name: "position_embeddings",
        shape: |rows, width| vec![1, rows, width],
        extra: 1,
        side: config.grid(),
        filter,
    };
    let grid = [height / config.patch_size, width / config.patch_size];
    let positions = table.leaf(g, leaves, grid, channels); // (1, 1+N, C)

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
