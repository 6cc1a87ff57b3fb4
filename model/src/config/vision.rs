//! The vision tower: CLIP's and SigLIP's vision transformers.

use serde_json::json;

use super::{Activation, ConfigError, Section};

/// Which library class the tower is. The two share their blocks; they differ in what comes before them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VisionFamily {
    /// `model_type` "clip_vision_model": a class token, no bias in the patch embedding, a norm before the blocks.
    Clip,
    /// `model_type` "siglip_vision_model", which fixed-resolution SigLIP 2 models have, too: no class token, a patch
    /// embedding with bias, no norm before the blocks.
    Siglip,
}

impl VisionFamily {
    /// Name in configuration files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Clip => "clip_vision_model",
            Self::Siglip => "siglip_vision_model",
        }
    }
}

/// A pre-norm vision transformer with learned positions and biases in every block.
#[derive(Clone, Debug, PartialEq)]
pub struct VisionConfig {
    /// Library class.
    pub family: VisionFamily,
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

impl VisionConfig {
    /// Patches along one side. Pixels beyond the last whole patch are not seen, as in the library: 384 pixels are 27
    /// patches of 14.
    pub fn grid(&self) -> usize {
        self.image_size / self.patch_size
    }

    /// Patches of one picture.
    pub fn patches(&self) -> usize {
        self.grid() * self.grid()
    }

    /// Tokens in front of the patches.
    pub fn class_tokens(&self) -> usize {
        match self.family {
            VisionFamily::Clip => 1,
            VisionFamily::Siglip => 0,
        }
    }

    /// Rows of the position table: the class token, if there is one, and the patches.
    pub fn positions(&self) -> usize {
        self.patches() + self.class_tokens()
    }

    /// Width of one head.
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.heads
    }

    /// The tower of LLaVA-1.5 (CLIP ViT-L/14 at 336 pixels), which a LLaVA file without `vision_config` means.
    pub fn clip_large_336() -> Self {
        Self {
            family: VisionFamily::Clip,
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

    /// Reads the `vision_config` section of a LLaVA, or the file of a tower alone; without `model_type` it is CLIP.
    pub(crate) fn from_section(s: &Section<'_>) -> Result<Self, ConfigError> {
        Self::of_family(s, VisionFamily::Clip)
    }

    /// As [`Self::from_section`], where a missing `model_type` means `default`.
    pub(crate) fn of_family(s: &Section<'_>, default: VisionFamily) -> Result<Self, ConfigError> {
        let family = match s.text("model_type")? {
            None => default,
            Some(name) => [VisionFamily::Clip, VisionFamily::Siglip]
                .into_iter()
                .find(|family| family.name() == name)
                .ok_or_else(|| {
                let supported = "clip_vision_model, siglip_vision_model (of SigLIP 2 the fixed-resolution models)";
                s.unsupported("model_type", supported)
            })?,
        };
        s.refuse_unless("num_channels", json!(3))?;
        s.refuse_unless("attention_dropout", json!(0.0))?;
        let (patch, act, eps) = match family {
            VisionFamily::Clip => (32, Activation::QuickGelu, 1e-5),
            VisionFamily::Siglip => (16, Activation::GeluTanh, 1e-6),
        };
        let implemented = [Activation::QuickGelu, Activation::Gelu, Activation::GeluTanh];
        let config = Self {
            family,
            hidden_size: s.size("hidden_size", 768)?,
            intermediate_size: s.size("intermediate_size", 3072)?,
            layers: s.layers("num_hidden_layers", 12)?,
            heads: s.size("num_attention_heads", 12)?,
            image_size: s.side("image_size", 224)?,
            patch_size: s.side("patch_size", patch)?,
            hidden_act: s.activation("hidden_act", act, &implemented)?,
            layer_norm_eps: s.positive("layer_norm_eps", eps)?,
        };
        s.divisible(("hidden_size", config.hidden_size), ("num_attention_heads", config.heads))?;
        if config.grid() == 0 {
            return Err(s.inconsistent("`image_size` is smaller than `patch_size`"));
        }
        if family == VisionFamily::Clip {
            s.divisible(("image_size", config.image_size), ("patch_size", config.patch_size))?;
        }
        Ok(config)
    }
}
