//! RADIO v2.5. Reference: M. Ranzinger et al., AM-RADIO, 2024; G. Heinrich et al., RADIOv2.5, 2025.

use std::sync::Arc;

use serde_json::json;
use viral_compiler::{Graph, Value};

use super::super::leaf::{Leaves, Trainable};
use super::super::source::Interpolation;
use super::super::vision::rows_from;
use super::super::vit::{self, Block, BlockNames, Ffn, PositionTable};
use super::super::{TEACHER, extents};
use super::{Teacher, TeacherInput};
use crate::config::{Activation, ConfigError, Section};
use crate::weights::NameMap;

pub(super) const MODEL_TYPES: &[&str] = &["radio"];

pub(super) fn read(s: &Section<'_>) -> Result<Arc<dyn Teacher>, ConfigError> {
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
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Activation of the MLP.
    pub hidden_act: Activation,
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
    /// Whether a norm follows the last block; checkpoints as published have none.
    pub final_norm: bool,
}

impl RadioConfig {
    fn from_section(s: &Section<'_>) -> Result<Self, ConfigError> {
        s.refuse_unless("num_channels", json!(3))?;
        s.refuse_unless("use_swiglu_ffn", json!(false))?;
        s.refuse_unless("layerscale_value", json!(1.0))?;
        let hidden_size = s.size("hidden_size", 1280)?;
        let config = Self {
            hidden_size,
            layers: s.layers("num_hidden_layers", 32)?,
            heads: s.size("num_attention_heads", 16)?,
            intermediate_size: (hidden_size as f64 * s.positive("mlp_ratio", 4.0)?) as usize,
            hidden_act: s.activation("hidden_act", Activation::Gelu, &[Activation::Gelu, Activation::GeluTanh])?,
            patch_size: s.side("patch_size", 16)?,
            canvas: s.side("max_img_size", 2048)?,
            summary_tokens: s.size("num_cls_tokens", 3)? + s.count("num_registers", 7)?,
            qkv_bias: s.flag("qkv_bias", true)?,
            layer_norm_eps: s.positive("layer_norm_eps", 1e-6)?,
            final_norm: s.flag("model_norm", false)?,
        };
        s.divisible(("hidden_size", hidden_size), ("num_attention_heads", config.heads))?;
        s.divisible(("max_img_size", config.canvas), ("patch_size", config.patch_size))?;
        if !(1..=1 << 24).contains(&config.intermediate_size) {
            return Err(s.wrong("mlp_ratio", "a ratio that gives a sensible width"));
        }
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

    /// The library writes LayerScale vectors of 1 that published models do not have; video models have a second patch
    /// embedding.
    fn unused(&self) -> Vec<String> {
        let scales = (0..self.layers).map(|layer| format!("blocks.{layer}.layer_scale"));
        scales.chain(["patch_generator.video_embedder.".into()]).collect()
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
            ffn: Ffn::Mlp { hidden: self.intermediate_size, act: self.hidden_act },
            names: &NAMES,
        };
        for layer in 0..self.layers {
            let leaves = leaves.under(&format!("blocks.{layer}"));
            x = g.scoped(format!("layers.{layer}"), |g| block.apply(g, &leaves, x));
        }
        let x = rows_from(g, x, self.summary_tokens);
        if self.final_norm { leaves.layer_norm(g, "norm", x, self.layer_norm_eps) } else { x }
    }
}

impl RadioConfig {
    /// `[summary tokens; patches + positions]`, `(I, T+N, C)`. For a square picture the whole table is resampled to its
    /// grid, of which the crop then takes all.
    fn embed(&self, g: &mut Graph, leaves: &Leaves, pixels: Value, filter: Interpolation) -> Value {
        let channels = self.hidden_size;
        let patches = vit::patches(g, pixels, self.patch_size); // (I, N, 3·p²)
        let patches = leaves.linear(g, "embedder", patches, channels, false);
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
