//! RADIO v2.5. Reference: M. Ranzinger et al., AM-RADIO, 2024; G. Heinrich et al., RADIOv2.5, 2025.

use std::sync::Arc;

use serde_json::{Value as Json, json};
use viral_compiler::{Graph, Value};

use super::super::leaf::{Leaves, Trainable};
use super::super::source::Interpolation;
use super::super::vision::rows_from;
use super::super::vit::{self, Block, BlockNames, Ffn, PositionTable};
use super::super::{TEACHER, extents};
use super::recognise::{self, Tensors};
use super::{Kind, Teacher, TeacherInput};
use crate::config::{Activation, ConfigError, Section};
use crate::weights::NameMap;

pub(super) const KIND: Kind = Kind { model_types: &["radio"], read, recognise: Some((NameMap::Radio, recognise)) };

/// Width and heads of S, B, L, H and g.
const PUBLISHED: [(usize, usize); 5] = [(384, 6), (768, 12), (1024, 16), (1280, 16), (1536, 24)];

fn recognise(tensors: &Tensors) -> Option<Result<Json, String>> {
    tensors.has("patch_generator.embedder.weight").then(|| described(tensors))
}

fn described(tensors: &Tensors) -> Result<Json, String> {
    const EMBEDDER: &str = "patch_generator.embedder.weight";
    const POSITIONS: &str = "patch_generator.pos_embed";
    let hidden = tensors.extent(EMBEDDER, 0)?;
    let patch = recognise::side(EMBEDDER, tensors.extent(EMBEDDER, 1)? / 3)?;
    let (wide, is_gated) = tensors.feed_forward("blocks.0.mlp.")?;
    Ok(json!({
        "model_type": "radio",
        "hidden_size": hidden,
        "num_hidden_layers": tensors.layers("blocks."),
        "num_attention_heads": recognise::heads(&PUBLISHED, hidden)?,
        "mlp_ratio": wide / hidden as f64,
        "use_swiglu_ffn": is_gated,
        "qkv_bias": tensors.has("blocks.0.attn.qkv.bias"),
        "patch_size": patch,
        "max_img_size": patch * recognise::side(POSITIONS, tensors.extent(POSITIONS, 1)?)?,
        "num_cls_tokens": tensors.extent("patch_generator.cls_token.token", 0)?,
        "num_registers": 0,
        "patch_bias": tensors.has("patch_generator.embedder.bias"),
        "layer_scale": tensors.has("blocks.0.layer_scale1.lambda1"),
        "model_norm": tensors.has("norm.weight"),
        "feature_normalizer": tensors.has("feature_normalizer.tx"),
    }))
}

fn read(s: &Section<'_>) -> Result<Arc<dyn Teacher>, ConfigError> {
    Ok(Arc::new(RadioConfig::from_section(s)?))
}

/// A pre-norm vision transformer behind learned summary tokens, with a position table for a large canvas of which a
/// picture takes the top left ("cropped position embedding"). Its features are the patch rows of the last block.
#[derive(Clone, Debug, PartialEq)]
pub struct RadioConfig {
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Blocks.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// The feed-forward part of a block; that of the giant is gated.
    pub ffn: Ffn,
    /// Whether blocks have LayerScale vectors, as the giant's do.
    pub layer_scale: bool,
    /// Whether the patch embedding has a bias, as the giant's has.
    pub patch_bias: bool,
    /// Side of a square patch in pixels.
    pub patch_size: usize,
    /// Side of the canvas that the position table is made for, in pixels.
    pub canvas: usize,
    /// Learned tokens before the patches: class tokens and registers.
    pub summary_tokens: usize,
    /// Whether query, key and value have a bias.
    pub qkv_bias: bool,
    /// Added to the variance in every LayerNorm.
    pub layer_norm_eps: f64,
    /// Whether a norm follows the last block; of published models only the giant has one.
    pub final_norm: bool,
    /// Whether the features are centred and turned by a stored matrix, as those of some releases are.
    pub normalizer: bool,
}

impl RadioConfig {
    fn from_section(s: &Section<'_>) -> Result<Self, ConfigError> {
        s.refuse_unless("num_channels", json!(3))?;
        s.refuse_unless("layerscale_value", json!(1.0))?;
        let hidden_size = s.size("hidden_size", 1280)?;
        let wide = (hidden_size as f64 * s.positive("mlp_ratio", 4.0)?) as usize;
        if !(1..=1 << 24).contains(&wide) {
            return Err(s.wrong("mlp_ratio", "a ratio that gives a sensible width"));
        }
        let act = s.activation("hidden_act", Activation::Gelu, &[Activation::Gelu, Activation::GeluTanh])?;
        let config = Self {
            hidden_size,
            layers: s.layers("num_hidden_layers", 32)?,
            heads: s.size("num_attention_heads", 16)?,
            ffn: Ffn::of_width(wide, act, s.flag("use_swiglu_ffn", false)?),
            layer_scale: s.flag("layer_scale", false)?,
            patch_bias: s.flag("patch_bias", false)?,
            patch_size: s.side("patch_size", 16)?,
            canvas: s.side("max_img_size", 2048)?,
            summary_tokens: s.size("num_cls_tokens", 3)? + s.count("num_registers", 7)?,
            qkv_bias: s.flag("qkv_bias", true)?,
            layer_norm_eps: s.positive("layer_norm_eps", 1e-6)?,
            final_norm: s.flag("model_norm", false)?,
            normalizer: s.flag("feature_normalizer", false)?,
        };
        s.divisible(("hidden_size", hidden_size), ("num_attention_heads", config.heads))?;
        s.divisible(("max_img_size", config.canvas), ("patch_size", config.patch_size))?;
        Ok(config)
    }
}

const NAMES: BlockNames = BlockNames {
    norm1: "norm1",
    attention: vit::AttentionNames::Fused("attn.qkv"),
    output: "attn.proj",
    norm2: "norm2",
    mlp: vit::MLP,
    scales: None,
};

const SCALED_NAMES: BlockNames = BlockNames { scales: Some(["layer_scale1.lambda1", "layer_scale2.lambda1"]), ..NAMES };

impl Teacher for RadioConfig {
    fn width(&self) -> usize {
        self.hidden_size
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
        TeacherInput::Unit
    }

    fn names(&self) -> NameMap {
        NameMap::Radio
    }

    /// The library writes LayerScale vectors of 1 that most published models do not have; video models have a second patch
    /// embedding, the giant a token that stood for hidden patches.
    fn unused(&self) -> Vec<String> {
        let layers = if self.layer_scale { 0 } else { self.layers };
        let scales = (0..layers).map(|layer| format!("blocks.{layer}.layer_scale"));
        scales.chain(["patch_generator.video_embedder.", "mask_token"].map(str::to_string)).collect()
    }

    fn features(&self, g: &mut Graph, pixels: Value, positions: Option<Interpolation>) -> Value {
        let leaves = Leaves::new(TEACHER, Trainable::NOTHING);
        let pixels = g.scoped("input_conditioner", |g| {
            let statistic = |g: &mut Graph, name| leaves.under("input_conditioner").tensor(g, name, &[3, 1, 1]);
            let (mean, std) = (statistic(g, "norm_mean"), statistic(g, "norm_std"));
            let centred = g.sub(pixels, mean);
            g.div(centred, std)
        });
        let filter = positions.unwrap_or(Interpolation::Bilinear);
        let mut x = g.scoped("embeddings", |g| self.embed(g, &leaves.under("patch_generator"), pixels, filter));
        let block = Block {
            heads: self.heads,
            eps: self.layer_norm_eps,
            qkv_bias: self.qkv_bias,
            ffn: self.ffn,
            names: if self.layer_scale { &SCALED_NAMES } else { &NAMES },
        };
        for layer in 0..self.layers {
            let leaves = leaves.under(&format!("blocks.{layer}"));
            x = g.scoped(format!("layers.{layer}"), |g| block.apply(g, &leaves, x));
        }
        let x = rows_from(g, x, self.summary_tokens);
        let x = if self.final_norm { leaves.layer_norm(g, "norm", x, self.layer_norm_eps) } else { x };
        if self.normalizer { normalized(g, &leaves.under("feature_normalizer"), x) } else { x }
    }
}

impl RadioConfig {
    /// `[summary tokens; patches + positions]`, `(I, T+N, C)`. For a square picture the whole table is resampled to its
    /// grid, of which the crop then takes all.
    fn embed(&self, g: &mut Graph, leaves: &Leaves, pixels: Value, filter: Interpolation) -> Value {
        let channels = self.hidden_size;
        let patches = vit::patches(g, pixels, self.patch_size); // (I, N, 3·p²)
        let patches = leaves.linear(g, "embedder", patches, channels, self.patch_bias);
        let [images] = extents(g, patches);
        let [_, _, height, width] = extents(g, pixels);
        let table = PositionTable {
            name: "pos_embed",
            shape: |rows, width| vec![1, rows, width],
            extra: 0,
            side: self.own_grid(),
            filter,
        };
        let positions = table.leaf(g, leaves, [height / self.patch_size, width / self.patch_size], channels);
        let patches = g.add(patches, positions);
        let tokens = leaves.tensor(g, "cls_token.token", &[self.summary_tokens, channels]);
        let tokens = g.expand(tokens, &[images, self.summary_tokens, channels]);
        g.concat(&[tokens, patches], 1)
    }
}

/// `tx (x - mean)` for each row of `x (M, C)`.
fn normalized(g: &mut Graph, leaves: &Leaves, x: Value) -> Value {
    let [rows, channels] = extents(g, x);
    let mean = leaves.tensor(g, "mean", &[channels]);
    let mean = g.expand(mean, &[rows, channels]);
    let centred = g.sub(x, mean);
    let turn = leaves.tensor(g, "tx", &[channels, channels]);
    g.linear(centred, turn, None)
}
