//! The CLIP vision tower.

use serde_json::json;

use super::{Activation, ConfigError, Section};

/// A pre-norm vision transformer with a class token, learned positions and biases everywhere but in the patch
/// embedding.
#[derive(Clone, Debug, PartialEq)]
pub struct ClipVisionConfig {
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Blocks.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// Side of the square input in pixels.
    pub image_size: usize,
    /// Side of a square patch in pixels.
    pub patch_size: usize,
    /// Activation of the MLP.
    pub hidden_act: Activation,
    /// Added to the variance in every LayerNorm.
    pub layer_norm_eps: f64,
}

impl ClipVisionConfig {
    /// Patches along one side.
    pub fn grid(&self) -> usize {
        self.image_size / self.patch_size
    }

    /// Patches of one picture.
    pub fn patches(&self) -> usize {
        self.grid() * self.grid()
    }

    /// Rows of the position table: the class token and the patches.
    pub fn positions(&self) -> usize {
        self.patches() + 1
    }

    /// Width of one head.
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.heads
    }

    /// The tower of LLaVA-1.5 (CLIP ViT-L/14 at 336 pixels), which a LLaVA file without `vision_config` means.
    pub fn large_336() -> Self {
        Self {
            hidden_size: 1024,
            intermediate_size: 4096,
            layers: 24,
            heads: 16,
            image_size: 336,
            patch_size: 14,
            hidden_act: Activation::QuickGelu,
            layer_norm_eps: 1e-5,
        }
    }

    /// Reads the `vision_config` section.
    pub(crate) fn from_section(s: &Section<'_>) -> Result<Self, ConfigError> {
        match s.text("model_type")? {
            None | Some("clip_vision_model") => {}
            Some(_) => return Err(s.unsupported("model_type", "clip_vision_model")),
        }
        s.refuse_unless("num_channels", json!(3))?;
        s.refuse_unless("attention_dropout", json!(0.0))?;
        let config = Self {
            hidden_size: s.size("hidden_size", 768)?,
            intermediate_size: s.size("intermediate_size", 3072)?,
            layers: s.layers("num_hidden_layers", 12)?,
            heads: s.size("num_attention_heads", 12)?,
            image_size: s.side("image_size", 224)?,
            patch_size: s.side("patch_size", 32)?,
            hidden_act: s.activation(
                "hidden_act",
                Activation::QuickGelu,
                &[Activation::QuickGelu, Activation::Gelu, Activation::GeluTanh],
            )?,
            layer_norm_eps: s.positive("layer_norm_eps", 1e-5)?,
        };
        s.divisible(("hidden_size", config.hidden_size), ("num_attention_heads", config.heads))?;
        s.divisible(("image_size", config.image_size), ("patch_size", config.patch_size))?;
        Ok(config)
    }
}
